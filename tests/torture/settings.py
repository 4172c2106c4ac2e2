"""Settings of the exporter for torture: small blocks, parts and groups, short pauses.

A day of the torture has a few kilobytes, so with the default sizes every body would be a single block. The settings change
sizes and pauses only, never what the exporter does.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from random import Random
from typing import Any

import httpx

from mixpanel_export import ParallelFetchResult
from mixpanel_export._export.callbacks import Callbacks
from mixpanel_export._export.engine import run_job
from mixpanel_export._export.job import ExportArguments, checked_job
from mixpanel_export._export.tuning import Tuning
from mixpanel_export._quota.retry_policy import Pauses
from mixpanel_export._source.decoder import BodyDecoder

_PACKAGE = "mixpanel_export."
PAUSES = Pauses(shortest=0.0, longest=0.02, refusal=0.01, spread=0.0)


@dataclass(frozen=True, slots=True)
class Settings:
    """Sizes in bytes and pauses in seconds for the exports into one file."""

    tuning: Tuning
    block_size: int
    wire_size: int

    def with_pause(self, seconds: float) -> "Settings":
        """Return the settings with a pause of at least *seconds* before a retry."""
        return replace(self, tuning=replace(self.tuning, pauses=replace(PAUSES, shortest=seconds)))

    def replacements(self) -> dict[str, Any]:
        """Return the values of the module attributes that are no parameters of an export."""
        return {
            "_source.request.BodyDecoder": partial(BodyDecoder, block_size=self.block_size),
            "_source.request._WIRE_BATCH": self.wire_size,
            "_source.request._LINES_BATCH": 8 * self.wire_size,
        }


def random_settings(draw: Random) -> Settings:
    """Return random settings."""
    return Settings(
        tuning=Tuning(
            plain_budget=draw.choice([5000, 4 << 30, 4 << 30]),
            segment_size=draw.choice([5000, 20_000, 16 << 20]),
            columns_memory=draw.choice([0, 4000, 1 << 27]),
            disk_floor=draw.choice([64 << 20, 64 << 20, 1 << 60]),
            backlog=draw.choice([20_000, 512 << 20]),
            group_rows=draw.choice([20, 500_000]),
            group_size=draw.choice([10_000, 256 << 20]),
            group_wait=draw.choice([0.0, 0.01, 0.2, 0.2]),
            pauses=PAUSES,
        ),
        block_size=draw.choice([1, 3000, 1 << 20]),
        wire_size=draw.choice([500, 256 << 10]),
    )


async def export(
    settings: Settings, *, transport: httpx.AsyncBaseTransport | None = None, **arguments: Any
) -> ParallelFetchResult:
    """Export as `export_events` does, with *settings*; *arguments* are those of `export_events`.

    The exports of one process must not overlap, because the settings replace module attributes.
    """
    job = checked_job(ExportArguments(**arguments), settings.tuning)
    with _replaced(settings.replacements()):
        return await run_job(job, Callbacks(), transport=transport)


@contextmanager
def _replaced(values: dict[str, Any]) -> Iterator[None]:
    before = {name: _replace(name, value) for name, value in values.items()}
    try:
        yield
    finally:
        for name, value in before.items():
            _replace(name, value)


def _replace(name: str, value: Any) -> Any:
    """Set an attribute of a module of the package, and return its former value."""
    module, _, attribute = name.rpartition(".")
    owner = import_module(_PACKAGE + module)
    before = getattr(owner, attribute)
    setattr(owner, attribute, value)
    return before
