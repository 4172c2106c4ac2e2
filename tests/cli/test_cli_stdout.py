"""`mpx export --stdout` and `mpx mp fetch events --stdout`: exact lines to a pipe, and nothing else."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from select import select

import pytest
from lines import rows_of
from shell import MPX, NINE_DAYS, environment, mpx, one_error
from support import simulator, truth

from mixpanel_export.simulator import Fault, Simulator, checksum

FIRST, LAST = date(2024, 3, 1), date(2024, 3, 9)


def test_the_lines_are_those_that_mixpanel_sends(
    sim: Simulator, env: Mapping[str, str], tmp_path: Path
) -> None:
    """Every event is written once, in the order of days with --ordered, progress is on stderr, and no file is made."""
    result = mpx("export", *NINE_DAYS, "--parallel", "--chunk-days", "1", "--stdout", "--ordered")
    assert result.exit_code == 0, result.output
    lines = result.stdout_bytes.splitlines()
    assert checksum(rows_of(lines)) == truth(sim)
    assert not Counter(lines) - Counter(sim.lines(FIRST, LAST))
    order = [min(n for n in range(9) if line in day_lines(sim, n)) for line in lines[:: len(lines) // 20]]
    assert order == sorted(order)
    assert "Batch" in result.stderr
    assert not (tmp_path / "events.duckdb").exists()


@pytest.mark.usefixtures("env")
def test_the_quota_does_not_name_a_file() -> None:
    """`mpx quota` says that a stream used the requests, because no table was written."""
    assert mpx("export", *NINE_DAYS, "--stdout", "--quiet", "--per-hour", "60").exit_code == 0
    assert "by stream of batches" in mpx("quota").stdout


def day_lines(sim: Simulator, number: int) -> set[bytes]:
    day = date.fromordinal(FIRST.toordinal() + number)
    return set(sim.lines(day, day))


def test_settings_for_tables_have_no_effect(
    sim: Simulator, env: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mode and the file from the environment do not matter; the options of the selection do."""
    monkeypatch.setenv("MPX_MODE", "resume")
    result = mpx("export", *NINE_DAYS, "--stdout", "--quiet", "-e", "Page View", "--no-dedupe")
    assert (result.exit_code, result.stderr) == (0, "")
    sent = Counter(sim.lines(FIRST, LAST, events=["Page View"]))
    assert Counter(result.stdout_bytes.splitlines()) == sent


@pytest.mark.parametrize(
    "words",
    [
        ["signups"], ["--db", "x.duckdb"], ["--resume"], ["--append"], ["--replace"], ["--mode", "append"], ["--flatten"],
        ["--no-flatten"], ["--dry-run"], ["--json"], ["--allow-empty"], ["--allow-new-events"], ["--yes"],
    ],
)  # fmt: skip
def test_options_for_tables_are_refused(words: list[str], sim: Simulator, env: Mapping[str, str]) -> None:
    """An option that needs a table is a usage error on one line, and nothing is requested."""
    result = mpx("export", *NINE_DAYS, "--stdout", *words)
    assert result.exit_code == 2
    assert "--stdout" in one_error(result)
    assert not sim.requests


def test_wrong_usage_is_one_line(sim: Simulator, env: Mapping[str, str]) -> None:
    """--ordered needs --stdout, which needs a first day."""
    for words in (["--ordered", *NINE_DAYS], ["--stdout"], ["--stdout", "--to", "2024-03-09"]):
        result = mpx("export", *words)
        assert result.exit_code == 2
        assert one_error(result)
    assert not sim.requests


def test_failed_days_are_reported_with_a_command_for_each(sim: Simulator, env: Mapping[str, str]) -> None:
    """All other days are written, the exit code is 1, and the commands request exactly the failed days."""
    bad = [date(2024, 3, 2), date(2024, 3, 5)]
    sim.faults = [Fault("500", days=tuple(bad))]
    result = mpx("export", *NINE_DAYS, "--parallel", "--chunk-days", "1", "--retries", "0", "--stdout")
    assert result.exit_code == 1
    command = result.stderr.splitlines()[-1].strip()
    first, second = command.split(" && ")
    assert "--from 2024-03-02 --to 2024-03-02" in first
    assert "--from 2024-03-05 --to 2024-03-05" in second
    assert "--stdout" in first
    failed = {line for day in bad for line in sim.lines(day, day)}
    assert not failed & set(result.stdout_bytes.splitlines())


@pytest.mark.skipif(os.name != "posix", reason="the shell")
@pytest.mark.parametrize(
    "words",
    [["export", "--parallel", "--chunk-days", "1"], ["mp", "fetch", "events"]],
    ids=["export", "mp fetch"],
)
def test_a_reader_that_leaves_early_is_no_error(
    words: list[str], sim: Simulator, env: Mapping[str, str]
) -> None:
    """With `| head`, the exit code is 0, and no traceback is printed."""
    command = [*MPX, *words, *NINE_DAYS, "--stdout"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 0, errors
    assert b"Traceback" not in errors
    assert b"Error" not in errors


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_ends_between_lines(sim: Simulator, env: Mapping[str, str], tmp_path: Path) -> None:
    """The lines written so far are whole events of complete batches, the exit code is 130, and no file is left."""
    sim.faults = [Fault("stall", first=LAST, last=LAST)]
    folder = tmp_path / "temporary"
    folder.mkdir()
    command = [*MPX, "export", *NINE_DAYS, "--parallel", "--chunk-days", "1", "--stdout", "--ordered"]
    with subprocess.Popen(
        command, env=dict(env) | {"TMPDIR": str(folder)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = [process.stdout.readline()]
        process.send_signal(signal.SIGINT)
        lines += process.stdout.read().splitlines(keepends=True)
        errors = process.stderr.read()
    assert process.returncode == 130, errors
    assert {line.removesuffix(b"\n") for line in lines} <= set(sim.lines(FIRST, LAST))
    assert errors.splitlines()[-1].startswith(b"Interrupted after ")
    assert not list(folder.iterdir())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the size of a pipe")
def test_ctrl_c_while_the_pipe_is_full_cuts_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that is slower than the export gets only whole lines, but not all of them."""
    import fcntl  # noqa: PLC0415 - not on Windows

    sim = simulator(events_per_day=1000, now=lambda: datetime.now(UTC))
    with (
        environment(sim, tmp_path, monkeypatch) as env,
        subprocess.Popen(
            [*MPX, "export", *NINE_DAYS, "--parallel", "--stdout"],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process,
    ):
        assert process.stdout is not None
        pipe = process.stdout.fileno()
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 4096)  # less than any slice, so it is full once it is readable
        while not select([pipe], [], [], 1)[0]:
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        written = process.stdout.read()
    assert process.returncode == 130
    assert written.endswith(b"\n")
    assert set(written.splitlines()) < set(sim.lines(FIRST, LAST))
