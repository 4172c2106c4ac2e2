"""Warns about an export without events, and about days with two empty responses."""

import warnings
from collections.abc import Sequence

from mixpanel_export._export.empty_responses import runs
from mixpanel_export._export.job import Job
from mixpanel_export._export.tracker import Tracker
from mixpanel_export._model import Batch, Chunk
from mixpanel_export.errors import AdvisoryWarning


def warn_of_emptiness(job: Job, tracker: Tracker, known: Sequence[Batch] = ()) -> None:
    """Warn once about an export without events, or about days with two empty responses.

    *known* contains the batches that the table had before a sync. There is no warning about their days, because a sync
    fetches these days every night.
    """
    fetched = tracker.batches_done + tracker.batches_failed
    in_table = [batch.days for batch in known if batch.visible]
    empty = [chunk for chunk in tracker.empty_batches if not any(chunk.overlaps(days) for days in in_table)]
    if fetched and not tracker.rows and not tracker.errors and not in_table:
        credentials = job.parameters.credentials
        warnings.warn(
            AdvisoryWarning(
                f"Mixpanel has no events for this export: {job.spec.selection}, region {credentials.region}",
                days=job.spec.days,
                advice="check $events, $where, $project_id and $region",
            ),
            stacklevel=2,
        )
    elif empty:
        days = ", ".join(str(Chunk(run[0].first, run[-1].last)) for run in runs(empty))
        warnings.warn(
            AdvisoryWarning(
                "treated as days without events, because both responses for these days were empty",
                days=days,
                advice="if they should have events, export them again with $append",
            ),
            stacklevel=2,
        )
