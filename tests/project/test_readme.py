"""The README is true: each of its blocks is run, and what it names exists.

Of the blocks only the two that make an environment, and the lines that a crontab and a start-up file take, are not run
as they stand: what they consist of is.
"""

import builtins
import re
import runpy
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from itertools import takewhile
from pathlib import Path

import click
import duckdb
import pytest
from click.testing import CliRunner, Result
from old_files import made, noons
from shell import ALL, MPX, mpx, parsed, served, words_of
from support import held, query, simulator, truth

import mixpanel_export
from mixpanel_export._database import settings as _settings
from mixpanel_export._planning.planner import plan
from mixpanel_export._quota import retry as _retry
from mixpanel_export._quota.retry import History, Step, Wait, next_step, pause_after_refusal
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

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "mixpanel_export"
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
SPANS = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", TEXT, flags=re.MULTILINE | re.DOTALL))


def blocks(language: str) -> list[str]:
    return [block for kind, block in BLOCKS if kind == language]


def lines_of(block: str) -> list[str]:
    """Return the commands of a block for a shell, without the comments behind them."""
    return [line.partition("   #")[0].rstrip() for line in block.splitlines()]


DEMO, OWN_PROJECT, COMMAND_LIST, COMPLETION, TESTS = blocks("bash")
SCRIPT, APPLICATION, QUESTIONS = blocks("python")
SCHEMA, SELECT = blocks("sql")
(CRONTAB,) = blocks("crontab")
(DIAGRAM,) = blocks("")
CALLS = [
    *(line for block in (OWN_PROJECT, COMMAND_LIST) for line in lines_of(block)),
    *(span for span in SPANS if re.match(r"mpx \w", span)),
]
FIRST, LAST = "2024-01-01", "2024-03-30"


@pytest.fixture
def sim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    """A served simulator with Mixpanel's hour; the environment and the working directory of somebody who uses it."""
    sim = simulator(events_per_day=5, per_hour=60)
    with used(sim, tmp_path, monkeypatch):
        yield sim


