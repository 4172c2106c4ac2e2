"""What standard error shows while an export runs: bars or lines, warnings, and the log."""

import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from mixpanel_export.cli import in_options
from mixpanel_export.results import BatchProgress, Progress

BatchWatcher = Callable[[BatchProgress], None]
ProgressWatcher = Callable[[Progress], None]

WAIT_LINE_EVERY = 60.0
"""Seconds between two lines about one wait."""


class WaitLines:
    """Decides which waits get a line: each when it begins, and once a minute while it lasts."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said: float | None = None  # when this wait's last line was; None while nothing waits

    def due(self, waiting_for: str | None) -> bool:
        """Whether to say now what the export is *waiting_for*; a line is taken to be printed where it is due."""
        if waiting_for is None:
            self._said = None
            return False
        now = self._clock()
        if self._said is not None and now - self._said < WAIT_LINE_EVERY:
            return False
        self._said = now
        return True


@contextmanager
def watching(
    title: str, *, shown: bool = True, bars: bool = True, forecast: bool = True
) -> Iterator[tuple[BatchWatcher, ProgressWatcher]]:
    """Yield what to call after each batch and with each progress.

    Where *bars* may be and standard error is a terminal they are drawn; elsewhere each batch gets a line, and so
    does each wait. Neither is said where it is not to be *shown*; the *forecast* of a long wait is apart.
    """
    from mixpanel_export.progress import can_draw, draw

    if not shown:
        yield _ignore, _Forecast() if forecast else _ignore
    elif bars and can_draw():
        with draw(title=title) as watch:
            yield _ignore, watch
    else:
        yield _lines()


class _Forecast:
    """Says once, with the first progress, what the quota will make of the export."""

    def __init__(self) -> None:
        self._said = False

    def __call__(self, progress: Progress) -> None:
        from mixpanel_export.progress import forecast_line

        line = None if self._said else forecast_line(progress)
        self._said = True
        if line:
            click.echo(line, err=True)


def _lines() -> tuple[BatchWatcher, ProgressWatcher]:
    from mixpanel_export.progress import batch_line, wait_line

    waits, forecast = WaitLines(), _Forecast()

    def say(batch: BatchProgress) -> None:
        click.echo(in_options(batch_line(batch, sys.stderr.encoding)), err=True)

    def say_wait(progress: Progress) -> None:
        forecast(progress)
        if waits.due(progress.waiting_for):
            click.echo(in_options(wait_line(progress, sys.stderr.encoding)), err=True)

    return say, say_wait


def _ignore(_: object) -> None:
    pass


@contextmanager
def messages(*, quiet: bool, verbose: bool) -> Iterator[None]:
    """Show warnings as one line each, unless *quiet*, and the package's log where *verbose*."""
    log, handler = logging.getLogger("mixpanel_export"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    before = log.level
    log.addHandler(handler)
    log.setLevel(_level(quiet=quiet, verbose=verbose))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore" if quiet else "always", UserWarning)
            warnings.showwarning = _show_warning
            yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


def _level(*, quiet: bool, verbose: bool) -> int:
    if verbose:
        return logging.DEBUG
    return logging.ERROR if quiet else logging.WARNING


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    click.echo(f"Warning: {message}", err=True)
