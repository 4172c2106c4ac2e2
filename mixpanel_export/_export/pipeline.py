"""The tasks of one export, and the channels between them.

::

    fetch tasks ──items──▶ stage ──segments──▶ validate ──ready──▶ commit
         ▲                                         │                  │
         └───────────────── verdicts ──────────────┴──────────────────┘

`fetch_tasks` and `write_tasks` implement the two sides. Each fetch task waits for the verdict on its chunk. Meanwhile, it
does not hold a limiter token. All mutable state is in the tracker, in the replies that fetch tasks wait for, and in the backlog.

A cancellation may arrive at any point. It interrupts a running statement, rolls back the statement's transaction and
waits for the statement's thread. No task or thread remains.
"""

import anyio

from mixpanel_export._concurrency import raise_first_error
from mixpanel_export._export.callbacks import Reporter
from mixpanel_export._export.fetch_tasks import FetchTasks
from mixpanel_export._export.write_tasks import WriteTasks
from mixpanel_export._model import Item

_STREAM_ITEMS = 4  # blocks that may wait for the staging task


async def run_pipeline(fetch_tasks: FetchTasks, write_tasks: WriteTasks, reporter: Reporter) -> None:
    """Fetch and commit every chunk. Progress is reported meanwhile."""
    with raise_first_error():
        async with anyio.create_task_group() as reporting:
            reporting.start_soon(reporter.report_progress)
            await _run_both_sides(fetch_tasks, write_tasks)
            reporting.cancel_scope.cancel()
        await reporter.report_end()


async def _run_both_sides(fetch_tasks: FetchTasks, write_tasks: WriteTasks) -> None:
    send, receive = anyio.create_memory_object_stream[Item](_STREAM_ITEMS)
    async with anyio.create_task_group() as tasks:
        write_tasks.start(tasks, receive)
        async with send:
            await fetch_tasks.run(send)
