"""The data source `mixpanel`: the classes and functions that Spark calls on the driver and on the executors."""

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
from pyspark.sql.datasource import (
    DataSource,
    DataSourceReader,
    DataSourceStreamReader,
    EqualTo,
    Filter,
    In,
    InputPartition,
)
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StringType, StructField, StructType, TimestampNTZType

from mixpanel_export._model import Chunk
from mixpanel_export._planning.days import resolve_day
from mixpanel_export._planning.planner import first_open_day
from mixpanel_export._timezones import in_zone
from mixpanel_export.batches import stream_batches
from mixpanel_export.integrations.spark.kept import keep, read_kept
from mixpanel_export.integrations.spark.partitions import Partition, planned_partitions, requested_days
from mixpanel_export.integrations.spark.settings import Settings

SCHEMA = StructType(
    [
        StructField("event_name", StringType()),
        StructField("event_time", TimestampNTZType()),
        StructField("distinct_id", StringType()),
        StructField("insert_id", StringType()),
        StructField("properties", StringType()),
    ]
)
"""The first five columns of an events table."""

# Spark calls `pushFilters` only in this worker. In other processes, a reader must not have the method, because Spark
# rejects every read by such a reader if filter pushdown is off.
_PUSHDOWN_WORKER = "pyspark.sql.worker.data_source_pushdown_filters"
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class MixpanelEvents(DataSource):
    """The data source `mixpanel`. The docstring of the package describes the options."""

    @classmethod
    def name(cls) -> str:
        """Return the name to pass to `spark.read.format`."""
        return "mixpanel"

    def schema(self) -> StructType:
        """Return the columns."""
        return SCHEMA

    def reader(self, schema: StructType) -> DataSourceReader:
        """Return the reader of a DataFrame."""
        del schema
        settings = Settings.from_options(self.options)
        requested_days(settings)
        return _FilteringReader(settings) if _may_push_filters() else _Reader(settings)

    def streamReader(self, schema: StructType) -> DataSourceStreamReader:  # noqa: N802 - Spark's name
        """Return the reader of a stream."""
        del schema
        return _StreamReader(Settings.from_options(self.options))


class _Reader(DataSourceReader):
    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def partitions(self) -> Sequence[InputPartition]:
        return planned_partitions(self._settings, requested_days(self._settings))

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        return read_partition(self._settings, partition)


class _FilteringReader(_Reader):
    def pushFilters(self, filters: list[Filter]) -> Iterable[Filter]:  # noqa: N802 - Spark's name
        """Request only events whose names pass the filters. Spark still applies every filter itself."""
        for condition in filters:
            names = _names(condition)
            if names is not None:
                allowed = self._settings.events
                names = names if allowed is None else [name for name in names if name in allowed]
                if names:  # without a name, all events would be requested
                    self._settings = replace(self._settings, events=tuple(names))
        return filters


class _StreamReader(DataSourceStreamReader):
    """Offsets are days: `{"day": D}` means that all days before D have been read."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def initialOffset(self) -> dict[str, str]:  # noqa: N802 - Spark's name
        return {"day": str(resolve_day(self._settings.from_date, "from_date", self._today()))}

    def latestOffset(self) -> dict[str, str]:  # noqa: N802 - Spark's name
        """Return the first day that is not final, or the first day of the stream if that is later."""
        end = first_open_day(in_zone(datetime.now(UTC), self._settings.zone()))
        if self._settings.to_date is not None:
            last = resolve_day(self._settings.to_date, "to_date", self._today(), last=True)
            end = min(end, last + timedelta(days=1))
        return {"day": max(str(end), self.initialOffset()["day"])}

    def partitions(self, start: dict[str, str], end: dict[str, str]) -> Sequence[InputPartition]:
        first, stop = date.fromisoformat(start["day"]), date.fromisoformat(end["day"])
        if first >= stop:
            return []
        return planned_partitions(self._settings, Chunk(first, stop - timedelta(days=1)))

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        return read_partition(self._settings, partition)

    def _today(self) -> date:
        return in_zone(datetime.now(UTC), self._settings.zone()).date()


def read_partition(settings: Settings, partition: InputPartition) -> Iterator[pa.RecordBatch]:
    """Fetch the days of a partition on an executor, and yield their events. An error fails the task.

    Raises:
        MixpanelDataError: The days cannot be proven complete.
    """
    if not isinstance(partition, Partition):
        return
    if partition.is_kept:
        yield from read_kept(settings, partition.days)
        return
    time.sleep(max(0.0, partition.start - time.time()))
    with stream_batches(**settings.stream_arguments(partition.days)) as batches:
        if settings.keep:
            yield from keep(settings, partition.days, batches, to_arrow_schema(SCHEMA))
        else:
            for batch in batches:
                yield from batch.to_arrow()


def _may_push_filters() -> bool:
    main = getattr(sys.modules.get("__main__"), "__spec__", None)
    return _PUSHDOWN_WORKER in sys.modules or getattr(main, "name", None) == _PUSHDOWN_WORKER


def _names(condition: Filter) -> list[str] | None:
    """Return the event names that pass a filter; None if they cannot be determined.

    A name with a replacement character may have been repaired. Mixpanel may then have the event under another name.
    """
    match condition:
        case EqualTo(("event_name",), str(name)):
            names = [name]
        case In(("event_name",), values):
            names = [name for name in values if isinstance(name, str)]
        case _:
            return None
    return None if any(_REPLACEMENT in name for name in names) else names
