"""Decides which of several rows with the same identity is kept. Pure functions.

The identity of a row is its event name, `distinct_id`, `time` and `$insert_id`, compared as the text that was sent. A row
without an `$insert_id` is never a duplicate. The winner is the row processed last, then the row with the greatest text, so
the result does not depend on the order in which rows or batches arrive.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from math import isfinite

from mixpanel_export._ndjson import scalar_texts

Candidate = tuple[int, str, str | None, str | None, str | None, float | None, str, bool, int, int]
"""Key, event name, the four values that DuckDB extracts for `MEMBERS` (the last one as a number), `properties`, whether the
row lies inside the days of its batch, the batch, and the row's number. Rows of the same identity have the same key."""

MEMBERS = """['$.time', '$.distinct_id', '$."$insert_id"', '$.mp_processing_time_ms']"""
"""SQL of the paths to the compared members of `properties`. One call extracts all, because a call needs much memory."""

ROW_OVERHEAD = 512
"""Bytes of memory that a row needs in Python in addition to its text."""

_IDENTITY = ("time", "distinct_id", "$insert_id")
# DuckDB extracts some values differently from the text that was sent: numbers with a fraction or many digits pass through a
# double, also inside objects and lists, and zero loses its sign.
_REWRITTEN = re.compile(
    r"^([\[{]|-?0$|-?[0-9]+\.[0-9]|-?[0-9]+([eE][-+]?[0-9]+|[0-9]{18})$|-?(inf|nan|Inf|NaN))", re.MULTILINE
)

_Identity = tuple[object, ...]
_Version = tuple[bool, float, str, bool, int, int]


@dataclass(slots=True)
class _EqualRows:
    """The rows of one identity.

    A version is: whether the processing time is known, that time, the text, whether the row lies inside the days of its
    batch, the negative batch, and the row's number. The greatest version wins.
    """

    key: int
    winner: _Version
    duplicates: list[tuple[int, int]] = field(default_factory=list)

    def result(self) -> Iterator[tuple[int, int, int]]:
        return ((number, batch, -self.winner[-2]) for number, batch in self.duplicates)


def duplicates(pages: Iterable[Iterable[Candidate]]) -> Iterator[tuple[int, int, int]]:
    """Yield the number and the batch of each duplicate, and the batch of its winner.

    Keys must not decrease from page to page. A page is read to its end before its duplicates are yielded.
    """
    by_identity: dict[_Identity, _EqualRows] = {}
    for page in pages:
        for candidate in page:
            _compare(by_identity, candidate)
        # Further rows of the last key may be on the next page.
        last = max((rows.key for rows in by_identity.values()), default=0)
        yield from chain.from_iterable(one.result() for one in by_identity.values() if one.key < last)
        by_identity = {identity: one for identity, one in by_identity.items() if one.key == last}
    yield from chain.from_iterable(one.result() for one in by_identity.values())


def _compare(by_identity: dict[_Identity, _EqualRows], candidate: Candidate) -> None:
    """Compare a row with the winner of its identity so far."""
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
    # The key is part of the identity, so that the result does not depend on which rows share a page.
    identity = (key, name, *_as_sent(number, [time, distinct_id, insert_id], properties))
    rows = by_identity.get(identity)
    if rows is None:
        by_identity[identity] = _EqualRows(key, version)
        return
    if version > rows.winner:
        rows.winner, version = version, rows.winner
    rows.duplicates.append((version[-1], -version[-2]))


def _as_sent(number: int, texts: list[str | None], properties: str) -> list[str | None]:
    """Return the *texts* of an identity as they are written in the row's *properties*."""
    if not _REWRITTEN.search("\n".join(filter(None, texts))):
        return texts
    try:
        return scalar_texts(properties, _IDENTITY)
    except ValueError:
        # A row whose text cannot be parsed is not a duplicate.
        return [f"row {number}"]
