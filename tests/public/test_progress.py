"""Progress bars and lines: what people see of an export."""

import io
import re
import sys
from types import ModuleType, SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_export.progress import (
    batch_line,
    can_draw,
    draw,
    forecast_line,
    in_words,
    wait_line,
    wire_line,
)
from mixpanel_export.results import BatchProgress, Progress

DONE = BatchProgress("2024-01-15", "2024-01-21", 2, 13, 123, success=True)
FAILED = BatchProgress("2024-01-15", "2024-01-21", 2, 13, 0, success=False, error="no connection")


class Terminal(io.StringIO):
    """A text file that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_finished_batch_is_one_line_as_mixpanel_data_wrote_it() -> None:
    """Batches count from 1, days are inclusive, and rows are those in the table."""
    assert batch_line(DONE) == "  ✓ Batch 3/13: 2024-01-15 to 2024-01-21 (123 rows)"


def test_a_failed_batch_says_why() -> None:
    """The error is in the place of the rows."""
    assert batch_line(FAILED) == "  ✗ Batch 3/13: 2024-01-15 to 2024-01-21 failed: no connection"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "cp437", "no-such-encoding"])
def test_marks_become_words_where_the_encoding_lacks_them(encoding: str) -> None:
    """A console with an old code page gets `ok` and `failed`."""
    assert batch_line(DONE, encoding) == "  ok Batch 3/13: 2024-01-15 to 2024-01-21 (123 rows)"
    assert batch_line(FAILED, encoding).startswith("  failed Batch 3/13:")


@given(st.sampled_from(["ascii", "cp1252", "utf-8", "cp437", "utf-16"]), st.booleans())
def test_a_line_can_always_be_printed(encoding: str, success: bool) -> None:
    """The line's own characters can be encoded in every encoding."""
    batch = BatchProgress("2024-01-01", "2024-01-02", 0, 1, 5, success=success, error="broke")
    assert batch_line(batch, encoding).encode(encoding)


def test_the_wire_line_names_quota_failures_and_the_wait() -> None:
    """Everything that can delay an export is on one line."""
    progress = Progress(rows=1234567, quota_left=41, batches_failed=2, waiting_for="a retry (reset)")
    assert wire_line(progress) == (
        "1,234,567 rows",
        "41 requests left this hour, 2 failed, waiting for a retry (reset)",
    )


def test_a_wait_for_the_quota_stands_without_what_is_left_of_it() -> None:
    """The wait already implies it, and the line stays short."""
    progress = Progress(rows=5, quota_left=0, batches_failed=1, waiting_for="the quota", waiting_seconds=2640)
    assert wire_line(progress) == ("5 rows", "1 failed, waiting for the quota, 44:00")


@pytest.mark.parametrize(
    "seconds, shown", [(9, "0:09"), (60, "1:00"), (3541.2, "59:01"), (3600, "1:00:00"), (86_399, "23:59:59")]
)
def test_the_bar_counts_down(seconds: float, shown: str) -> None:
    """It has minutes and seconds, so that each second is visible, and hours if there are any."""
    waits = Progress(waiting_for="the quota", waiting_seconds=seconds)
    assert wire_line(waits)[1] == f"waiting for the quota, {shown}"


@pytest.mark.parametrize("encoding, mark", [("utf-8", "…"), ("cp1252", "…"), ("ascii", "...")])
def test_a_wait_is_one_line_in_any_encoding(encoding: str, mark: str) -> None:
    """A console with an old code page gets three dots, and the server's text stays on the line."""
    waits = Progress(waiting_for="the quota", waiting_seconds=30)
    assert wait_line(waits, encoding) == f"  {mark} waiting for the quota, 30 s"
    waits = Progress(waiting_for="a retry (it\n  broke)")
    assert wait_line(waits, encoding) == f"  {mark} waiting for a retry (it broke)"


