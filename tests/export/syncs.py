"""Syncs over a simulator's transport, on a clock that tests control."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from support import ACCOUNT, TUNING

from mixpanel_export import BatchProgress, SyncResult
from mixpanel_export._export.callbacks import Callbacks
from mixpanel_export._export.job import ExportArguments
from mixpanel_export._export.sync_events import run_sync_job
from mixpanel_export._planning.refresh import Refresh


async def sync(
    transport: httpx.AsyncBaseTransport,
    db: Path,
    now: datetime,
    *,
    since: str | None = None,
    lookback: int = 5,
    budget: int | None = None,
    accept_loss: bool = False,
    on_batch_complete: Callable[[BatchProgress], object] | None = None,
    **options: Any,
) -> SyncResult:
    """Sync at *now*, without limits and without pauses before retries; *options* override the defaults."""
    defaults: dict[str, Any] = {
        "credentials": ACCOUNT,
        "api_url": "http://127.0.0.1",
        "per_second": 0,
        "per_hour": 0,
        "mode": "resume",
        "now": lambda: now,
    }
    arguments = ExportArguments(from_date="yesterday", to_date="yesterday", db=db, **(defaults | options))
    return await run_sync_job(
        arguments,
        Callbacks(on_batch_complete, None),
        since=since,
        refresh=Refresh(lookback=lookback, budget=budget),
        accept_loss=accept_loss,
        transport=transport,
        tuning=TUNING,
    )
