"""Repairs a chunk with doubtful lines. The result contains only valid events.

This slow path works line by line in Python. Only chunks with doubtful lines need it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from mixpanel_export._database.connection import Connection
from mixpanel_export._database.settings import memory_for_lines
from mixpanel_export._ndjson import Canonical, canonical
from mixpanel_export._writer.extract import LoadError
from mixpanel_export._writer.staging import StagedChunk, Staging

_PAGE = 1 << 20  # bytes of lines that DuckDB checks at a time


def repair(connection: Connection, staged: StagedChunk, doubtful: set[int], staging: Staging) -> StagedChunk:
    """Rewrite the chunk with its *doubtful* lines in canonical form. Lines that are not events are rejected.

    The originals of rejected and repaired lines are stored in a file for `_export_rejects`.

    Raises:
        LoadError: The chunk was already repaired, or lines are missing.
    """
    if staged.originals:
        raise LoadError(f"DuckDB rejects repaired lines of {staged.chunk}; please report this")
    originals = staging.side_file(staged)
    counts = {"rejected": 0, "repaired": 0, "blank": 0}

    def lines() -> Iterator[bytes]:
        with originals.open("wb") as file:
            for line, event in _canonical_lines(connection, staged, doubtful):
                if line.isspace():
                    counts["blank"] += 1
                    continue
                if event is None or event.repaired:
                    reason = "rejected" if event is None else "repaired"
                    counts[reason] += 1
                    file.write(f"{reason},{line[:-1].hex()}\n".encode())
                if event is not None:
                    yield event.line

    rewritten = staging.rewrite(staged, lines())
    repaired = replace(rewritten, originals=originals, longest_original=staged.longest_segment)
    if repaired.lines + counts["rejected"] + counts["blank"] != staged.lines:
        staging.discard(repaired)
        raise LoadError(f"lines of {staged.chunk} were lost in repair; please report this")
    return replace(repaired, rejects=counts["rejected"], repaired=counts["repaired"])


def load_rejects(connection: Connection, staged: StagedChunk) -> None:
    """Insert the original lines that `repair` stored into `_export_rejects`."""
    if staged.originals is None:
        return
    connection.execute(
        "INSERT INTO _export_rejects SELECT ?, reason, unhex(text) FROM read_csv(?, auto_detect = false, "
        "header = false, delim = ',', quote = '', escape = '', max_line_size = ?, "
        "columns = {'reason': 'VARCHAR', 'text': 'VARCHAR'})",
        [staged.batch, str(staged.originals), 2 * staged.longest_original + 100],
    )


def _canonical_lines(
    connection: Connection, staged: StagedChunk, doubtful: set[int]
) -> Iterator[tuple[bytes, Canonical | None]]:
    """Yield each line with its canonical form. The form is None if the line is not an event or DuckDB cannot parse it."""
    for page in _pages(enumerate(staged.all_lines())):
        forms = {number: canonical(line[:-1]) for number, line in page if number in doubtful}
        valid = iter(_are_json(connection, [form.line for form in forms.values() if form]))
        forms = {number: form if form and next(valid) else None for number, form in forms.items()}
        for number, line in page:
            yield line, forms.get(number, Canonical(line[:-1], repaired=False))


def _pages(lines: Iterable[tuple[int, bytes]]) -> Iterator[list[tuple[int, bytes]]]:
    page: list[tuple[int, bytes]] = []
    size = 0
    for number, line in lines:
        page.append((number, line))
        size += len(line)
        if size > _PAGE:
            yield page
            page, size = [], 0
    yield page


def _are_json(connection: Connection, lines: Sequence[bytes]) -> list[bool]:
    """Return, for each line, whether DuckDB can parse it. The lines are passed as a list, which keeps their order."""
    with memory_for_lines(connection, max(map(len, lines), default=0)):
        ((flags,),) = connection.execute(
            "SELECT list_transform(?::VARCHAR[], lambda line: json_valid(line))",
            [[line.decode() for line in lines]],
        ).fetchall()
    return list(flags)
