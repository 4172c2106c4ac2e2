"""Decides which of several rows with the same identity to keep. Pure functions.

The identity of a row is its event name, `distinct_id`, `time` and `$insert_id`, compared as text, exactly as sent. A row
without an `$insert_id` is never a duplicate. The winner is the row that Mixpanel processed last. If several rows have the
last processing time, the winner is the row whose text sorts last. So the result does not depend on the order in which rows
or batches arrive.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from math import isfinite

from mixpanel_export._ndjson import scalar_texts

Candidate = tuple[int, str, str | None, str | None, str | None, float | None, str, bool, int, int]
"""The key, the event name, the four values that DuckDB extracts for `MEMBERS` (the last one as a number), `properties`,
whether the row lies within its batch's days, the batch, and the row number. The key is a hash. Rows with the same
identity have the same key, but other rows may have it, too."""

MEMBERS = """['$.time', '$.distinct_id', '$."$insert_id"', '$.mp_processing_time_ms']"""
"""SQL for the paths of the compared members of `properties`. A single call extracts them all, because each call uses a lot of memory."""

ROW_OVERHEAD = 512
"""The bytes of memory that a row needs in Python, in addition to its text."""

_IDENTITY = ("time", "distinct_id", "$insert_id")
# DuckDB changes some values when it extracts them: numbers with a fraction or many digits are converted to a double,
# even inside objects and lists, and a negative zero loses its sign.
_REWRITTEN = re.compile(
    r"^([\[{]|-?0$|-?[0-9]+\.[0-9]|-?[0-9]+([eE][-+]?[0-9]+|[0-9]{18})$|-?(inf|nan|Inf|NaN))", re.MULTILINE
)

_Identity = tuple[object, ...]
_Version = tuple[bool, float, str, bool, int, int]


@dataclass(slots=True)
class _EqualRows:
    """The rows that share an identity.

    A version consists of: whether the processing time is known, that time, the text, whether the row lies within its
    batch's days, the negated batch number, and the row number. The greatest version wins.
    """

    key: int
    winner: _Version
    duplicates: list[tuple[int, int]] = field(default_factory=list)

    def result(self) -> Iterator[tuple[int, int, int]]:
        return ((number, batch, -self.winner[-2]) for number, batch in self.duplicates)


def duplicates(pages: Iterable[Iterable[Candidate]]) -> Iterator[tuple[int, int, int]]:
    """Yield each duplicate's row number and batch, and its winner's batch.

    Keys must not decrease from page to page. Each page is read completely before its duplicates are yielded.
    """
    by_identity: dict[_Identity, _EqualRows] = {}
    for page in pages:
        for candidate in page:
            _compare(by_identity, candidate)
        # The next page may have more rows with the last key.
        last = max((rows.key for rows in by_identity.values()), default=0)
        yield from chain.from_iterable(rows.result() for rows in by_identity.values() if rows.key < last)
        by_identity = {identity: rows for identity, rows in by_identity.items() if rows.key == last}
    yield from chain.from_iterable(rows.result() for rows in by_identity.values())


def _compare(by_identity: dict[_Identity, _EqualRows], candidate: Candidate) -> None:
    """Compare a row with its identity's current winner."""
    key, name, time, distinct_id, insert_id, processed, properties, inside, batch, number = candidate
    known = processed is not None and isfinite(processed)
    version = (
        known,
        processed if processed is not None and known else 0.0,
        properties,
        inside,
        -batch,
        number,
    )
    # Rows are also grouped by their key, so that the result does not depend on which rows share a page.
    identity = (key, name, *_as_sent(number, [time, distinct_id, insert_id], properties))
    rows = by_identity.get(identity)
    if rows is None:
        by_identity[identity] = _EqualRows(key, version)
        return
    if version > rows.winner:
        rows.winner, version = version, rows.winner
    rows.duplicates.append((version[-1], -version[-2]))


def _as_sent(number: int, texts: list[str | None], properties: str) -> list[str | None]:
    """Return the values of an identity as they were sent. *texts* has the values as DuckDB extracted them."""
    if not _REWRITTEN.search("\n".join(filter(None, texts))):
        return texts
    try:
        return scalar_texts(properties, _IDENTITY)
    except ValueError:
        # A row whose text cannot be parsed is not a duplicate.
        return [f"row {number}"]
