"""The README is true: its code runs, and what it names exists."""

import inspect
import re
import shlex
import tomllib
from ast import PyCF_ALLOW_TOP_LEVEL_AWAIT
from collections.abc import Iterator
from datetime import date
from itertools import takewhile
from pathlib import Path
from types import FunctionType
from typing import Any

import click
import pytest
from anyio.from_thread import start_blocking_portal
from click.testing import CliRunner
from support import held, query, simulator, truth

import mixpanel_export
from mixpanel_export import _retry
from mixpanel_export._plan import plan
from mixpanel_export._retry import History, Step, Wait, next_step, pause_after_refusal
from mixpanel_export.cli import COMMANDS, cli
from mixpanel_export.errors import (
    AuthenticationError,
    FutureDateError,
    LineTooLongError,
    MixpanelDataError,
    NetworkError,
    QueryError,
    ServerError,
    TruncatedError,
)
from mixpanel_export.simulator import Simulator

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "mixpanel_export"
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
SPANS = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", TEXT, flags=re.MULTILINE | re.DOTALL))
LINES = [line.partition(" # ")[0] for kind, block in BLOCKS if kind == "bash" for line in block.splitlines()]
SET_UP = [line for line in LINES if line.startswith("python3 -m venv")]
SYNOPSIS = [line for line in LINES if line.startswith("mpx ") and "[" in line]
COMMENTS = [
    line.partition(" # ")[2] for kind, block in BLOCKS if kind == "bash" for line in block.splitlines()
]
CALLS = [line for line in [*LINES, *COMMENTS, *SPANS] if re.match(r"mpx \w", line) and line not in SYNOPSIS]
FIRST, LAST = "2024-01-01", "2024-03-30"


def blocks(language: str) -> list[str]:
    return [block for kind, block in BLOCKS if kind == language]


@pytest.fixture
def sim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    """A served simulator with Mixpanel's hour; the environment and the working directory of somebody who uses it."""
    sim = simulator(events_per_day=5, per_hour=60)
    for name in variables(PACKAGE) - {"MPX_STATE_DIR"}:  # which is the test's own
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(sim.serve()) as url:
        settings = {
            "MPX_API_URL": url,
            "MP_USERNAME": "demo.mp-service-account",
            "MP_SECRET": "demo-secret",
            "MP_PROJECT_ID": "12345",
            "MPX_PER_SECOND": "0",
        }
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        yield sim


def variables(path: Path) -> set[str]:
    """Return the environment variables that a file, or the modules of a folder, name."""
    files = path.rglob("*.py") if path.is_dir() else [path]
    return {name for file in files for name in re.findall(r"\bMPX?_[A-Z_]+", file.read_text("utf-8"))}


def options(name: str) -> set[str]:
    """Return the options of a command, and of those below it, in each way to write them."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None, name
    below = command.commands.values() if isinstance(command, click.Group) else ()
    return {word for each in (command, *below) for option in each.params for word in option.opts}


def run_shell_line(line: str) -> None:
    """Run an `mpx …` line in this process."""
    result = CliRunner().invoke(cli, shlex.split(line)[1:], prog_name="mpx")
    assert result.exit_code == 0, result.output


def run_python(block: str) -> Any:
    """Run a block as a notebook would: what it awaits at its top level is returned, to be awaited."""
    return FunctionType(compile(block, "README.md", "exec", flags=PyCF_ALLOW_TOP_LEVEL_AWAIT), {})()


# The blocks


def test_every_block_is_of_a_kind_that_is_tested_here() -> None:
    """Nothing stands in the README that looks like code and is not run or compared."""
    assert {kind for kind, _ in BLOCKS} == {"", "bash", "python", "sql"}
    assert len(SET_UP) == 2
    assert sorted([*SET_UP, *SYNOPSIS, *(line for line in CALLS if line in LINES)]) == sorted(LINES)


@pytest.mark.anyio
async def test_the_async_block_exports_exactly(
    sim: Simulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pasted into an application of asyncio or trio, it brings exactly the events of its days."""
    (block,) = [block for block in blocks("python") if "await " in block]
    coroutine = run_python(block)
    assert inspect.iscoroutine(coroutine)
    await coroutine
    file = tmp_path / "mixpanel.duckdb"
    assert held(file) == truth(sim, FIRST, LAST)
    assert capsys.readouterr().out == f"{query(file, 'SELECT count(*) FROM events')[0][0]} ()\n"


