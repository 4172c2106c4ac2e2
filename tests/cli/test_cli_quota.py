"""`mpx quota`: the project that an export would use, the requests left in its hour, and when more become free."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mixpanel_export._quota.clock import Moment, system_clock
from mixpanel_export._quota.file import quota_file
from mixpanel_export._quota.shared import Key, SharedQuota
from mixpanel_export.cli import cli

US, EU = "data.mixpanel.com", "data-eu.mixpanel.com"
PURPOSE = "export into table events of app.duckdb"
ACCOUNT = '[accounts.main]\nusername = "u"\nsecret = "s"\nproject_id = "777"\nregion = "eu"\n'


@pytest.fixture(autouse=True)
def _nothing_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("MP_", "MPX_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MPX_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("MP_CONFIG_PATH", str(tmp_path / "config.toml"))


def mpx(*words: str) -> Result:
    """Run `mpx quota` in this process; a traceback is a failure of the test."""
    result = CliRunner().invoke(cli, ["quota", *words], prog_name="mpx")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def shown(*words: str) -> list[tuple[str, str]]:
    """Return the lines of standard output by their labels."""
    result = mpx(*words)
    assert (result.exit_code, result.stderr) == (0, "")
    return [(line[:7].rstrip(), line[7:].strip()) for line in result.stdout.splitlines()]


def as_json(*words: str) -> dict[str, Any]:
    result = mpx(*words, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    printed: dict[str, Any] = json.loads(result.stdout)
    return printed


def use(requests: int, ago: float = 0.0) -> None:
    """Let this process have made *requests*, *ago* seconds ago."""
    clock = system_clock()

    def earlier() -> Moment:
        now = clock()
        return Moment(now.boot, now.elapsed - ago, now.wall - ago)

    quota = SharedQuota(Key(US, "12345"), 0, 0, clock=earlier, purpose=PURPOSE)
    for _ in range(requests):
        assert quota.take_slot().ticket


def test_where_nothing_was_asked_all_is_left() -> None:
    """Nothing is running, there is no file, and no secret is needed."""
    assert shown("--project", "12345") == [
        ("project", f"12345 on {US}"),
        ("running", "nothing on this machine"),
        ("left", "60 of 60 requests this hour"),
        ("queries", "60 of 60 requests this hour"),
    ]
    assert not quota_file().exists()


def test_it_shows_what_is_left_who_used_it_and_when_more_comes() -> None:
    """Requests are counted by purpose, and each is available again an hour later."""
    use(2, ago=1805.0)
    use(1, ago=5.0)
    lines = dict(shown("--project", "12345"))
    assert lines["left"] == "57 of 60 requests this hour"
    assert lines["used"].startswith("3 by export into table events of app.duckdb")
    assert lines["more"].startswith("from ")
    assert "(in 30 min), all by " in lines["more"]
    assert lines["more"].endswith("(in 60 min)")
    assert "paused" not in lines


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no harmless way to ask for a process")
def test_a_process_is_running_or_ended() -> None:
    """The process that used the hour may have ended, but its requests still count."""
    code = (
        "from mixpanel_export._quota.shared import Key, SharedQuota\n"
        f"SharedQuota(Key({US!r}, '12345')).take_slot()\n"
        "import os; print(os.getpid())\n"
    )
    gone = int(subprocess.check_output([sys.executable, "-c", code], text=True))
    used = ("used", "1 by a program (ended)")
    assert {used, ("running", "nothing on this machine")} <= set(shown("--project", "12345"))
    use(1)
    lines = shown("--project", "12345")
    assert {used, ("used", f"1 by {PURPOSE} (process {os.getpid()}, running)")} <= set(lines)
    (running,) = [value for name, value in lines if name == "running"]
    assert re.fullmatch(rf"{PURPOSE} since \d\d:\d\d \(process {os.getpid()}\)", running)
    processes = as_json("--project", "12345")["processes"]
    assert all(0 <= process.pop("seconds_since_first") < 3600 for process in processes)
    assert processes == [
        {"pid": gone, "requests": 1, "running": False, "purpose": None},
        {"pid": os.getpid(), "requests": 1, "running": True, "purpose": PURPOSE},
    ]


def test_requests_of_an_earlier_boot_are_nobodys() -> None:
    """After a restart of the machine, process ids mean nothing, but the hour continues."""
    clock = system_clock()
    earlier = SharedQuota(Key(US, "12345"), clock=lambda: clock()._replace(boot="another"))
    assert earlier.take_slot().ticket
    assert ("used", "1 by processes before the last restart of the machine") in shown("--project", "12345")
    (process,) = as_json("--project", "12345")["processes"]
    assert (process["pid"], process["requests"], process["running"]) == (None, 1, False)


def test_a_pause_is_shown_with_its_end() -> None:
    """During a pause that Mixpanel requested, the remaining quota cannot be used."""
    SharedQuota(Key(US, "12345")).pause(600.0)
    lines = dict(shown("--project", "12345"))
    assert lines["left"] == "60 of 60 requests this hour"
    assert lines["paused"].startswith("until ")
    assert "(in 10 min)" in lines["paused"]


def test_json_has_the_same_in_seconds() -> None:
    """It has all keys, in order, with numbers that do not depend on a clock."""
    use(2, ago=1805.0)
    printed = as_json("--project", "12345", "--per-hour", "2")
    assert list(printed) == [
        "host",
        "project_id",
        "per_hour",
        "left",
        "used",
        "wait_seconds",
        "pause_seconds",
        "more_in_seconds",
        "processes",
        "queries",
    ]
    assert (printed["host"], printed["project_id"], printed["per_hour"]) == (US, "12345", 2)
    assert (printed["left"], printed["used"], printed["pause_seconds"]) == (0, 2, 0.0)
    assert printed["wait_seconds"] == pytest.approx(1800, abs=60)
    assert printed["more_in_seconds"] == pytest.approx([1800, 1800], abs=60)


def test_queries_have_a_quota_of_their_own() -> None:
    """Event counts and profiles share a quota, which is separate from that of exports."""
    use(2)
    queries = SharedQuota(Key("mixpanel.com", "12345", "query"), 0, 60)
    assert queries.take_slot().ticket
    lines = shown("--project", "12345")
    names = [name for name, _ in lines if name != "running"]
    assert names == ["project", "left", "used", "more", "queries", "used", "more"]
    assert [value for _, value in lines if "60 requests" in value] == [
        "58 of 60 requests this hour",
        "59 of 60 requests this hour",
    ]
    printed = as_json("--project", "12345")["queries"]
    assert (printed["host"], printed["left"], printed["used"]) == ("mixpanel.com", 59, 1)


def test_the_environment_limits_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    """`MPX_QUERY_PER_HOUR` limits only queries."""
    monkeypatch.setenv("MPX_QUERY_PER_HOUR", "7")
    lines = dict(shown("--project", "12345"))
    assert (lines["left"], lines["queries"]) == ("60 of 60 requests this hour", "7 of 7 requests this hour")


def test_without_a_limit_nothing_has_to_come_back() -> None:
    """A limit of 0 means no limit; the used requests are still shown."""
    use(1)
    lines = dict(shown("--project", "12345", "--per-hour", "0"))
    assert lines["left"] == "no limit; 1 used in the last hour"
    assert "more" not in lines


def configured(path: Path, _: pytest.MonkeyPatch) -> None:
    path.write_text('default = "main"\n' + ACCOUNT, encoding="utf-8")
    path.chmod(0o600)


def in_environment(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("USERNAME", "u"), ("SECRET", "s"), ("PROJECT_ID", "888"), ("REGION", "in")):
        monkeypatch.setenv(f"MP_{name}", value)


def project_alone(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MP_PROJECT_ID", "999")
    monkeypatch.setenv("MP_REGION", "EU")


def nothing(_: Path, __: pytest.MonkeyPatch) -> None:
    pass


@pytest.mark.parametrize(
    "there, words, host, project",
    [
        (configured, "", EU, "777"),
        (configured, "--project 5", EU, "5"),
        (configured, "--project-id 5 --region us", US, "5"),
        (configured, "--account main", EU, "777"),
        (in_environment, "", "data-in.mixpanel.com", "888"),
        (project_alone, "", EU, "999"),
        (nothing, "--project 5", US, "5"),
        (nothing, "--project 5 --region EU", EU, "5"),
        (nothing, "--project 5 --api-url http://127.0.0.1:8080", "127.0.0.1:8080", "5"),
    ],
)
def test_the_project_is_the_one_that_an_export_takes(
    there: Callable[[Path, pytest.MonkeyPatch], None],
    words: str,
    host: str,
    project: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Options take precedence over the environment and the file; without credentials, the project is enough."""
    there(tmp_path / "config.toml", monkeypatch)
    printed = as_json(*words.split())
    assert (printed["host"], printed["project_id"]) == (host, project)


@pytest.mark.parametrize(
    "words, code, text",
    [
        ("", 3, "MP_PROJECT_ID"),
        ("--project 5 --account main", 4, "'main'"),
        ("--project 5 --region mars", 3, "'mars'"),
        ("--project ../5", 3, "'../5'"),
        ("--project 5 --per-hour -1", 2, "-1"),
    ],
)
def test_what_names_no_project_is_one_line(words: str, code: int, text: str) -> None:
    """Invalid options and missing settings cause the same errors as in an export."""
    result = mpx(*words.split())
    assert result.exit_code == code
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert text in line


def test_a_file_that_cannot_be_used_is_one_line() -> None:
    """The warning is for people; the output is what this process knows, namely nothing."""
    quota_file().mkdir(parents=True)
    result = mpx("--project", "5")
    assert result.exit_code == 0
    assert "60 of 60" in result.stdout
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"Warning: the quota file {quota_file()} cannot be used")