@pytest.mark.parametrize(
    "seconds, words",
    [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (3540, "59 min"), (7140, "119 min"), (7200, "2 h"), (7300, "2 h 2 min"), (93_600, "26 h")],
)  # fmt: skip
def test_durations_are_in_words(seconds: float, words: str) -> None:
    """Seconds up to two minutes, minutes up to two hours, and then both."""
    assert in_words(seconds) == words


@pytest.mark.parametrize(
    "batches, left, wait, line",
    [
        (50, 12, 3480, "50 requests planned, 12 left this hour: expect about 58 min"),
        (1, 0, 60, "1 request planned, 0 left this hour: expect about 60 s"),
        (7, 55, 3540, "7 requests planned, but Mixpanel requested a pause: expect about 59 min"),
        (50, 60, 59, None),
        (50, None, 0, None),
    ],
)
def test_a_long_wait_is_forecast(batches: int, left: int | None, wait: float, line: str | None) -> None:
    """One line has the number of requests, the remaining quota or a pause, and the expected end."""
    assert forecast_line(Progress(batches=batches, quota_left=left, quota_wait=wait)) == line


def test_a_wait_for_the_quota_hides_what_it_makes_untrue() -> None:
    """Neither the current rate nor an end computed from it is shown while no request is allowed."""
    terminal = Terminal()
    with draw(file=terminal) as watch:
        watch(Progress(batches=50, batches_done=10, bytes_read=5000))
        watch(
            Progress(
                batches=50, batches_done=10, bytes_read=5000, waiting_for="the quota", waiting_seconds=60
            )
        )
    upper, lower = (line.rsplit("\r", 1)[-1] for line in terminal.getvalue().rstrip().rsplit("\n", 1))
    assert re.search(r"20% \[00:0\d\]", upper)
    assert "B/s" not in lower
    assert lower.endswith("5.00kB, waiting for the quota, 1:00")


def test_the_forecast_stands_above_the_bars_once() -> None:
    """It is a separate line, which later progress does not repeat."""
    terminal = Terminal()
    with draw(title="signups", file=terminal) as watch:
        watch(Progress(batches=50, quota_left=12, quota_wait=3480))
        watch(Progress(batches=50, quota_left=11, quota_wait=3479))
    assert terminal.getvalue().startswith("50 requests planned, 12 left this hour: expect about 58 min\n")
    assert terminal.getvalue().count("planned") == 1
    assert "<about 58 min]" in terminal.getvalue()


def test_the_wire_line_is_short_when_nothing_holds_it_up() -> None:
    """An unlimited export that is not waiting shows only its number of rows."""
    assert wire_line(Progress(rows=5)) == ("5 rows", "")


def test_bars_show_the_totals_they_were_given_last() -> None:
    """Each total replaces the last, so the last one stays on the screen."""
    terminal = Terminal()
    with draw(title="signups", file=terminal) as watch:
        watch(Progress(batches=20, batches_done=3, rows=100, bytes_read=5_000, quota_left=50))
        watch(Progress(batches=20, batches_done=13, rows=7_000, bytes_read=2_500_000, quota_left=40))
    shown = terminal.getvalue()
    upper, lower = shown.rstrip().rsplit("\n", 1)
    assert "signups: 13/20 batches" in upper.rsplit("\r", 1)[-1]
    assert "65%" in upper.rsplit("\r", 1)[-1]
    assert "  7,000 rows, 2.50MB at " in lower.rsplit("\r", 1)[-1]
    assert lower.endswith("40 requests left this hour")


def test_rows_may_fall_when_a_batch_is_given_up() -> None:
    """A total that is lower than before is displayed as it is."""
    terminal = Terminal()
    with draw(file=terminal) as watch:
        watch(Progress(batches=2, batches_done=1, rows=500, bytes_read=900))
        watch(Progress(batches=2, batches_done=2, batches_failed=1, rows=200, bytes_read=900))
    assert "  200 rows, 900B at " in terminal.getvalue().rsplit("\r", 1)[-1]


