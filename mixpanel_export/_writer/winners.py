"""Which of several rows with one identity is kept; pure.

An identity is event name, `distinct_id`, `time` and `$insert_id`, compared as the text that was sent; a row
without an `$insert_id` is never a duplicate. The winner is the row processed last, then the one with the
greatest text, so the outcome does not depend on the order in which rows or batches came.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from math import isfinite

from mixpanel_export._ndjson import scalar_texts

Rival = tuple[int, str, str | None, str | None, str | None, float | None, str, bool, int, int]
"""Key, event name, what DuckDB extracts of `MEMBERS`, the last of them as a number, `properties`, whether the row is
inside the days of its batch, the batch, and the row's number. Rows of one identity have one key."""

MEMBERS = """['$.time', '$.distinct_id', '$."$insert_id"', '$.mp_processing_time_ms']"""
"""SQL of the paths to what is compared of `properties`; one call for all, as each takes several times the text's memory."""

BESIDE = 512
"""Bytes that a row needs in Python beside its text."""

_IDENTITY = ("time", "distinct_id", "$insert_id")
# What DuckDB extracts of some values is not the text that was sent: numbers with a fraction or of many digits went
# through a double, also inside objects and lists, and zero loses its sign.
_REWRITTEN = re.compile(
    r"^([\[{]|-?0$|-?[0-9]+\.[0-9]|-?[0-9]+([eE][-+]?[0-9]+|[0-9]{18})$|-?(inf|nan|Inf|NaN))", re.MULTILINE
)

_Identity = tuple[object, ...]
_Version = tuple[bool, float, str, bool, int, int]


@dataclass(slots=True)
class _Contest:
    """The rows of one identity.

    A version is whether it is known when it was processed, when, its text, whether it is inside the days of its
    batch, the negative of the batch, and its number: the greatest wins.
    """

    key: int
    best: _Version
    lost: list[tuple[int, int]] = field(default_factory=list)

    def losers(self) -> Iterator[tuple[int, int, int]]:
        return ((number, batch, -self.best[-2]) for number, batch in self.lost)


def losers(pages: Iterable[Iterable[Rival]]) -> Iterator[tuple[int, int, int]]:
    """Yield number and batch of each row that loses, and the winner's batch.

    The keys of a page are not less than those of the pages before it; a page is read to its end before any of its
    losers is yielded.
    """
    contests: dict[_Identity, _Contest] = {}
    for page in pages:
        for rival in page:
            _compare(contests, rival)
        # The rest of the last key may be on the next page.
        last = max((contest.key for contest in contests.values()), default=0)
        yield from chain.from_iterable(one.losers() for one in contests.values() if one.key < last)
        contests = {identity: one for identity, one in contests.items() if one.key == last}
    yield from chain.from_iterable(one.losers() for one in contests.values())


def _compare(contests: dict[_Identity, _Contest], rival: Rival) -> None:
    """Let a row compete with those of its identity."""
    key, name, time, distinct_id, insert_id, processed, properties, inside, batch, number = rival
    known = processed is not None and isfinite(processed)
    version = (
        known,
        processed if processed is not None and known else 0.0,
        properties,
        inside,
        -batch,
        number,
    )
    # Rows of different keys are no rivals, or it would depend on the page, and on what others are suspects.
    identity = (key, name, *_as_sent(number, [time, distinct_id, insert_id], properties))
    contest = contests.get(identity)
    if contest is None:
        contests[identity] = _Contest(key, version)
        return
    if version > contest.best:
        contest.best, version = version, contest.best
    contest.lost.append((version[-1], -version[-2]))


def _as_sent(number: int, texts: list[str | None], properties: str) -> list[str | None]:
    """Return the *texts* of an identity as the row's *properties* have them."""
    if not _REWRITTEN.search("\n".join(filter(None, texts))):
        return texts
    try:
        return scalar_texts(properties, _IDENTITY)
    except (ValueError, RecursionError):
        # What DuckDB takes for JSON, and Python does not, is nobody's duplicate.
        return [f"row {number}"]
