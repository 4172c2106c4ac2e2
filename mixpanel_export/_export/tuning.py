"""Sizes and times that tune an export. Users cannot set them; tests and benchmarks can."""

from dataclasses import dataclass, replace

from mixpanel_export._database.settings import ROW_GROUP
from mixpanel_export._quota.retry_policy import DEFAULT_PAUSES, Pauses


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """Sizes in bytes and times in seconds, unless a field says otherwise."""

    plain_budget: int = 4 << 30
    """The number of bytes that are staged uncompressed. Later segments are compressed."""
    segment_size: int = 8 << 20
    """The size of a segment. A segment is read and validated in one step."""
    disk_floor: int = 64 << 20
    """The free disk space below which staging waits for commits, if there is anything to commit."""
    columns_memory: int | None = None
    """The memory for extracted columns; None means a share of DuckDB's memory limit."""
    backlog: int = 1 << 30
    """The total size of complete chunks beyond which staging waits for commits."""
    group_rows: int = 8 * ROW_GROUP
    """A group with this number of rows for each inserting thread is committed without waiting for more chunks."""
    group_size: int = 1 << 30
    """A group with this number of bytes is committed without waiting for more chunks."""
    group_wait: float = 1.0
    """How long a smaller group waits for the next chunk. It is committed after four times this time in any case."""
    pauses: Pauses = DEFAULT_PAUSES
    """Pauses before retries."""


DEFAULT_TUNING = Tuning()
"""The values that every export uses."""

STREAM_TUNING = replace(DEFAULT_TUNING, backlog=1 << 62, group_wait=0.0, disk_floor=0)
"""The values that `stream_batches` uses.

The number of chunks limits the backlog, and each chunk is consumed separately. Staging never waits for the consumer,
because the consumer may be waiting for a chunk that is being staged.
"""
