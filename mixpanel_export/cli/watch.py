"""Standard error during an export: bars or lines, warnings, and the log."""

import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace

import click

from mixpanel_export.cli import in_options, one_line, option_of
from mixpanel_export.cli.log import JSONFormatter, log_event, logs_json
from mixpanel_export.results import BatchProgress, Progress

BatchWatcher = Callable[[BatchProgress], None]
ProgressWatcher = Callable[[Progress], None]

WAIT_LINE_EVERY = 60.0
"""The minimum number of seconds between two lines about waits."""

PROGRESS_EVENT_EVERY = 10.0
"""Seconds between two `progress` events."""

_TOTALS = (
    "batches", "batches_done", "batches_failed", "rows", "bytes_read", "requests", "retries", "quota_left",
    "quota_wait",
)  # fmt: skip


class WaitLines:
    """Decides whether to print a line about a wait. Each wait has at most one line, and lines are a minute apart."""

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
    table: str, *, title: str | None = None, shown: bool = True, bars: bool = True, forecast: bool = True
) -> Iterator[tuple[BatchWatcher, ProgressWatcher]]:
    """Yield two callbacks for an export into *table*: one for batches and one for progress.

    On a terminal they draw bars, if *bars* is true. Elsewhere they print a line for each batch and each wait. If
    *shown* is false they print neither, but still print the *forecast* of a long wait. With `--log-format json` they
    write events.
    """
    from mixpanel_export.progress import can_draw, draw

    if logs_json():
        events = Events(table, shown=shown)
        yield events.log_batch if shown else _ignore, events.log_progress if shown or forecast else _ignore
    elif not shown:
        yield _ignore, _Forecast() if forecast else _ignore
    elif bars and can_draw():
        with draw(title=title or table) as watch:
            yield _ignore, watch
    else:
        yield _line_printers()


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
    """Print each warning on one line, unless *quiet*, and the package's log if *verbose*."""
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