@contextmanager
def used(sim: Simulator, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Serve *sim* to somebody whose working directory is *folder*."""
    for name in {*variables(PACKAGE), "NO_COLOR"} - {"MPX_STATE_DIR"}:  # which is the test's own
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(folder)
    with served(sim) as url:
        settings = {
            "MPX_API_URL": url,
            "MP_USERNAME": "demo.mp-service-account",
            "MP_SECRET": "demo-secret",
            "MP_PROJECT_ID": "12345",
            "MP_CONFIG_PATH": str(folder / "config.toml"),
            "MPX_PER_SECOND": "0",
        }
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        yield


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


def run_shell_line(line: str, *more: str) -> Result:
    """Run an `mpx …` line in this process."""
    result = mpx(*words_of(line), *more)
    assert result.exit_code == 0, result.output
    return result


def run_python(block: str) -> dict[str, object]:
    """Run a block as a script of its own, and return its variables."""
    Path("script.py").write_text(block, encoding="utf-8")
    return runpy.run_path("script.py")


# The blocks


def test_the_lines_for_ones_own_project_answer_in_sql(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From an account that is added, by way of an exact export, to a table of the answer; by the lines as they stand."""
    add, export, ask = lines_of(OWN_PROJECT)
    words = dict(zip(words_of(add), words_of(add)[1:], strict=False))
    account = {"username": words["--username"], "project_id": words["--project-id"]}
    sim = simulator(events_per_day=5, per_hour=60, **account)
    with used(sim, tmp_path, monkeypatch):
        monkeypatch.delenv("MP_USERNAME")
        monkeypatch.delenv("MP_PROJECT_ID")
        run_shell_line(add)  # which would ask for what the environment has
        monkeypatch.delenv("MP_SECRET")
        run_shell_line(export)
        answer = run_shell_line(ask).stdout
    file = tmp_path / "mixpanel.duckdb"
    assert held(file) == truth(sim, FIRST, LAST)
    (most, events), *_ = query(file, ask.split('"')[1])
    assert re.search(rf"^{re.escape(most)} +{events}$", answer, re.MULTILINE)


def test_the_blocking_block_exports_exactly(sim: Simulator, tmp_path: Path) -> None:
    """Pasted into a script, it brings exactly the events of its days; run again, it asks for nothing."""
    run_python(SCRIPT)
    assert held(tmp_path / "mixpanel.duckdb") == truth(sim, FIRST, LAST)
    asked = len(sim.requests)
    run_python(SCRIPT)
    assert len(sim.requests) == asked


@pytest.mark.parametrize("library", ["asyncio", "trio"])
def test_the_async_block_exports_exactly(
    library: str, sim: Simulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a script, it brings exactly the events of its days; in the loop of trio, too."""
    run_python(
        APPLICATION.replace(
            "asyncio.run(main())", f"{library}.run(main{'()' * (library == 'asyncio')})"
        ).replace("import asyncio", f"import {library}")
    )
    file = tmp_path / "mixpanel.duckdb"
    assert held(file) == truth(sim, FIRST, LAST)
    assert capsys.readouterr().out == f"{query(file, 'SELECT count(*) FROM events')[0][0]} ()\n"


def test_the_questions_are_answered(
    sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file is asked without credentials: the most frequent event comes first, and the relation is a DataFrame."""
    run_python(SCRIPT)
    monkeypatch.delenv("MP_SECRET")
    assert len(run_python(QUESTIONS)["frame"]) == 5  # type: ignore[arg-type] # what a script leaves has any type
    assert capsys.readouterr().out.startswith("[('Page View', ")


def test_the_sql_reads_what_an_export_writes(sim: Simulator, tmp_path: Path) -> None:
    """The columns are those listed, and the query finds Chrome."""
    run_python(SCRIPT)
    file = tmp_path / "mixpanel.duckdb"
    columns = "SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = 'events' ORDER BY column_index"
    listed = ", ".join(f"{name} {kind}" for name, kind in query(file, columns))
    assert f"events({listed})\n" == SCHEMA
    rows = query(file, SELECT)
    assert rows
    assert any(0 < in_chrome < events for _, events, _, in_chrome in rows)


def test_the_list_of_commands_runs_from_top_to_bottom(sim: Simulator, tmp_path: Path) -> None:
    """Each line does what its comment says; only the demo is made small, and the simulator takes any port."""
    done = {}
    made(tmp_path / "old.db", noons("2024-03-01", 9))
    for line in lines_of(COMMAND_LIST):
        name = words_of(line)[0]
        if name == "simulate":
            words = ["0" if word.isdigit() else word for word in words_of(line)]
            with subprocess.Popen([*MPX, *words], stdout=subprocess.PIPE, text=True) as server:
                assert server.stdout is not None
                done[name] = server.stdout.readline()
                server.terminate()
        else:
            small = ["--days", "2", "--events-per-day", "20"] if name == "demo" else []
            done[name] = run_shell_line(line, *small).stdout
    assert set(done) == set(COMMANDS)
    assert held(tmp_path / "mixpanel.duckdb") == truth(sim, FIRST, LAST)
    assert "2024-03" in done["status"]
    assert not done["retry"]
    assert done["query"].startswith("event_name")
    assert "of 60 requests" in done["quota"]
    assert (tmp_path / "config.toml").is_file()
    assert "http://127.0.0.1:" in done["simulate"]


def test_the_line_for_cron_is_silent_until_something_fails(sim: Simulator, tmp_path: Path) -> None:
    """A crontab takes it; it prints nothing when it exports and when nothing is new, and one line of a failure."""
    found = re.fullmatch(r"((?:[\d*,/-]+ ){5}) *cd (\S+) && \.venv/bin/(mpx .*)\n", CRONTAB)
    assert found
    assert not re.search(r"(?<!\\)%", found[3])  # which cron takes for the end of the line
    line = found[3].replace(r"$(date +\%F)", LAST)
    for _ in range(2):
        assert run_shell_line(line).output == ""
    assert held(tmp_path / "mixpanel.duckdb") == truth(sim, FIRST, LAST)
    later = mpx(*words_of(line.replace(LAST, "2024-07-01")))
    assert later.exit_code == 1
    assert len(later.output.splitlines()) == 1


def test_the_line_for_completion_gets_a_script() -> None:
    """What the shell evaluates is the script that the program gives, for each shell that the README names."""
    found = re.fullmatch(r'eval "\$\((_MPX_COMPLETE)=bash_source mpx\)"\n', COMPLETION)
    assert found
    named = [span for span in SPANS if span.endswith("_source")]
    assert len(named) == 2
    for source in ["bash_source", *named]:
        result = CliRunner().invoke(cli, [], prog_name="mpx", env={found[1]: source})
        assert result.exit_code == 0
        assert f"{found[1]}={source.partition('_')[0]}_complete" in result.stdout


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
    demo, tests = (block.strip().split(" && ") for block in (DEMO, TESTS))
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
    assert after.startswith(f"```bash\n{TESTS}```\n")
    assert TESTS.count("\n") == 1


# What the text names


def test_every_block_is_of_a_kind_that_is_tested_here() -> None:
    """Nothing stands in the README that looks like code and is not run or compared."""
    assert {kind for kind, _ in BLOCKS} == {"", "bash", "crontab", "python", "sql"}
    assert all(line.startswith("mpx ") for block in (OWN_PROJECT, COMMAND_LIST) for line in lines_of(block))


@pytest.mark.parametrize("line", CALLS)
def test_every_line_for_the_shell_parses(line: str) -> None:
    """A command with the options that the README gives it is one that `mpx` takes."""
    words = words_of(line)
    if " ".join(words) not in ALL:  # which is named, with nothing of what it may need
        parsed(words)


def test_every_option_exists() -> None:
    """What the text calls an option is one of some command."""
    pattern = r"--[a-z][a-z0-9-]*"
    named = [word for span in SPANS if span.startswith("--") for word in re.findall(pattern, span)]
    assert len(named) > 10
    assert set(named) <= {word for name in COMMANDS for word in options(name)}


def test_the_environment_is_that_of_the_package() -> None:
    """Every variable that the package reads is explained, and no other."""
    assert variables(ROOT / "README.md") == variables(PACKAGE)


def test_the_memory_of_duckdb_is_as_the_readme_says() -> None:
    """The least and the most that it may use by default are the package's."""
    (named,) = re.findall(r"a quarter of the memory that there is, (\d+) to (\d+) MB", TEXT)
    assert [int(size) * 1_000_000 for size in named] == [_settings._LEAST_MEMORY, _settings._USUAL_MEMORY]


def test_every_promise_names_tests_that_exist() -> None:
    """Each row of the promises has its tests, which are to be found in this folder."""
    defined = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", file.read_text("utf-8"), re.MULTILINE)
    }
    _, table = TEXT.split("| promise | proven by | what it cannot promise |\n|---|---|---|\n")
    rows = list(takewhile(lambda line: line.startswith("|"), table.splitlines()))
    assert len(rows) == 3
    for row in rows:
        named = set(re.findall(r"`(test_\w+)`", row.split(" | ")[1]))
        assert named
        assert named <= defined


def test_every_error_and_name_of_the_api_exists() -> None:
    """Errors and calls in the text are the package's, `ws.…` and `result.…` are attributes that there are."""
    there = {*mixpanel_export.__all__, *dir(builtins)}
    assert {span for span in SPANS if re.fullmatch(r"\w+Error", span)} <= there
    assert {name for span in SPANS for name in re.findall(r"(?<!\.)\b(\w+)\(", span)} <= set(
        mixpanel_export.__all__
    )
    methods = {name for span in SPANS for name in re.findall(r"^\.(\w+)\(\)$", span)}
    assert methods == {"df", "pl", "arrow"} & set(dir(duckdb.DuckDBPyRelation))
    for span in SPANS:
        for owner, name in re.findall(r"\b(ws|result|Workspace)\.(\w+)", span):
            kind = mixpanel_export.ParallelFetchResult if owner == "result" else mixpanel_export.Workspace
            assert name in dir(kind), span


def test_every_file_and_module_exists() -> None:
    """Links lead to files, headings that are linked are there, benchmarks take their options, stages are modules."""
    for target in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (ROOT / target).is_file(), target
    headings = {
        re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-"): level
        for level, heading in re.findall(r"^(###?) (.*)$", TEXT, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= set(headings)
    for script, words in re.findall(r"`python (benchmarks/\w+\.py)([^`]*)`", TEXT):
        source = (ROOT / script).read_text("utf-8")
        assert all(f'"{word}"' in source for word in re.findall(r"--[a-z-]+", words))
    sessions = re.findall(r"`nox -s (\w+)`", TEXT)
    assert sessions
    assert set(sessions) <= set(
        re.findall(r"^def (\w+)\(session", (ROOT / "noxfile.py").read_text("utf-8"), re.MULTILINE)
    )
    for module in re.findall(r"`python -m (tests[\w.]+)`", TEXT):
        assert ROOT.joinpath(*module.split(".")).with_suffix(".py").is_file(), module
    _, about = TEXT.split(DIAGRAM)
    named = set(re.findall(r"`(_[a-z_]+)`", about)) | set(re.findall(r"\b_[a-z]+", DIAGRAM))
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
