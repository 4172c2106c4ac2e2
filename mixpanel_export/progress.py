"""Shows progress: as bars on a terminal or in a notebook, otherwise as lines of text."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import NoReturn, TextIO, cast

from tqdm.std import tqdm

from mixpanel_export.profiles import ProfileProgress
from mixpanel_export.publication import PublishProgress
from mixpanel_export.results import BatchProgress, Progress

Watcher = Callable[[Progress], None]
"""Receives the current totals of an export. Each call supersedes the earlier ones, so missed calls do no harm."""

_BATCHES = "{desc}: {n_fmt}/{total_fmt} UNIT |{bar}| {percentage:3.0f}% [{elapsed}<{remaining}]"
# During a wait, the remaining time cannot be estimated.
_BATCHES_WAITING = _BATCHES.replace("<{remaining}", "")
_DAYS = "{desc}: {n_fmt}/{total_fmt} days |{bar}| {percentage:3.0f}% [{elapsed}<{remaining}]{postfix}"
_WIRE = "  {desc}, {n_fmt}B at {rate_fmt}{postfix}"
_WIRE_WAITING = _WIRE.replace(" at {rate_fmt}", "")
_MIN_FORECAST = 60  # seconds; shorter waits for the quota are not announced
_LONG_WAIT = 120  # seconds; longer waits are shown in minutes


def can_draw(file: TextIO | None = None) -> bool:
    """Whether *file* (default: standard error) can show bars: it is a terminal, or this is a notebook."""
    return _in_notebook() or (file or sys.stderr).isatty()


@contextmanager
def draw(
    enabled: bool = True, title: str = "export", file: TextIO | None = None, unit: str = "batches"
) -> Iterator[Watcher]:
    """Yield a callable that draws a `Progress` as two bars on *file* (default: standard error).

    *unit* is the word for the batches, such as `pages`. If *enabled* or `can_draw` is false, the callable does nothing.
    If `NO_COLOR` is set, the bars have no colour.
    """
    if not (enabled and can_draw(file)):
        yield _ignore
        return
    with closing(_Bars(title, file, unit)) as bars:
        yield bars.show


@contextmanager
def draw_days(
    enabled: bool = True, title: str = "publish", file: TextIO | None = None
) -> Iterator[Callable[[PublishProgress], None]]:
    """Yield a callable that draws a `PublishProgress` as one bar, under the same conditions as `draw`."""
    bars: list[tqdm[NoReturn]] = []

    def show(progress: PublishProgress) -> None:
        if not bars:
            bars.append(_bar(_DAYS, title, 0, file, total=progress.days))
        bars[0].postfix = f"{progress.rows:,} rows, {progress.bytes_written / 1e6:,.1f} MB"
        bars[0].update(progress.days_done - bars[0].n)

    try:
        yield show if enabled and can_draw(file) else lambda _: None
    finally:
        for bar in bars:
            bar.close()


def combined(draw: Watcher, callback: Callable[[Progress], object] | None) -> Callable[[Progress], object]:
    """Return a callback that calls *draw* and then *callback*, and returns the result of *callback*."""

    def watch(progress: Progress) -> object:
        draw(progress)
        return callback(progress) if callback else None

    return watch


def batch_line(batch: BatchProgress, encoding: str = "utf-8") -> str:
    """Return one line about a batch. Words replace the check marks if *encoding* does not have them."""
    done, failed = ("✓", "✗") if _can_print("✓✗", encoding) else ("ok", "failed")
    head = f"Batch {batch.batch_index + 1}/{batch.total_batches}: {batch.from_date} to {batch.to_date}"
    if batch.success:
        return f"  {done} {head} ({batch.rows} rows)"
    return f"  {failed} {head} failed" + (f": {batch.error}" if batch.error else "")


def page_line(page: ProfileProgress, done: int, encoding: str = "utf-8") -> str:
    """Return one line about a page of profiles; see `batch_line`. *done* is the number of pages so far."""
    yes, no = ("✓", "✗") if _can_print("✓✗", encoding) else ("ok", "failed")
    total = "" if page.total_pages is None else f"/{page.total_pages}"
    if not page.success:
        return f"  {no} Page {page.page_index + 1}{total} failed" + (f": {page.error}" if page.error else "")
    return f"  {yes} Pages {done}{total} ({page.cumulative_rows} profiles)"


def wait_line(progress: Progress, encoding: str = "utf-8") -> str:
    """Return one line about an export's current wait. If *encoding* has no ellipsis, three dots are used."""
    return f"  {'…' if _can_print('…', encoding) else '...'} {_wait(progress, in_words)}"


def forecast_line(progress: Progress) -> str | None:
    """Return one line about the expected wait for the quota; None if it is less than a minute.

    *progress* describes the export before its first request.
    """
    if progress.quota_wait < _MIN_FORECAST:
        return None
    planned = f"{progress.batches} request{'s' if progress.batches > 1 else ''} planned"
    enough = progress.quota_left is None or progress.batches <= progress.quota_left
    why = "but Mixpanel requested a pause" if enough else f"{progress.quota_left} left this hour"
    return f"{planned}, {why}: expect about {in_words(progress.quota_wait)}"


def in_words(seconds: float) -> str:
    """Return a duration in seconds, minutes, or hours and minutes."""
    if seconds < _LONG_WAIT:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    hours = f"{minutes // 60} h"
    return f"{minutes} min" if minutes < 120 else f"{hours} {minutes % 60} min" if minutes % 60 else hours


