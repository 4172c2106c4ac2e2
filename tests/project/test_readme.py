"""README.md and the map of the code are correct: every block runs, and everything that they name exists."""

import builtins
import re
import runpy
import tomllib
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner
from shell import ALL, mpx, parsed, served, words_of
from support import held, query, simulator, truth

import mixpanel_export
from mixpanel_export._planning.planner import plan
from mixpanel_export._quota import retry_policy
from mixpanel_export.cli import COMMANDS, cli
from mixpanel_export.cli.demo import FIRST_DAY, UNUSUAL_SHARE
from mixpanel_export.simulator import Fault, Simulator

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "mixpanel_export"
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
MAP = (PACKAGE / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPANS = re.findall(r"`([^`\n]+)`", BLOCK.sub("", TEXT))
FIRST, LAST = "2024-01-01", "2024-03-30"


def blocks(language: str) -> list[str]:
    return [block for kind, block in BLOCK.findall(TEXT) if kind == language]


# A block more or less, or one in another language, is an error here.
DEMO, SHELL, FIRST_EXPORT, PROFILES, TESTS = blocks("bash")
BLOCKING, ASYNC, PANDAS = blocks("python")
(DEMO_OUTPUT,), (CRONTAB,), (SQL,) = blocks("text"), blocks("crontab"), blocks("sql")
INTERNAL_TABLES = re.findall(
    r"`(\w+)`", "".join(re.findall(r"^\| (`_.*?) \|", MAP.partition("## Internal tables")[2], re.MULTILINE))
)
LINES = [*SHELL.splitlines(), *FIRST_EXPORT.splitlines(), *re.split(r"\n| && ", PROFILES.strip())]


@pytest.fixture
def sim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    """A project whose account the README's line adds, for a user whose working directory is empty."""
    words = words_of(LINES[0])
    options = dict(pairwise(words))
    sim = simulator(
        events_per_day=5,
        profiles=20,
        per_hour=60,
        now=lambda: datetime.now(UTC),
        username=options["--username"],
        project_id=options["--project-id"],
    )
    for name in {*variables_of_the_package(), "NO_COLOR"} - {"MPX_STATE_DIR"}:  # set for each test
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPX_PER_SECOND", "0")
    monkeypatch.setenv("MP_CONFIG_PATH", str(tmp_path / "config.toml"))
    with served(sim) as url:
        monkeypatch.setenv("MPX_API_URL", url)
        monkeypatch.setenv("MP_SECRET", "demo-secret")
        run(LINES[0])
        monkeypatch.delenv("MP_SECRET")
        sim.requests.clear()
        yield sim


def variables(text: str) -> set[str]:
    return set(re.findall(r"\bMPX?_[A-Z_]+", text))


def variables_of_the_package() -> set[str]:
    return {name for file in PACKAGE.rglob("*.py") for name in variables(file.read_text(encoding="utf-8"))}


def run(line: str) -> str:
    """Run a line for the shell, and return its output."""
    result = mpx(*words_of(line))
    assert result.exit_code == 0, result.output
    return result.output


def run_script(block: str) -> dict[str, object]:
    """Run a block as a script, and return its variables."""
    Path("script.py").write_text(block, encoding="utf-8")
    return runpy.run_path("script.py")


def test_the_shell_exports_exactly(sim: Simulator, tmp_path: Path) -> None:
    """The lines add an account, export every event, and print the most frequent one first."""
    _, export, ask = SHELL.splitlines()
    run(export)
    answer = run(ask)
    file = tmp_path / "mixpanel.duckdb"
    assert held(file) == truth(sim, FIRST, LAST)
    (name, events), *_ = query(file, ask.split('"')[1])
    assert re.search(rf"^│ {re.escape(name)} +│ +{events} │$", answer, re.MULTILINE)


def test_the_first_export_is_planned_run_and_shown(sim: Simulator, tmp_path: Path) -> None:
    """The dry run requests nothing; the export is exact; the status has its months."""
    dry_run, export, status = FIRST_EXPORT.splitlines()
    run(dry_run)
    assert sim.requests == []
    assert not (tmp_path / "mixpanel.duckdb").exists()
    run(export)
    assert held(tmp_path / "mixpanel.duckdb") == truth(sim, FIRST, LAST)
    assert {"2024-01", "2024-02", "2024-03"} <= set(run(status).split())


def test_the_blocking_script_exports_exactly(sim: Simulator, tmp_path: Path) -> None:
    """It exports every event; a second run requests nothing."""
    run_script(BLOCKING)
    assert held(tmp_path / "mixpanel.duckdb") == truth(sim, FIRST, LAST)
    requests = len(sim.requests)
    run_script(BLOCKING)
    assert len(sim.requests) == requests


def test_the_async_script_exports_exactly(
    sim: Simulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It exports every event, and prints their number."""
    run_script(ASYNC)
    file = tmp_path / "mixpanel.duckdb"
    assert held(file) == truth(sim, FIRST, LAST)
    assert capsys.readouterr().out == f"{query(file, 'SELECT count(*) FROM events')[0][0]} ()\n"


def test_the_sql_and_the_script_for_pandas_read_an_export(sim: Simulator, tmp_path: Path) -> None:
    """The columns are as listed, the query finds Chrome, and the frame has rows."""
    run_script(BLOCKING)
    file = tmp_path / "mixpanel.duckdb"
    columns = "SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = 'events' ORDER BY column_index"
    listed = ", ".join(f"{name} {kind}" for name, kind in query(file, columns))
    assert SQL.startswith(f"-- events({listed})\n")
    assert any(0 < in_chrome < events for _, events, _, in_chrome in query(file, SQL))
    assert len(run_script(PANDAS)["frame"]) == 5  # type: ignore[arg-type] # variables of a script have any type


def test_the_map_lists_all_internal_tables(sim: Simulator, tmp_path: Path) -> None:
    """After an export, a flattening and a publication, a file has exactly the tables of the list."""
    run_script(BLOCKING)
    run("mpx flatten")
    run("mpx publish lake/events")
    names = [name for (name,) in query(tmp_path / "mixpanel.duckdb", "SELECT name FROM (SHOW TABLES)")]
    assert sorted(name for name in names if name not in {"events", "events_flat"}) == sorted(INTERNAL_TABLES)


def test_profiles_are_joined_with_events(sim: Simulator, tmp_path: Path) -> None:
    """The lines export every profile, and count the events of each plan."""
    run_script(BLOCKING)
    *exports, ask = re.split(r"\n| && ", PROFILES.strip())
    for line in exports:
        run(line)
    answer = run(ask)
    file = tmp_path / "mixpanel.duckdb"
    assert dict(query(file, "SELECT distinct_id, properties FROM profiles")) == sim.profile_truth()
    counts = query(file, ask.split('"')[1])
    assert sum(events for _, events in counts) > 0
    assert all(
        re.search(rf"^│ {plan or 'NULL'} +│ +{events} │$", answer, re.MULTILINE) for plan, events in counts
    )


def test_the_job_for_cron_is_silent_until_something_fails(sim: Simulator, tmp_path: Path) -> None:
    """It prints nothing if there are new days or none, and one line for a failure; cron would end the line at a plain %."""
    match = re.fullmatch(r"((?:[\d*,/-]+ ){5}) *cd (\S+) && \.venv/bin/(mpx .*)\n", CRONTAB)
    assert match
    assert not re.search(r"(?<!\\)%", match[3])
    assert [run(f"{match[3]} --since -9d"), run(match[3])] == ["", ""]
    first, last = (str(datetime.now(UTC).date() - timedelta(days=days)) for days in (9, 1))
    assert held(tmp_path / "mixpanel.duckdb") == truth(sim, first, last)
    sim.faults = [Fault("401")]
    later = mpx(*words_of(match[3]))
    assert later.exit_code == 3
    assert len(later.output.splitlines()) == 1


def test_the_demo_prints_what_the_readme_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The words are those of a small demo, and the number of events is the simulator's."""
    monkeypatch.chdir(tmp_path)
    small, *_ = mpx("demo", "--days", "1", "--events-per-day", "20").stdout.partition("\n\n")
    assert re.sub(r"[\d.,]+", "N", DEMO_OUTPUT.strip()) == re.sub(r"[\d.,]+", "N", small)
    events = sum(
        1 for _ in Simulator(odd=UNUSUAL_SHARE, events_per_day=2000).rows(FIRST_DAY, date(2024, 3, 30))
    )
    assert f" {events:,} events " in DEMO_OUTPUT


def test_both_environments_install_what_exists() -> None:
    """The demo and the tests create an environment and install the project; the groups and extras exist."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    demo, tests = (block.strip().split(" && ") for block in (DEMO, TESTS))
    venv, pip = "python3 -m venv .venv", ".venv/bin/pip install -q"
    assert demo == [venv, f"{pip} .", ".venv/bin/mpx demo"]
    assert tests[:3] == [venv, f"{pip} --upgrade pip", f"{pip} -e . --group dev"]
    assert "dev" in project["dependency-groups"]
    (extras,) = re.findall(r"pip install '\.\[([\w,]+)\]'", TEXT)
    assert set(extras.split(",")) <= set(project["project"]["optional-dependencies"])


def test_the_test_command_follows_its_marker() -> None:
    """Continuous integration reads the first block after the marker, which is one line."""
    _, after = TEXT.split("<!-- tests -->\n")
    assert after.startswith(f"```bash\n{TESTS}```\n")
    assert TESTS.count("\n") == 1


def test_completion_is_a_script() -> None:
    """The command in the README prints a completion script."""
    (variable, source), *more = re.findall(r'`eval "\$\((\w+)=(\w+) mpx\)"`', TEXT)
    result = CliRunner().invoke(cli, [], prog_name="mpx", env={variable: source})
    assert not more
    assert f"{variable}=bash_complete" in result.stdout


def test_the_readme_is_short() -> None:
    """New users should read it to the end."""
    assert len(TEXT.splitlines()) <= 220


COMMAND_LINES = [*LINES, *(span for span in SPANS if re.match(r"mpx \w", span))]


def test_every_command_is_named() -> None:
    """New users should see each command."""
    named = {name for line in [DEMO, *COMMAND_LINES] for name in re.findall(r"\bmpx (\w+)", line)}
    assert named == set(COMMANDS)


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_every_command_line_parses(line: str) -> None:
    """A line is a command, with arguments that it accepts if there are any."""
    words = words_of(line)
    if " ".join(words) not in ALL:
        parsed(words)


def test_every_option_exists() -> None:
    """Each is an option of some command."""
    options = {word for command in ALL.values() for option in command.params for word in option.opts}
    named = {word for span in SPANS if span.startswith("--") for word in re.findall(r"--[a-z][a-z-]*", span)}
    assert len(named) > 10
    assert named <= options | {"--help"}


def test_every_variable_is_explained() -> None:
    """README.md, or a help text that it names, has each variable that the package reads, and no other."""
    pages = {span.removesuffix(" --help") for span in SPANS if re.fullmatch(r"mpx [\w ]+ --help", span)}
    helps = [mpx(*words_of(page), "--help", given=None).stdout for page in pages]
    assert pages
    assert variables(" ".join([TEXT, *helps])) == variables_of_the_package()


def test_every_name_of_the_api_exists() -> None:
    """Errors are public, and attributes of `Workspace` and of results exist."""
    public = {*mixpanel_export.__all__, *dir(builtins)}
    assert {span for span in SPANS if re.fullmatch(r"\w+Error", span)} <= public
    kinds = {"result": mixpanel_export.ParallelFetchResult, "workspace": mixpanel_export.Workspace}
    for owner, name in re.findall(r"\b(result|workspace)\.(\w+)", " ".join(SPANS).lower()):
        assert name in dir(kinds[owner]), name


@pytest.mark.parametrize("page", ["README.md", "mixpanel_export/README.md"])
def test_every_link_leads_to_a_file(page: str) -> None:
    """Relative links, from the folder of the page."""
    for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text(encoding="utf-8")):
        assert (ROOT / page).parent.joinpath(target).is_file(), target


def test_the_retry_policy_stands_once() -> None:
    """The table is only in the module that implements the policy."""
    header = r"\| an attempt failed with .*\n(?:\|.*\n)+"
    (table,) = re.findall(header, TEXT)
    assert re.findall(header, retry_policy.__doc__ or "") == [table]


def test_ranges_are_planned_as_the_readme_says() -> None:
    """The numbers of requests are those of a new file with the usual quota."""
    plans = re.search(r"mpx plans few requests: ([^;]*);", TEXT)
    numbers = re.findall(r"(\d+) for (\d+)", plans[1] if plans else "")
    assert len(numbers) == 3
    for requests, days in numbers:
        last = date.fromordinal(date(2023, 1, 1).toordinal() + int(days) - 1)
        planned = plan(date(2023, 1, 1), last, skip_complete=False, first_open_day=date(2024, 6, 1))
        assert len(planned.chunks) == int(requests)


def test_the_map_has_every_module() -> None:
    """Each folder has a row that names its modules; modules at the top are named too. Nothing else is."""
    rows = dict(re.findall(r"^\| `(?:cli/|integrations/)?(\w+)/` \|.*\|(.*)\|$", MAP, re.MULTILINE))
    folders = {path.parent for path in PACKAGE.rglob("*/*.py")}
    assert set(rows) == {folder.name for folder in folders}
    for folder in folders:
        assert set(re.findall(r"`(\w+)`", rows[folder.name])) == modules(folder), folder.name
    top = " ".join(re.findall(r"^\| (`.*)$", MAP, re.MULTILINE))
    assert modules(PACKAGE) <= set(re.findall(r"`(\w+)`", top))


def modules(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__"}


def test_every_place_on_the_map_exists() -> None:
    """Paths and attributes such as `_quota/gate.py` or `_model.Batch` exist."""
    for folder, module in re.findall(r"`(\w+)/(\w+)\.py`", MAP):
        assert (PACKAGE / folder / f"{module}.py").is_file(), module
    for module, name in re.findall(r"`(\w+)\.(\w+)`", MAP):
        if name != "py":
            source = next(PACKAGE.rglob(f"{module}.py")).read_text(encoding="utf-8")
            assert re.search(rf"^(?:async )?(?:class|def) {name}\b", source, re.MULTILINE), name
