"""Writes to standard error during an export: bars or lines, warnings, and the log."""

import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING

import click

from mixpanel_export.cli import in_options, one_line, option_of
from mixpanel_export.cli.log import JSONFormatter, log_event, logs_json
from mixpanel_export.results import BatchProgress, Progress

if TYPE_CHECKING:
    from mixpanel_export.profiles import ProfileProgress

BatchWatcher = Callable[[BatchProgress], None]
ProgressWatcher = Callable[[Progress], None]
PageWatcher = Callable[["ProfileProgress"], None]

WAIT_LINE_EVERY = 60.0
"""The minimum number of seconds between two lines about waits."""

PROGRESS_EVENT_EVERY = 10.0
"""Seconds between two `progress` events."""

_TOTALS = (
    "batches", "batches_done", "batches_failed", "rows", "bytes_read", "requests", "retries", "quota_left",
    "quota_wait",
)  # fmt: skip


class WaitLines:
    """Decides whether to print a line about a wait. A wait has at most one line; two lines are at least a minute apart."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._printed: float | None = None  # time of the last line
        self._has_line = False  # whether the current wait has a line

    def due(self, waiting_for: str | None) -> bool:
        """Whether to print a line about *waiting_for* now. If so, the caller must print it."""
        if waiting_for is None:
            self._has_line = False
            return False
        now = self._clock()
        if self._has_line or (self._printed is not None and now - self._printed < WAIT_LINE_EVERY):
            return False
        self._printed, self._has_line = now, True
        return True


@contextmanager
def watching(
    table: str,
    *,
    title: str | None = None,
    shown: bool = True,
    bars: bool = True,
    forecast: bool = True,
    unit: str = "batches",
) -> Iterator[tuple[BatchWatcher, ProgressWatcher]]:
    """Yield two callbacks for an export into *table*: one for batches and one for progress.

    On a terminal, the callbacks draw bars if *bars* is true. Otherwise, they print a line for each batch and each wait. If
    *shown* is false, they print only the forecast of a long wait, and only if *forecast* is true. With `--log-format
    json`, they write events. *unit* is "pages" for profiles.
    """
    from mixpanel_export.progress import can_draw, draw

    if logs_json():
        events = Events(table, shown=shown)
        yield events.log_batch if shown else _ignore, events.log_progress if shown or forecast else _ignore
    elif not shown:
        yield _ignore, _Forecast() if forecast else _ignore
    elif bars and can_draw():
        with draw(title=title or table, unit=unit) as watch:
            yield _ignore, watch
    else:
        yield _line_printers()


@contextmanager
def watching_pages(
    table: str, *, shown: bool, bars: bool, forecast: bool
) -> Iterator[tuple[PageWatcher, ProgressWatcher]]:
    """Yield two callbacks for an export of profiles, one for pages and one for progress; see `watching`."""
    from mixpanel_export.progress import can_draw

    with watching(table, shown=shown, bars=bars, forecast=forecast, unit="pages") as (_, on_progress):
        if shown and logs_json():
            yield partial(_log_page, table), on_progress
        else:
            yield _ignore if not shown or (bars and can_draw()) else PageLines().print, on_progress


def _log_page(table: str, page: "ProfileProgress") -> None:
    log_event("page", table=table, **page.to_dict())


class PageLines:
    """Prints lines about pages: one for each failure, and at most `MAX_LINES` for all others."""

    MAX_LINES = 20

    def __init__(self) -> None:
        self._done = 0

    def print(self, page: "ProfileProgress") -> None:
        """Print a line about *page* if it failed, or if another twentieth of the pages is done."""
        from mixpanel_export.progress import page_line

        if page.success:
            before = (
                0 if page.page_index == 0 else self._done
            )  # an export that starts over begins with page 0
            self._done = before + 1
            total = page.total_pages or 1
            if self._done * self.MAX_LINES // total == before * self.MAX_LINES // total:
                return
        # The error that follows gives the reason for a failure.
        click.echo(page_line(replace(page, error=None), self._done, sys.stderr.encoding), err=True)


class _Forecast:
    """Prints the expected delay due to the quota, once, on the first progress report."""

    def __init__(self) -> None:
        self._done = False

    def __call__(self, progress: Progress) -> None:
        from mixpanel_export.progress import forecast_line

        line = None if self._done else forecast_line(progress)
        self._done = True
        if line:
            click.echo(line, err=True)


class Events:
    """Logs the plan, batches, waits and retries as events, and the totals periodically."""

    def __init__(
        self, table: str, *, shown: bool = True, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._table = table
        self._shown = shown
        self._clock = clock
        self._waits = WaitLines(clock)
        self._retries = 0
        self._next: float | None = None  # when the totals are due; None before the plan is logged

    def log_batch(self, batch: BatchProgress) -> None:
        """Log a batch that succeeded or failed."""
        log_event("batch", table=self._table, **batch.to_dict() | {"error": _error_of(batch)})

    def log_progress(self, progress: Progress) -> None:
        """Log the changes since the last call."""
        if self._next is None:
            self._log("plan", progress, "batches", "quota_left", "quota_wait")
            self._next = self._clock() + PROGRESS_EVENT_EVERY
        if not self._shown:
            return
        if progress.retries > self._retries:
            self._retries = progress.retries
            self._log("retry", progress, "retries", "requests")
        if self._waits.due(progress.waiting_for):
            waiting_for = one_line(progress.waiting_for or "")
            log_event(
                "wait", table=self._table, waiting_for=waiting_for, waiting_seconds=progress.waiting_seconds
            )
        if self._clock() >= self._next:
            self._next = self._clock() + PROGRESS_EVENT_EVERY
            self._log("progress", progress, *_TOTALS)

    def _log(self, name: str, progress: Progress, *keys: str) -> None:
        values = asdict(progress)
        log_event(name, table=self._table, **{key: values[key] for key in keys})


def _line_printers() -> tuple[BatchWatcher, ProgressWatcher]:
    from mixpanel_export.progress import batch_line, wait_line

    waits, forecast = WaitLines(), _Forecast()

    def print_batch(batch: BatchProgress) -> None:
        # The summary at the end gives the reason for each failure.
        click.echo(batch_line(replace(batch, error=None, errors=()), sys.stderr.encoding), err=True)

    def print_wait(progress: Progress) -> None:
        forecast(progress)
        if waits.due(progress.waiting_for):
            click.echo(wait_line(progress, sys.stderr.encoding), err=True)

    return print_batch, print_wait


def _error_of(batch: BatchProgress) -> str | None:
    error = batch.error_text(option_of)
    return error and one_line(error)


def _ignore(_: object) -> None:
    pass


@contextmanager
def messages(*, quiet: bool, verbose: bool) -> Iterator[None]:
    """Print each warning on one line, unless *quiet* is true. If *verbose* is true, also print the package's log."""
    log, handler, as_json = logging.getLogger("mixpanel_export"), logging.StreamHandler(), logs_json()
    plain = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    handler.setFormatter(JSONFormatter() if as_json else plain)
    before = log.level
    log.addHandler(handler)
    log.setLevel(_level(quiet=quiet, verbose=verbose))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore" if quiet else "always", UserWarning)
            warnings.showwarning = _log_warning if as_json else _show_warning
            yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


def _level(*, quiet: bool, verbose: bool) -> int:
    if verbose:
        return logging.DEBUG
    return logging.ERROR if quiet else logging.WARNING


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    click.echo(f"Warning: {_warning_text(message)}", err=True)


def _log_warning(message: Warning | str, *_: object, **__: object) -> None:
    log_event("warning", message=_warning_text(message))


def _warning_text(message: Warning | str) -> str:
    return message if isinstance(message, str) else in_options(message)
