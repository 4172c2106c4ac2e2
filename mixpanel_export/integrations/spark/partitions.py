"""Plans the partitions of a read, on the driver."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from pyspark.sql.datasource import InputPartition

from mixpanel_export._export.job import checked_job
from mixpanel_export._model import Batch, Chunk
from mixpanel_export._planning.days import checked_days
from mixpanel_export._quota.limits import Quota
from mixpanel_export._timezones import in_zone
from mixpanel_export.errors import ArgumentError, RateLimitError
from mixpanel_export.integrations.spark.kept import kept_days
from mixpanel_export.integrations.spark.settings import Settings
from mixpanel_export.sync import run_sync

_HOUR = 3600.0


@dataclass(frozen=True)
class Partition(InputPartition):
    """The days of one request."""

    first: date
    last: date
    start: float = 0.0
    """The earliest time of the request, in seconds since 1970."""
    is_kept: bool = False
    """Whether the folder in the option `keep` has the events of these days."""

    @property
    def days(self) -> Chunk:
        """The days."""
        return Chunk(self.first, self.last)


def requested_days(settings: Settings) -> Chunk:
    """Return the days of a read.

    Raises:
        ArgumentError: A date is missing or invalid.
    """
    if settings.to_date is None:
        raise ArgumentError("to_date", "is missing", advice="pass it as an option")
    today = in_zone(datetime.now(UTC), settings.zone()).date()
    return checked_days(settings.from_date, settings.to_date, today)


def planned_partitions(
    settings: Settings, days: Chunk, clock: Callable[[], float] = time.time
) -> list[Partition]:
    """Return one partition for each chunk of *days* in the folder `keep`, and one for each request that is planned.

    Raises:
        ArgumentError: The settings are invalid, or a day is in the future.
        RateLimitError: There are more requests than an hour allows, and `wait_for_quota` is false.
    """
    kept = kept_days(settings, days) if settings.keep else []
    job = checked_job(settings.arguments(days))
    batches = [Batch(number, chunk, "complete") for number, chunk in enumerate(kept)]
    planned = run_sync(job.plan, batches, ())
    if planned.future:
        raise ArgumentError("to_date", f"must not be in the future, got {days.last}")
    quota = Quota.resolved(settings.per_second, settings.per_hour)
    starts = start_times(len(planned.chunks), quota)
    if starts and starts[-1] >= _HOUR and not settings.wait_for_quota:
        raise RateLimitError(
            f"these days need {len(starts)} requests, more than an hour allows",
            days=days,
            advice="read fewer days at a time, or pass wait_for_quota=true",
            status_code=None,
            retry_after=starts[-1],
        )
    now = clock()
    fetched = [
        Partition(chunk.first, chunk.last, now + start)
        for chunk, start in zip(planned.fetch_order, starts, strict=True)
    ]
    return [Partition(chunk.first, chunk.last, is_kept=True) for chunk in kept] + fetched


def start_times(count: int, quota: Quota) -> Sequence[float]:
    """Return the earliest start of each of *count* requests, in seconds from now.

    A sixth of the hourly quota is left for retries.
    """
    per_hour = max(1, quota.per_hour * 5 // 6) if quota.per_hour else max(1, count)
    per_second = quota.per_second or float("inf")
    return [number // per_hour * _HOUR + number % per_hour // per_second for number in range(count)]
