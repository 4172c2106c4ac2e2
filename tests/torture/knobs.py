"""What is turned for the sake of torture: waits become short, blocks, parts and groups small.

A day of the torture has a few kilobytes, so with the usual sizes no body would ever be more than one block.
Nothing here changes what the exporter does, only after how long or how many bytes.
"""

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib import import_module
from random import Random
from typing import Any

from mixpanel_export._export.job import ExportArguments, Job, checked_job
from mixpanel_export._export.tuning import Tuning
from mixpanel_export._quota.retry import pause_after_refusal
from mixpanel_export._source.decoder import BodyDecoder
from mixpanel_export.simulator import Fault, faults

Knobs = Mapping[str, Any]
"""Values by the name of what they stand for; made by `drawn`."""

_WAITS = {
    "_quota.retry.LONGEST_PAUSE": 0.02,
    "_quota.retry._SHORTEST_PAUSE": 0.0,
    "_quota.retry._REFUSAL_PAUSE": 0.01,
}
_PACKAGE = "mixpanel_export."


def drawn(draw: Random) -> Knobs:
    """Return sizes and waits."""
    return _WAITS | {
        "block_size": draw.choice([1, 3000, 1 << 20]),
        "_writer.extract.GROUP_SIZE": draw.choice([1, 4000, 16 << 20]),
        "tuning": Tuning(
            plain_budget=draw.choice([5000, 4 << 30, 4 << 30]),
            part_size=draw.choice([2000, 128 << 20]),
            columns_memory=draw.choice([0, 4000, 1 << 27]),
            backlog=draw.choice([20_000, 512 << 20]),
            group_rows=draw.choice([20, 500_000]),
            group_size=draw.choice([10_000, 256 << 20]),
            group_wait=draw.choice([0.0, 0.01, 0.2]),
        ),
    }


@contextmanager
def turned(knobs: Knobs) -> Iterator[None]:
    """Turn the *knobs* while the context lasts."""
    values: dict[str, Any] = {name: value for name, value in knobs.items() if name.startswith("_")}
    values["_quota.gate.pause_after_refusal"] = partial(pause_after_refusal, draw=lambda: 0.0)
    values["_source.request.BodyDecoder"] = partial(BodyDecoder, block_size=int(knobs["block_size"]))
    values["_export.engine.checked_job"] = partial(_tuned_job, knobs["tuning"])
    before = {name: _swap(name, value) for name, value in values.items()}
    try:
        with honest_cuts():
            yield
    finally:
        for name, value in before.items():
            _swap(name, value)


def _tuned_job(tuning: Tuning, arguments: ExportArguments) -> Job:
    return replace(checked_job(arguments), tuning=tuning)


def _swap(name: str, value: Any) -> Any:
    module, _, attribute = name.rpartition(".")
    owner = import_module(_PACKAGE + module)
    before = getattr(owner, attribute)
    setattr(owner, attribute, value)
    return before


@contextmanager
def honest_cuts() -> Iterator[None]:
    """Let no cut between two lines look like the end of a shorter, proper body.

    Mixpanel states no length, so such a cut inside a sound gzip stream is the one loss that no client can see.
    """
    before = faults.LINES["cut_line"]
    faults.LINES["cut_line"] = _cut
    try:
        yield
    finally:
        faults.LINES["cut_line"] = before


async def _cut(
    pieces: AsyncGenerator[bytes, None], size: int, fault: Fault, _: Callable[[float], Awaitable[None]]
) -> AsyncGenerator[bytes, None]:
    body = b"".join([piece async for piece in pieces])
    end = max(1, int(size * fault.position))
    while end < len(body) and looks_whole(body[:end]):
        end += 1
    yield body[:end]


def looks_whole(body: bytes) -> bool:
    """Whether the last line of *body* that is not blank is an event, or there is none."""
    lines = [line for line in body.split(b"\n") if line.strip()]
    return not lines or is_event(lines[-1])


def is_event(line: bytes) -> bool:
    """Whether *line* is an event to the standard library's parser."""
    try:
        found = json.loads(line.decode("utf-8", "replace"), strict=False, object_pairs_hook=_first)
    except (ValueError, RecursionError):
        return False
    return (
        isinstance(found, dict)
        and isinstance(found.get("event"), str)
        and isinstance(found.get("properties"), dict)
    )


def _first(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of *pairs*, the first of equal keys."""
    return dict(reversed(pairs))
