"""Warns about an export without events, and about days that count as empty."""

import warnings

from mixpanel_export._export.empty_answers import runs
from mixpanel_export._export.job import Job
from mixpanel_export._export.tracker import Tracker
from mixpanel_export._model import Chunk
from mixpanel_export.errors import AdvisoryWarning


def warn_of_emptiness(job: Job, tracker: Tracker) -> None:
    """Warn, once, about an export without any event, or about days with two empty answers."""
    fetched = tracker.batches_done + tracker.batches_failed
    empty = tracker.empty_batches
    if fetched and not tracker.rows and not tracker.errors:
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
                "Mixpanel answered twice without a body, so these days count as empty",
                days=days,
                advice="if they should have events, export them again with $append",
            ),
            stacklevel=2,
        )