def _countdown(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def wire_line(progress: Progress) -> tuple[str, str]:
    """Return the two texts of the second bar.

    The first has the rows and comes before the number of bytes. The second has the quota, the failures and the wait.
    """
    failed = f"{progress.batches_failed} failed" if progress.batches_failed else None
    # A wait for the quota mentions the quota, too.
    omit_quota = progress.quota_left is None or progress.waiting_seconds is not None
    left = None if omit_quota else f"{progress.quota_left} requests left this hour"
    wait = _wait(progress, _countdown) if progress.waiting_for else None
    return f"{progress.rows:,} rows", ", ".join(filter(None, (left, failed, wait)))


def _wait(progress: Progress, duration: Callable[[float], str]) -> str:
    """Return the reason for the export's wait and, if known, its duration."""
    waiting_for = " ".join((progress.waiting_for or "").split())
    seconds = progress.waiting_seconds
    return f"waiting for {waiting_for}" + ("" if seconds is None else f", {duration(seconds)}")


class _Bars:
    """Two bars. They appear when the plan is known, so that they do not mix with early errors.

    A notebook without widgets can redraw only one line. There, one bar shows everything.
    """

    def __init__(self, title: str, file: TextIO | None, unit: str) -> None:
        self._title = title
        self._file = file
        self._unit = unit
        self._upper: tqdm[NoReturn] | None = None
        self._lower: tqdm[NoReturn] | None = None

    def show(self, progress: Progress) -> None:
        if self._upper is None and progress.batches:
            self._open(progress)
        if self._upper is not None:
            lower_text = ", ".join(filter(None, wire_line(progress))) if self._lower is None else ""
            _show_batches(self._upper, progress, self._unit, lower_text)
        if self._lower is not None:
            _show_wire(self._lower, progress)

    def _open(self, progress: Progress) -> None:
        forecast = forecast_line(progress)
        if forecast:
            tqdm.write(forecast, file=self._file or (sys.stdout if _in_notebook() else sys.stderr))
        self._upper = _bar(
            _BATCHES.replace("UNIT", self._unit), self._title, 0, self._file, total=progress.batches
        )
        if _allows_second_bar(self._upper):
            self._lower = _bar(_WIRE, wire_line(progress)[0], 1, self._file)

    def close(self) -> None:
        # The upper bar is closed first, because tqdm prints each closed bar at the cursor.
        for bar in (self._upper, self._lower):
            if bar is not None:  # a bar without a total is falsy
                bar.close()


def _show_batches(bar: "tqdm[NoReturn]", progress: Progress, unit: str, more: str) -> None:
    bar.total = progress.batches
    bar.bar_format = _batches_format(progress).replace("UNIT", unit)
    if more:
        bar.bar_format += "{postfix}"
        bar.postfix = more
    if progress.batches_failed and bar.colour:
        bar.colour = "red"
    bar.update(progress.batches_done - bar.n)


def _batches_format(progress: Progress) -> str:
    """Return the upper bar's format. Only an expected wait for the quota can be estimated."""
    if progress.waiting_seconds is not None:
        return _BATCHES_WAITING
    if progress.quota_wait < _MIN_FORECAST:
        return _BATCHES
    return _BATCHES.replace("{remaining}", f"about {in_words(progress.quota_wait)}")


def _show_wire(bar: "tqdm[NoReturn]", progress: Progress) -> None:
    before, after = wire_line(progress)
    bar.bar_format = _WIRE if progress.waiting_seconds is None else _WIRE_WAITING
    bar.set_description_str(before, refresh=False)
    bar.postfix = after
    bar.update(progress.bytes_read - bar.n)


def _bar(
    bar_format: str, text: str, position: int, file: TextIO | None, total: int | None = None
) -> "tqdm[NoReturn]":
    counts_bytes = total is None
    return _bar_class()(
        desc=text,
        total=total,
        unit="B" if counts_bytes else "batch",
        unit_scale=counts_bytes,
        bar_format=bar_format,
        position=position,
        file=file or sys.stderr,
        miniters=0,  # the bar is redrawn even without new bytes, to show the countdown of a wait
        # Batches end in groups, so their average rate is the best prediction.
        smoothing=0.3 if counts_bytes else 0,
        dynamic_ncols=True,
        colour=None if os.environ.get("NO_COLOR") else "green",
    )


def _bar_class() -> "type[tqdm[NoReturn]]":
    if not _in_notebook():
        return tqdm
    from tqdm.auto import tqdm as notebook_tqdm  # noqa: PLC0415 - imports IPython's widgets

    return cast("type[tqdm[NoReturn]]", notebook_tqdm)


def _allows_second_bar(bar: "tqdm[NoReturn]") -> bool:
    """Whether a second bar can be drawn below this one."""
    if not _in_notebook():
        return True
    from tqdm.notebook import tqdm_notebook  # noqa: PLC0415 - imports IPython's widgets

    return isinstance(bar, tqdm_notebook)


def _in_notebook() -> bool:
    """Whether this process is the kernel of a notebook.

    The imported modules do not show this, because Jupyter's server imports the same modules.
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return getattr(shell, "kernel", None) is not None  # IPython on a terminal has no kernel


def _can_print(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _ignore(_: Progress) -> None:
    pass