def test_the_blocking_block_exports_exactly(
    sim: Simulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pasted into a script, it brings exactly the events of its days, and counts them."""
    (block,) = [block for block in blocks("python") if "await " not in block]
    assert run_python(block) is None
    assert held(tmp_path / "mixpanel.duckdb") == truth(sim, FIRST, LAST)
    assert "[('Page View', " in capsys.readouterr().out


def test_the_shell_line_exports_what_the_sql_reads(sim: Simulator, tmp_path: Path) -> None:
    """The shell's line brings exactly the events; the columns are those listed, and the query finds Chrome."""
    (line,) = [line for line in CALLS if "--from" in line]
    run_shell_line(line)
    file = tmp_path / "mixpanel.duckdb"
    assert held(file) == truth(sim, FIRST, LAST)
    schema, select = blocks("sql")
    columns = "SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = 'events' ORDER BY column_index"
    listed = ", ".join(f"{name} {kind}" for name, kind in query(file, columns))
    assert schema == f"events({listed})\n"
    rows = query(file, select)
    assert rows
    assert any(0 < in_chrome < events for _, events, _, in_chrome in rows)


def test_metadata_says_what_the_readme_says(sim: Simulator, tmp_path: Path) -> None:
    """First and last complete day, the missing days between, and the rows."""
    for first, last, mode in (
        ("2024-01-01", "2024-01-02", "--resume"),
        ("2024-01-05", "2024-01-05", "--append"),
    ):
        run_shell_line(f"mpx export --from {first} --to {last} {mode}")
    rows = "SELECT from_date, to_date, missing_days, row_count = (SELECT count(*) FROM events) FROM _metadata"
    assert query(tmp_path / "mixpanel.duckdb", rows) == [(date(2024, 1, 1), date(2024, 1, 5), 2, True)]


def test_both_set_ups_install_what_there_is() -> None:
    """The demo's and the tests' commands make an environment, install this project and its groups, and run."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    demo, tests = (line.split(" && ") for line in SET_UP)
    venv = "python3 -m venv .venv"
    assert demo == [venv, ".venv/bin/pip install -q .", ".venv/bin/mpx demo"]
    assert tests[:3] == [
        venv,
        ".venv/bin/pip install -q --upgrade pip",
        ".venv/bin/pip install -q -e . --group dev",
    ]
    assert tests[3].startswith(".venv/bin/coverage run -m pytest")
    assert "dev" in project["dependency-groups"]
    (extras,) = re.findall(r"pip install '\.\[([\w,]+)\]'", TEXT)
    assert extras.split(",") == list(project["project"]["optional-dependencies"])


def test_the_test_command_stands_after_its_marker() -> None:
    """Continuous integration takes the first block after the marker; it is the one line that runs the tests."""
    _, after = TEXT.split("<!-- tests -->\n")
    assert after.startswith(f"```bash\n{SET_UP[1]}\n```\n")


# What the text names


@pytest.mark.parametrize("line", CALLS)
def test_every_line_for_the_shell_parses(line: str) -> None:
    """A command with the options that the README gives it is one that `mpx` takes."""
    name, *words = shlex.split(line)[1:]
    assert name in COMMANDS
    if not words or words == ["--help"]:
        assert CliRunner().invoke(cli, [name, "--help"]).exit_code == 0
    else:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        command.make_context(name, words)


def test_every_option_exists() -> None:
    """What a synopsis shows is an option of its command, and what the text calls an option is one of some command."""
    pattern = r"--[a-z][a-z0-9-]*"
    for synopsis in SYNOPSIS:
        assert set(re.findall(pattern, synopsis)) <= options(shlex.split(synopsis)[1])
    named = [word for span in SPANS if span.startswith("--") for word in re.findall(pattern, span)]
    assert len(named) > 10
    assert set(named) <= {word for name in COMMANDS for word in options(name)}


def test_the_environment_is_that_of_the_package() -> None:
    """Every variable that the package reads is explained, and no other."""
    assert variables(ROOT / "README.md") == variables(PACKAGE)


def test_every_promise_names_tests_that_exist() -> None:
    """Each row of the promises has its tests, which are to be found in this folder."""
    defined = {
        name
        for file in Path(__file__).parent.glob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", file.read_text("utf-8"), re.MULTILINE)
    }
    _, table = TEXT.split("| promise | proven by |")
    rows = re.findall(r"^\| \*\*.*$", table, re.MULTILINE)
    assert len(rows) == 3
    for row in rows:
        named = set(re.findall(r"`(test_\w+)`", row.split(" | ")[1]))
        assert named
        assert named <= defined


def test_every_error_and_name_of_the_api_exists() -> None:
    """Errors and calls in the text are the package's, `ws.…` and `result.…` are attributes that there are."""
    assert {span for span in SPANS if re.fullmatch(r"\w+Error", span)} <= set(mixpanel_export.__all__)
    assert {name for span in SPANS for name in re.findall(r"(\w+)\(", span)} <= set(mixpanel_export.__all__)
    for span in SPANS:
        for owner, name in re.findall(r"\b(ws|result|Workspace)\.(\w+)", span):
            kind = mixpanel_export.ParallelFetchResult if owner == "result" else mixpanel_export.Workspace
            assert name in dir(kind), span


def test_every_file_and_module_exists() -> None:
    """Links lead to files, headings that are linked are there, benchmarks take their options, stages are modules."""
    for target in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (ROOT / target).is_file(), target
    headings = {
        heading.lower().replace(" ", "-") for heading in re.findall(r"^###? (.*)$", TEXT, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= headings
    for script, words in re.findall(r"`python (benchmarks/\w+\.py)([^`]*)`", TEXT):
        source = (ROOT / script).read_text("utf-8")
        assert all(f'"{word}"' in source for word in re.findall(r"--[a-z-]+", words))
    (diagram,) = blocks("")
    _, about = TEXT.split(diagram)
    named = set(re.findall(r"`(_[a-z_]+)`", about)) | set(re.findall(r"\b_[a-z]+", diagram))
    assert named == {path.stem for path in PACKAGE.glob("_[a-z]*.py")}


# The retry policy

UNCONNECTED, BROKEN = NetworkError("x"), NetworkError("x", mid_answer=True)
TRUNCATED, TIMEOUT = TruncatedError("x", status_code=200), ServerError("x", status_code=400)
UNAVAILABLE = ServerError("x", status_code=503)
HOPELESS = [AuthenticationError("x"), QueryError("x"), FutureDateError("x"), LineTooLongError("x")]


def step_after(*errors: MixpanelDataError, splittable: bool = False, retries: int = 5) -> Step:
    """Return what follows these failures, with the longest pauses."""
    history = History()
    for error in errors:
        history = history.after(error)
    return next_step(history, retries=retries, splittable=splittable, draw=lambda: 1.0)


def seconds_numbered(text: str) -> list[float]:
    """Return the numbers of a claim: of seconds, with "a minute" and "an hour" among them."""
    words = text.replace("a minute", "60").replace("an hour", "3600")
    return [float(number) for number in re.findall(r"\d+", words)]


def check_refusals(claim: str) -> None:
    """`Retry-After`, else a minute, doubling."""
    (first,) = seconds_numbered(claim)
    assert pause_after_refusal(17.0, 1, draw=lambda: 0.0) == 17.0
    pauses = [pause_after_refusal(None, refusals, draw=lambda: 0.0) for refusals in (1, 2, 3)]
    assert pauses == [first, 2 * first, 4 * first]


def check_waits(claim: str) -> None:
    """After 1, 2, 4 … 60 s, `Retry-After` up to an hour, as often as `retries` says."""
    *doubling, longest, most = seconds_numbered(claim)
    for error in (UNCONNECTED, UNAVAILABLE, TRUNCATED):
        steps = [step_after(*[error] * failures, retries=8) for failures in range(1, 10)]
        assert steps[: len(doubling)] == [Wait(seconds) for seconds in doubling]
        assert steps[7:] == [Wait(longest), "give up"]
    for asked, kept in ((17.0, 17.0), (1e6, most)):
        assert step_after(ServerError("x", status_code=503, retry_after=asked)) == Wait(kept)


def check_second_break(_: str) -> None:
    """The second splits, where that is possible."""
    for error in (BROKEN, TRUNCATED):
        assert step_after(error, splittable=True) == step_after(error)
        assert step_after(error, error, splittable=True) == "split"
        assert step_after(error, error) == step_after(UNCONNECTED, UNCONNECTED)


def check_timeout(_: str) -> None:
    """The first splits, where that is possible."""
    assert step_after(TIMEOUT, splittable=True) == "split"
    assert step_after(TIMEOUT) == step_after(UNCONNECTED)


def check_hopeless(_: str) -> None:
    """Neither waiting nor splitting."""
    assert {step_after(error, splittable=True) for error in HOPELESS} == {"give up"}


POLICY = {
    "429": check_refusals,
    "no connection, 5xx, a body that is not whole": check_waits,
    "a break or silence in mid-answer, for the second time": check_second_break,
    "400 `Timeout Error.`": check_timeout,
    "anything else": check_hopeless,
}


def policy_of(text: str) -> list[str]:
    """Return the rows of the table of retries in a text."""
    _, table = text.split("| the attempt failed with | then |\n|---|---|\n")
    return list(takewhile(lambda line: line.startswith("|"), table.splitlines()))


def test_the_retry_policy_is_written_once() -> None:
    """The table is that of the module which decides, and each of its rows is checked below."""
    rows = policy_of(TEXT)
    assert rows == policy_of(_retry.__doc__ or "")
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == list(POLICY)


@pytest.mark.parametrize("row", policy_of(TEXT))
def test_the_retry_policy_does_what_its_table_says(row: str) -> None:
    """What a row claims, numbers included, is what the policy does."""
    failure, claim = row.removeprefix("| ").removesuffix(" |").split(" | ")
    POLICY[failure](claim)


def test_ranges_are_cut_as_the_readme_says() -> None:
    """So many days become so many chunks of such lengths, under the usual quota."""
    cuts = re.findall(r"(\d+)(?: days)? into (\d+) \W (\d+)(?:\W(\d+))?", TEXT)
    assert len(cuts) == 3
    for days, count, least, most in cuts:
        last = date.fromordinal(date(2023, 1, 1).toordinal() + int(days) - 1)
        chunks = plan(date(2023, 1, 1), last, trust=False, open_from=date(2024, 6, 1)).chunks
        assert len(chunks) == int(count)
        assert {chunk.days for chunk in chunks} == {int(least), int(most or least)}
