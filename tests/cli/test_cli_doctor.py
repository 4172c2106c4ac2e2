"""`mpx doctor`: it finds each problem, prints a remedy, and changes nothing."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import duckdb
import pytest
from anyio.from_thread import start_blocking_portal
from click.testing import CliRunner, Result
from support import export, simulator

from mixpanel_export._local import doctor as _doctor
from mixpanel_export._local.doctor import Finding, check_program, finding_of, server_findings
from mixpanel_export._quota.clock import system_clock
from mixpanel_export._quota.file import quota_file
from mixpanel_export._quota.shared import Key, SharedQuota
from mixpanel_export._source.reach import ServerProbe
from mixpanel_export.cli import cli
from mixpanel_export.errors import MixpanelDataError

SECRET = "s3cr3t-V4lue"
CONFIG = f'default = "main"\n[accounts.main]\nusername = "svc.main"\nsecret = "{SECRET}"\nproject_id = "7"\n'
DAY = {"first": "2024-03-01", "last": "2024-03-02"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with an account that is in order, and nothing else configured."""
    for name in list(os.environ):
        if name.startswith(("MP_", "MPX_")) and name != "MPX_STATE_DIR":
            monkeypatch.delenv(name)
    for name in ("HTTPS_PROXY", "ALL_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    config = tmp_path / "config.toml"
    config.write_text(CONFIG, encoding="utf-8")
    config.chmod(0o600)
    monkeypatch.setenv("MP_CONFIG_PATH", str(config))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def db(folder: Path) -> Path:
    """A file with two days of events."""
    path = folder / "mixpanel.duckdb"
    anyio.run(lambda: export(simulator(), path, *DAY.values()))
    return path


def mpx(*words: str) -> Result:
    """Run `mpx doctor` in this process; a traceback is a failure of the test, and so is a secret."""
    result = CliRunner().invoke(cli, ["doctor", *words], prog_name="mpx")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert SECRET not in result.output
    return result


class Report(NamedTuple):
    """The findings by topic, and the exit code."""

    findings: dict[str, list[Finding]]
    exit_code: int

    def only(self, topic: str) -> Finding:
        (found,) = self.findings[topic]
        return found

    def wrong(self) -> list[Finding]:
        return [found for topic in self.findings.values() for found in topic if found.state != "ok"]


def report(*words: str, offline: bool = True) -> Report:
    """Return what the command finds; without the network, unless the test is about the network."""
    result = mpx("--json", *(["--offline"] if offline else []), *words)
    printed = json.loads(result.stdout)
    assert list(printed) == ["ok", "findings"]
    assert printed["ok"] == (result.exit_code == 0)
    findings: dict[str, list[Finding]] = {}
    for found in printed["findings"]:
        assert list(found) == ["topic", "state", "text", "advice"]
        findings.setdefault(found["topic"], []).append(Finding(**found))
    return Report(findings, result.exit_code)


def change(path: Path, sql: str) -> None:
    with closing(duckdb.connect(str(path))) as connection:
        connection.execute(sql)


@contextmanager
def served() -> Iterator[str]:
    sim = simulator()
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(sim.serve()) as url:
        yield url
    assert sim.requests == []


def test_where_all_is_well_it_says_so(db: Path) -> None:
    """One line for each topic; the quota is not used, and nothing is created or changed."""
    before = db.read_bytes()
    with served() as url:
        result = mpx("--api-url", url)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[-1] == "No problems found."
    topics = [line[9:20].rstrip() for line in lines[:-1] if not line.startswith(" ")]
    assert topics == [
        "program",
        "libraries",
        "credentials",
        "server",
        "clock",
        "disk",
        "database",
        "quota",
        "queries",
    ]
    assert {line[:7] for line in lines[:-1]} == {"ok     ", "       "}
    assert "\x1b" not in result.output
    assert db.read_bytes() == before
    assert not quota_file().exists()


def test_what_is_found_says_what_there_is(db: Path) -> None:
    """It can be pasted into a request for help: versions, the source of the account, and the size of the file."""
    found = report()
    assert found.only("program").text.startswith(f"mpx-export {metadata.version('mpx-export')}, Python 3.")
    assert f"duckdb {duckdb.__version__}" in found.only("libraries").text
    account = found.only("credentials")
    assert account.text == f"account main in {db.parent / 'config.toml'}: svc.main, project 7, us"
    assert "mpx accounts test" in (account.advice or "")
    assert found.only("server").text == "not checked, because of --offline"
    assert "clock" not in found.findings
    assert "1 table, storage version v1.2.0" in found.only("database").text
    assert (
        found.only("quota").text == f"60 of 60 requests left this hour, 0 used, according to {quota_file()}"
    )


def test_without_network_the_rest_is_still_looked_at() -> None:
    """A server that does not respond is one problem, with the advice of an export."""
    found = report("--api-url", "http://127.0.0.1:1", offline=False)
    server = found.only("server")
    assert (found.exit_code, server.state) == (1, "problem")
    assert server.text.startswith("cannot connect to 127.0.0.1")
    assert "API URL" in (server.advice or "")
    assert found.wrong() == [server]
    assert {"database", "quota"} <= set(found.findings)


def test_a_url_that_is_none_is_a_problem() -> None:
    """Settings that cannot be used are reported like any other problem."""
    found = report("--api-url", "http://mixpanel.example", offline=False)
    assert found.only("server").state == "problem"
    assert found.only("quota").state == "problem"


# Credentials


@pytest.mark.parametrize(
    "words, text",
    [((), "there are no credentials"), (("--account", "nobody"), "there is no account 'nobody'")],
)
def test_no_credentials_are_a_problem(words: tuple[str, ...], text: str, folder: Path) -> None:
    """Then the region comes from the environment, and the quota file is checked without a project."""
    (folder / "config.toml").unlink()
    found = report(*words)
    problem = found.only("credentials")
    assert (found.exit_code, problem.state) == (1, "problem")
    assert problem.text.startswith(text)
    assert found.only("quota").text == f"{quota_file()} is usable"


def test_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The account in the environment comes first, and a project secret in it causes a warning."""
    monkeypatch.setenv("MP_SECRET", SECRET)
    monkeypatch.setenv("MP_PROJECT_ID", "5")
    account, warning = report().findings["credentials"]
    assert account.text.startswith(
        "MP_USERNAME and MP_SECRET in the environment: a project secret, project 5"
    )
    assert (warning.state, "2027-03-03" in (warning.advice or "")) == ("warning", True)
    monkeypatch.setenv("MPX_PREFER", "account")
    assert report("--account", "main").only("credentials").text.startswith("account main in ")


@pytest.mark.skipif(os.name != "posix", reason="only POSIX has these bits")
def test_a_file_that_others_may_read_is_a_warning(folder: Path) -> None:
    """A warning is not a problem, and includes the command that fixes it."""
    (folder / "config.toml").chmod(0o644)
    found = report()
    warning = found.findings["credentials"][1]
    assert (found.exit_code, warning.state) == (0, "warning")
    assert warning.advice == f"run `chmod 600 {folder / 'config.toml'}`"
    assert mpx("--offline").stdout.splitlines()[-1] == "1 warning"


# The clock


def reached(ahead: float | None, **changes: Any) -> ServerProbe:
    usual: dict[str, Any] = {
        "server": "https://x",
        "status": 404,
        "seconds": 0.25,
        "tls": "TLSv1.3",
        "proxy": None,
        "ahead": ahead,
        "uncertainty": 0.6,
    }
    return ServerProbe(**(usual | changes))


@pytest.mark.parametrize(
    "ahead, state, text",
    [
        (0.4, "ok", "within 6 s of the server's clock"),
        (-5.5, "ok", "within 6 s of the server's clock"),
        (5.7, "warning", "6 s ahead of the server's clock"),
        (-3600.0, "warning", "3600 s behind the server's clock"),
        (None, "ok", "not compared, because the server does not send the time"),
    ],
)
def test_a_clock_that_is_wrong_is_a_warning(ahead: float | None, state: str, text: str) -> None:
    """A difference of more than a few seconds, beyond the uncertainty of the comparison, is a warning."""
    _, clock = server_findings(reached(ahead))
    assert (clock.topic, clock.state, clock.text) == ("clock", state, text)
    assert (clock.advice is None) == (state == "ok")


def test_the_way_to_the_server_is_told() -> None:
    """The output has TLS and the proxy, because these differ between networks."""
    server, _ = server_findings(reached(None))
    assert server.text == "https://x responds (TLSv1.3, without a proxy, status 404 after 0.25 s)"
    server, _ = server_findings(reached(None, tls=None, proxy="10.0.0.1:3128"))
    assert "no TLS, through the proxy 10.0.0.1:3128" in server.text


# The database


def test_a_file_that_is_not_there_yet_is_no_problem(folder: Path) -> None:
    """An export creates it; the doctor does not."""
    found = report()
    assert found.only("database").text == "mixpanel.duckdb does not exist yet"
    assert not (folder / "mixpanel.duckdb").exists()


def broken(path: Path) -> None:
    path.write_bytes(b"no database" * 1000)


def short_of_rows(path: Path) -> None:
    change(path, "DELETE FROM events WHERE distinct_id = (SELECT max(distinct_id) FROM events)")


def short_of_filtered_rows(path: Path) -> None:
    change(path, """UPDATE _export_batches SET "where" = 'properties["$region"] == "x"'""")
    short_of_rows(path)


def with_strange_rows(path: Path) -> None:
    change(path, "UPDATE events SET export_batch = 99 WHERE export_batch = 1")


def of_another_release(path: Path) -> None:
    change(path, "COMMENT ON TABLE _export_batches IS 'mixpanel_export ledger 99'")


@pytest.mark.parametrize(
    "harm, text, advice",
    [
        (broken, "not a DuckDB database", "choose another path"),
        (short_of_rows, "had 43 rows when it was exported, and now has 42", "append"),
        (short_of_filtered_rows, "now has 42", """--where 'properties["$region"] == "x"'"""),
        (with_strange_rows, "43 rows", "delete these rows"),
        (of_another_release, "99", "update mpx-export"),
    ],
)
def test_what_is_wrong_with_a_file_is_a_problem(
    harm: Callable[[Path], None], text: str, advice: str, db: Path
) -> None:
    """The problem and the advice are those of an export, before any export fails because of it."""
    harm(db)
    found = report()
    (problem,) = found.wrong()
    assert (found.exit_code, problem.topic, problem.state) == (1, "database", "problem")
    assert text in problem.text
    assert advice in (problem.advice or "")


def test_a_table_that_was_dropped_and_others_tables_are_no_matter(db: Path) -> None:
    """Ledger rows of a dropped table and the user's own tables are not problems."""
    change(db, "DROP TABLE events; CREATE TABLE mine AS SELECT 1 AS one")
    assert report().wrong() == []


def test_mixpanel_datas_table_is_a_warning(db: Path) -> None:
    """Nothing can be appended to such a table, so the user is warned before an export fails."""
    columns = "event_name VARCHAR, event_time TIMESTAMP, distinct_id VARCHAR, insert_id VARCHAR PRIMARY KEY"
    change(db, f"CREATE TABLE old ({columns}, properties JSON)")
    (warning,) = report().wrong()
    assert (warning.state, "table old was created by mixpanel_data" in warning.text) == ("warning", True)
    (table,) = [db.with_name("alone.duckdb")]
    change(table, f"CREATE TABLE old ({columns}, properties JSON)")
    assert [found.state for found in report(str(table)).wrong()] == ["warning"]


def test_an_old_storage_version_is_a_warning(folder: Path) -> None:
    """Such a file works, but is several times as large."""
    path = folder / "old.duckdb"
    with closing(duckdb.connect()) as connection:
        connection.execute(f"ATTACH '{path}' AS old (STORAGE_VERSION 'v1.0.0')")
    (warning,) = report(str(path)).wrong()
    assert "older than 1.2" in warning.text
    assert warning.advice == "export into a new file"


def test_who_holds_the_file_is_a_warning(db: Path) -> None:
    """A running export is not a problem, and the process is named."""
    code = "import sys, duckdb; c = duckdb.connect(sys.argv[1]); print(flush=True); sys.stdin.read()"
    words = [sys.executable, "-c", code, str(db)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        found = report()
        assert holder.stdin is not None
        holder.stdin.close()
    (warning,) = found.wrong()
    assert (found.exit_code, warning.topic, warning.state) == (0, "database", "warning")
    if sys.platform != "win32":  # where DuckDB does not tell
        assert f"is in use by process {holder.pid}" in warning.text


def test_a_folder_that_is_not_there_is_a_problem(folder: Path) -> None:
    """Exports create files, but not folders."""
    found = report(str(folder / "nowhere" / "x.duckdb"))
    assert found.only("database").advice == "create it, or choose another path"
    assert (found.exit_code, "disk" in found.findings) == (1, False)


def test_a_disk_without_room_or_leave_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little space is a warning; a missing write permission is a problem."""
    usage = shutil.disk_usage(Path.cwd())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=500_000_000))
    low = report().only("disk")
    assert (low.state, low.text.startswith("500.0 MB free in ")) == ("warning", True)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert report().only("disk").state == "problem"


# The quota file


def test_a_spent_hour_is_a_warning() -> None:
    """The warning says when an export would continue."""
    clock = system_clock()
    half_an_hour_ago = clock()._replace(elapsed=clock().elapsed - 1800, wall=clock().wall - 1800)
    quota = SharedQuota(Key("data.mixpanel.com", "7"), 0, 0, clock=lambda: half_an_hour_ago)
    for _ in range(60):
        assert quota.take_slot().ticket
    warning = report().only("quota")
    assert warning.state == "warning"
    assert warning.text.startswith("0 of 60 requests left this hour")
    assert warning.advice == "an export would wait 30 min; see `mpx quota`"


def test_a_project_without_a_limit_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is that of an export."""
    monkeypatch.setenv("MPX_PER_HOUR", "0")
    assert report().only("quota").text.startswith("no hourly limit on requests, 0 used")
    assert report("--per-hour", "5").only("quota").text.startswith("5 of 5 requests left")


def test_a_quota_file_that_cannot_be_used_is_a_warning() -> None:
    """Exports work without the file, but two at the same time would not know about each other."""
    quota_file().mkdir(parents=True)
    warning = report().only("quota")
    assert (warning.state, "cannot be used" in warning.text) == ("warning", True)
    assert "run one export of a project at a time" in f"{warning.text} {warning.advice}"


# The program


def test_a_library_that_is_too_old_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that was downgraded or removed without pip is reported with the command that fixes it."""
    versions = {"mpx-export": "0.1.0", "duckdb": "1.2.9", "anyio": "4.10.0rc1", "click": "8.1"}

    def known(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    needed = ["duckdb>=2.0", "httpx[http2]>=0.28", "anyio>=4.9", "tzdata", "pandas>=2.2; extra == 'pandas'"]
    # What is installed beside the tests cannot be changed by one of them.
    monkeypatch.setattr(_doctor, "version", known)
    monkeypatch.setattr(_doctor, "requires", lambda _: needed)
    program, libraries, *problems = check_program()
    assert program.text.startswith("mpx-export 0.1.0, Python ")
    assert libraries.text == "duckdb 1.2.9, anyio 4.10.0rc1, click 8.1"
    assert [problem.text for problem in problems] == [
        "duckdb 2.0 or later is required, but 1.2.9 is installed",
        "httpx 0.28 or later is required, but none is installed",
        "tzdata is required, but none is installed",
    ]
    assert {problem.state for problem in problems} == {"problem"}
    assert all("pip install -U mpx-export" in (problem.advice or "") for problem in problems)
    del versions["mpx-export"]
    assert next(check_program()).text.startswith("mpx-export not installed, ")


def test_what_an_error_says_becomes_text_and_advice() -> None:
    """The reason and the advice of an error are separate; other errors have no advice."""
    error = MixpanelDataError("it broke", advice="mend it; or not")
    assert finding_of("x", "problem", error) == Finding("x", "problem", "it broke", "mend it; or not")
    assert finding_of("x", "problem", ValueError("it broke")).advice is None


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """States are coloured if requested, and NO_COLOR is respected."""
    runner = CliRunner()
    coloured = runner.invoke(cli, ["doctor", "--offline"], color=True)
    assert "\x1b[32mok" in coloured.stdout
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in runner.invoke(cli, ["doctor", "--offline"], color=True).stdout


def test_nobody_else_hears_of_warnings(folder: Path) -> None:
    """A problem that is a finding is not also printed as a warning."""
    (folder / "config.toml").chmod(0o644)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert mpx("--offline").stderr == ""
