"""Plans an export without running it, with the same checks and the same plan as a real run."""

import math

from anyio import to_thread

from mixpanel_export._database.connection import connected_read_only
from mixpanel_export._database.preflight import State, check_before_export
from mixpanel_export._export.job import Job
from mixpanel_export._model import Chunk
from mixpanel_export.results import DateRange, ExportPlan


async def plan_export(job: Job) -> ExportPlan:
    """Return the plan that the job would follow if it ran now. Nothing is requested or changed, and no quota is used.

    Raises:
        ValueError, DatabaseError, LedgerMismatchError, SelectionError, TableError: See `export_events`. Errors that only
            a writable connection can detect are not raised.
    """
    state = await to_thread.run_sync(_table_state, job)
    planned = await job.plan(state.batches, state.history)
    return ExportPlan(
        table=state.table,
        date_ranges=_ranges(planned.chunks),
        skipped_date_ranges=_ranges(planned.skipped),
        added_date_ranges=_ranges(planned.added),
        days=sum(chunk.length for chunk in planned.chunks),
        quota_left=job.gate.statistics().remaining,
        quota_wait=math.ceil(job.gate.time_for(len(planned.chunks))),
        one_request_seconds=planned.one_request_seconds,
    )


def _table_state(job: Job) -> State:
    with connected_read_only(job.path) as connection:
        return check_before_export(connection, job.spec)


def _ranges(chunks: tuple[Chunk, ...]) -> tuple[DateRange, ...]:
    return tuple((str(chunk.first), str(chunk.last)) for chunk in chunks)