@pytest.mark.parametrize("colour", [True, False])
def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch, colour: bool) -> None:
    """Bars are green, and red after a batch failed, unless NO_COLOR is set."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    if not colour:
        monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    with draw(file=terminal) as watch:
        watch(Progress(batches=2, batches_done=1))
        watch(Progress(batches=2, batches_done=2, batches_failed=1))
    assert ("\x1b[32m" in terminal.getvalue()) is colour
    assert ("\x1b[31m" in terminal.getvalue()) is colour


@pytest.mark.parametrize("progress", [None, Progress(), Progress(requests=1)])
def test_bars_wait_for_the_first_batch(progress: Progress | None) -> None:
    """An export that fails before it starts, or has nothing to fetch, leaves no empty bars."""
    terminal = Terminal()
    with draw(file=terminal) as watch:
        if progress:
            watch(progress)
    assert not terminal.getvalue()


@pytest.mark.parametrize("enabled", [True, False])
def test_nothing_is_drawn_off_a_terminal(enabled: bool) -> None:
    """A log file gets no control characters, whether or not bars were requested."""
    file = io.StringIO()
    with draw(enabled, file=file) as watch:
        watch(Progress(batches=2, batches_done=1))
    assert not file.getvalue()


def test_nothing_is_drawn_where_it_is_not_wished_for() -> None:
    """`enabled=False` also applies on a terminal."""
    terminal = Terminal()
    with draw(enabled=False, file=terminal) as watch:
        watch(Progress(batches=2, batches_done=1))
    assert not terminal.getvalue()


def test_bars_are_closed_when_the_export_raises() -> None:
    """The cursor is below the bars, so that the error starts on a new line."""
    terminal = Terminal()

    def broken_export() -> None:
        with draw(file=terminal) as watch:
            watch(Progress(batches=2, batches_done=1))
            raise RuntimeError("broke")

    with pytest.raises(RuntimeError, match="broke"):
        broken_export()
    assert terminal.getvalue().endswith("\n")


def run_in_shell(monkeypatch: pytest.MonkeyPatch, shell: object) -> None:
    """Let IPython say that it runs this program in *shell*."""
    ipython = ModuleType("IPython")
    ipython.get_ipython = lambda: shell  # type: ignore[attr-defined] # a module of our own
    monkeypatch.setitem(sys.modules, "IPython", ipython)


@pytest.mark.parametrize("shell", [None, SimpleNamespace(config={})])
def test_a_terminals_ipython_is_no_notebook(shell: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is a program that has imported IPython, or runs kernels itself: such a terminal gets normal bars."""
    run_in_shell(monkeypatch, shell)
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    assert not can_draw(io.StringIO())


def test_a_notebook_without_widgets_gets_one_bar_that_says_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a kernel, bars are drawn although there is no terminal; only the last line of text can be redrawn."""
    run_in_shell(monkeypatch, SimpleNamespace(kernel="a kernel", config={}))
    file = io.StringIO()
    assert can_draw(file)
    with draw(file=file) as watch:
        watch(Progress(batches=4, batches_done=3, rows=1200, waiting_for="the quota", waiting_seconds=90.0))
    last = file.getvalue().rpartition("\r")[2]
    assert "3/4 batches" in last
    assert re.search(r"\[\d\d:\d\d\], 1,200 rows, waiting for the quota, 1:30\s*$", last)
    assert "\x1b[A" not in file.getvalue()


def test_a_notebooks_forecast_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Notebooks show standard error in red, so other text goes to standard output."""
    run_in_shell(monkeypatch, SimpleNamespace(kernel="a kernel", config={}))
    with draw() as watch:
        watch(Progress(batches=50, quota_left=2, quota_wait=3000.0))
    assert capsys.readouterr().out.startswith("50 requests planned, 2 left this hour: expect about 50 min")


def test_standard_error_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    """Bars go to the current standard error, never to standard output."""
    assert not can_draw()
    with draw() as watch:
        watch(Progress(batches=1, batches_done=1))
    assert capsys.readouterr().out == ""
