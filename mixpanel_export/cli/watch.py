"""What standard error shows while an export runs: bars or lines, warnings, and the log."""

import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from mixpanel_export.results import BatchProgress, Progress

BatchWatcher = Callable[[BatchProgress], None]
ProgressWatcher = Callable[[Progress], None]


@contextmanager
def watching(
    title: str, *, shown: bool = True, bars: bool = True
) -> Iterator[tuple[BatchWatcher, ProgressWatcher]]:
    """Yield what to call after each batch and with each progress.

    Where *bars* may be and standard error is a terminal they are drawn; elsewhere each batch gets a line. Nothing
    is said where it is not to be *shown*.
    """
    from mixpanel_export.progress import batch_line, can_draw, draw

    drawn = shown and bars and can_draw()

    def say(batch: BatchProgress) -> None:
        if shown and not drawn:
            click.echo(batch_line(batch, sys.stderr.encoding), err=True)

    with draw(drawn, title=title) as watch:
        yield say, watch


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
