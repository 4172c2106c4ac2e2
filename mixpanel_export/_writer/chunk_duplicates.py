"""Finds duplicates within a chunk. Only lines with recurring keys are read again and compared."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from mixpanel_export._writer.arrow import line_arrays
from mixpanel_export._writer.extract import NAME, ExtractedSegment, Extraction, LoadError
from mixpanel_export._writer.offsets import IndexedText, Numbers, index_lines
from mixpanel_export._writer.prepared import LINES, ArrowTable, PreparedRead
from mixpanel_export._writer.staging import StagedChunk
from mixpanel_export._writer.winners import MEMBERS, ROW_OVERHEAD, Candidate, duplicates

PAGE_SIZE = 2 << 20
"""The number of bytes of lines that are compared at a time."""

# Pages of compressed chunks are larger, because each page decompresses the whole chunk.
_COMPRESSED_FACTOR = 8
# The fields of a `Candidate` that can differ within a chunk.
_CANDIDATES = f"""
SELECT number, {NAME}, ids[1], ids[2], ids[3], TRY_CAST(ids[4] AS DOUBLE), properties
FROM (
    SELECT number, line[1]::VARCHAR AS raw, line[3] AS properties, TRY(json_extract_string(line[3], {MEMBERS})) AS ids
    FROM {LINES}
)
"""


def comparison(table: ArrowTable) -> PreparedRead:
    """Return the statement that reads the values to compare from each line. The schema of *table* is `LINE`."""
    return PreparedRead(table, "comparison", _CANDIDATES)


def duplicate_positions(
    statement: PreparedRead, staged: StagedChunk, extraction: Extraction, page_size: int = PAGE_SIZE
) -> list[int]:
    """Return the positions of the duplicates among the chunk's regular lines.

    *statement* comes from `comparison`.

    Raises:
        LoadError: The lines that were read again differ from the staged lines.
    """
    positions, keys = extraction.recurring_keys()
    if not len(positions):
        return []
    pages = (
        _candidates(statement, lines, keys)
        for lines, keys in _pages(staged, extraction.segments, positions, keys, page_size)
    )
    return [position for position, _, _ in duplicates(pages)]


def _candidates(statement: PreparedRead, lines: IndexedText, keys: NDArray[np.uint64]) -> Iterator[Candidate]:
    rows = statement.rows(line_arrays(lines))
    if [position for position, *_ in rows] != lines.numbers.tolist():
        raise LoadError("DuckDB read different lines, or in a different order; please report this")
    for key, (position, *row) in zip(keys.tolist(), rows, strict=True):
        yield key, *row, True, 0, position


def _pages(
    staged: StagedChunk,
    extracted: Sequence[ExtractedSegment],
    positions: Numbers,
    keys: NDArray[np.uint64],
    page_size: int,
) -> Iterator[tuple[IndexedText, NDArray[np.uint64]]]:
    """Yield the lines at *positions* with their keys, in pages in the order of *keys*."""
    firsts = np.cumsum([0, *(len(segment.spans) for segment in extracted)])
    segments = np.searchsorted(firsts, positions, side="right") - 1
    spans = np.empty((len(positions), 2), dtype=np.int64)
    for segment in np.unique(segments):
        inside = segments == segment
        spans[inside] = extracted[segment].spans[positions[inside] - firsts[segment]]
    size = (
        _COMPRESSED_FACTOR * page_size
        if any(segment.compressed for segment in staged.segments)
        else page_size
    )
    pages = np.cumsum(spans[:, 1] - spans[:, 0] + ROW_OVERHEAD) // size
    for page in np.unique(pages):
        on_page = np.flatnonzero(pages == page)
        on_page = on_page[np.argsort(positions[on_page])]
        by_segment: dict[int, list[list[int]]] = {}
        for segment, span in zip(segments[on_page].tolist(), spans[on_page].tolist(), strict=True):
            by_segment.setdefault(segment, []).append(span)
        text = b"".join(staged.read_spans(by_segment))
        index = index_lines(text)
        if len(index.regular) != len(on_page):
            raise LoadError(f"the staged files of {staged.chunk} were changed; please report this")
        yield IndexedText(text, index, positions[on_page]), keys[on_page]
