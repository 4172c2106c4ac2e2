"""`mpx simulate`: what it serves and prints, and which arguments it rejects."""

import dataclasses
import gzip
import re
import signal
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import get_args, get_type_hints

import httpx
import pytest
from anyio.from_thread import start_blocking_portal
from click.testing import CliRunner, Result
from support import query, simulator

from mixpanel_export.cli import cli
from mixpanel_export.cli.simulate import EXAMPLES, command
from mixpanel_export.simulator import Fault
from mixpanel_export.simulator.events import Profile
from mixpanel_export.simulator.fault_file import read_faults
from mixpanel_export.simulator.faults import Kind, PageKind

WEEK = ["--from", "2024-03-01", "--to", "2024-03-07"]
MPX = [sys.executable, "-c", "from mixpanel_export.cli import main; main()"]
ACCOUNT = ("demo.mp-service-account", "demo-secret")
DAYS = {"from_date": "2024-03-01", "to_date": "2024-03-02", "project_id": "12345"}


def mpx(*words: str) -> Result:
    """Run `mpx` in this process; a traceback is a failure of the test."""
    result = CliRunner().invoke(cli, words, prog_name="mpx")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def mistake(*words: str) -> str:
    """Return the one line that `mpx simulate` prints for invalid usage."""
    result = mpx("simulate", *words)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert not result.stdout
    assert line.endswith(" See 'mpx simulate --help'.")
    return line.removesuffix(" See 'mpx simulate --help'.")


@contextmanager
def running(*words: str) -> Iterator[dict[str, str]]:
    """Run `mpx simulate` on a free port, yield the settings that it prints, and end it by Ctrl-C."""
    with subprocess.Popen(
        [*MPX, "simulate", "--port", "0", "--per-second", "0", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        settings: dict[str, str] = {}
        for line in iter(process.stdout.readline, ""):
            if found := re.match(r"(?:export |\$env:)(\w+) ?= ?'?([^'\s]+)", line):
                settings[found[1]] = found[2]
            elif settings:
                break
        try:
            yield settings
        finally:
            process.send_signal(signal.SIGINT)
            said = process.stderr.read()
    assert (process.returncode, said) == (0, "Stopped.\n")


def get(settings: dict[str, str], **params: str) -> httpx.Response:
    """Ask once for two days."""
    return httpx.get(settings["MPX_API_URL"] + "/api/2.0/export", params=DAYS | params, auth=ACCOUNT)


def test_simulate_prints_what_another_terminal_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the printed lines, an export finds the events; Ctrl-C ends the simulator successfully."""
    with running("--events-per-day", "20", "--first-day", "2024-03-02", "--days", "2") as settings:
        assert set(settings) == {"MPX_API_URL", "MP_USERNAME", "MP_SECRET", "MP_PROJECT_ID"}
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        db = tmp_path / "x.duckdb"
        result = mpx("export", *WEEK, "--db", str(db), "--json", "-q")
    assert result.exit_code == 0
    days = query(db, "SELECT DISTINCT event_time::DATE FROM events WHERE event_time IS NOT NULL ORDER BY 1")
    assert days == [(date(2024, 3, 2),), (date(2024, 3, 3),)]


def test_simulate_says_when_the_port_is_taken() -> None:
    """A second simulator on the same port fails with one line."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(simulator().serve()) as url,
    ):
        port = url.rpartition(":")[2]
        result = mpx("simulate", "--port", port)
    assert result.exit_code == 1
    assert result.stderr == f"Error: port {port} is in use; choose another with --port, or 0 for any\n"


def test_faults_come_from_a_file(tmp_path: Path) -> None:
    """The faults in the file apply to the requests that it describes, and to no others."""
    file = tmp_path / "faults.toml"
    file.write_text(
        """
[[fault]]
kind = "503"
times = 1
text = "gone fishing 🎣"
retry_after = 7
[[fault]]
kind = "terminated_early"
first = 2024-03-01
last = "2024-03-01"
position = 0
newline = false
""",
        encoding="utf-8",
    )
    with running("--faults", str(file), "--events-per-day", "20") as settings:
        first, second, third = (
            get(settings),
            get(settings),
            get(settings, from_date="2024-03-02"),
        )
    assert (first.status_code, first.text, first.headers["retry-after"]) == (503, "gone fishing 🎣", "7")
    assert (second.status_code, second.text) == (200, "terminated early")
    assert (third.status_code, len(third.content.split(b"\n")) > 10) == (200, True)


def test_options_reach_the_simulator() -> None:
    """Rates, framing, limits, plan, secret and zone are those of the command line."""
    words = {
        "--events-per-day": "50",
        "--duplicates": "0",
        "--rejects": "1",
        "--awkward": "0.2",
        "--piece": "100",
        "--gzip-member": "1000",
        "--per-hour": "2",
        "--retry-after": "none",
        "--history-days": "100000",
        "--legacy-secret": "old",
        "--timezone": "US/Pacific",
    }
    with running(*(word for pair in words.items() for word in pair)) as settings:
        url = settings["MPX_API_URL"] + "/api/2.0/export"
        with httpx.stream("GET", url, params=DAYS, auth=ACCOUNT) as response:
            served = b"".join(response.iter_raw())
        legacy = httpx.get(
            url,
            params={name: day for name, day in DAYS.items() if name != "project_id"},
            auth=("old", ""),
        )
        refused = get(settings)
    assert len(zlib.decompressobj(wbits=31).decompress(served)) == 1000
    lines = gzip.decompress(served).split(b"\n")
    assert sum(not line.startswith(b'{"event"') for line in lines) >= 50
    assert legacy.status_code == 200
    assert (refused.status_code, "retry-after" in refused.headers) == (429, False)
    assert settings["MPX_PROJECT_TIMEZONE"] == "US/Pacific"


def test_the_plan_reaches_back_so_many_days() -> None:
    """Earlier days are refused with that number."""
    with running("--history-days", "30") as settings:
        response = get(settings)
    assert (response.status_code, "30 days" in response.text) == (403, True)


def test_a_project_may_have_any_number_of_days() -> None:
    """Days beyond the calendar are not an error."""
    with running("--days", "999999999", "--events-per-day", "20") as settings:
        assert len(get(settings).content) > 1000


@pytest.mark.parametrize(
    "text, message",
    [
        (
            '[[fault]]\nkind = "500"\n[[fault]]\nkid = "500"',
            "fault 2: unknown key kid; the keys are kind, first,",
        ),
        ('[[fault]]\nkind = "5000"', "fault 1: unknown kind '5000'; must be one of 400, 401,"),
        ("[[fault]]\nkind = 500", "fault 1: unknown kind 500; must be one of"),
        ("[[fault]]\ntimes = 1", "fault 1: kind is missing"),
        ('[[fault]]\nkind = "500"\ntimes = true', "fault 1: times must be a whole number, not True"),
        ('[[fault]]\nkind = "500"\ntimes = 1.5', "fault 1: times must be a whole number, not 1.5"),
        ('[[fault]]\nkind = "500"\nseconds = "1"', "fault 1: seconds must be a number, not '1'"),
        ('[[fault]]\nkind = "500"\nseconds = "none"', "fault 1: seconds must be a number, not 'none'"),
        ('[[fault]]\nkind = "500"\ntext = 1', "fault 1: text must be a string, not 1"),
        ('[[fault]]\nkind = "500"\nnewline = 0', "fault 1: newline must be true or false, not 0"),
        ('[[fault]]\nkind = "500"\nfirst = 20240301', "fault 1: first must be a date, not 20240301"),
        (
            '[[fault]]\nkind = "500"\nfirst = "1 March"',
            "fault 1: first must be a date in the form YYYY-MM-DD",
        ),
        ('[[fault]]\nkind = "500"\ndays = 2024-03-01', "fault 1: days must be a list, not"),
        ('[[fault]]\nkind = "500"\ndays = ["x"]', "fault 1: days must be a date in the form YYYY-MM-DD"),
        (
            '[[fault]]\nkind = "500"\nlast = 2024-03-01T00:00:00',
            "fault 1: last must be a date, not a date with",
        ),
        ('[[fault]]\nkind = "500"\nprobability = 2', "fault 1: probability must be between 0 and 1, not 2"),
        ('[[fault]]\nkind = "500"\nstatus = 99', "fault 1: status must be between 200 and 599, not 99"),
        ('[fault]\nkind = "500"', "fault must be written as [[fault]] tables"),
        ("fault = [1]", "fault must be written as [[fault]] tables"),
        (
            "[simulator]\nseed = 1",
            "unknown key simulator; a fault file has only the tables [[fault]], [[query_fault]], [[profile_fault]]",
        ),
        ("[[fault", "Expected ']]'"),
        ("\udcff", "'utf-8' codec can't decode"),
    ],
)
def test_a_wrong_fault_file_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    """A mistake in the file is a usage error that names the entry."""
    file = tmp_path / "faults.toml"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert mistake("--faults", str(file)).startswith(
        f"Error: Invalid value for '--faults': {file}: {message}"
    )


def test_a_fault_file_must_be_there(tmp_path: Path) -> None:
    """A file that does not exist, or is a folder, is a usage error."""
    assert "does not exist" in mistake("--faults", str(tmp_path / "none.toml"))
    assert "is a directory" in mistake("--faults", str(tmp_path))


@pytest.mark.parametrize("name", ["Mars/Olympus", "../passwd", "US", ""])
def test_a_zone_must_be_there(name: str) -> None:
    """An unknown zone is a usage error."""
    assert "there is no time zone" in mistake("--timezone", name)


def test_every_field_can_be_written() -> None:
    """A file may have all keys of a fault, numbers in any notation, and "none" for no value."""
    text = """
[[fault]]
kind = "redirect"
first = 2024-03-01
last = "2024-03-02"
probability = 1
times = 3
after = 2
position = 0
retry_after = "none"
seconds = 5
status = 307
text = "none"
newline = false
location = "http://127.0.0.1:1/"
days = [2024-03-01, "2024-03-02"]
pages = [0, 2]
[[fault]]
kind = "500"
times = "none"
first = "none"
"""
    full, bare = read_faults(text)
    assert full == Fault(
        "redirect",
        date(2024, 3, 1),
        date(2024, 3, 2),
        1,
        3,
        2,
        0,
        None,
        5,
        307,
        "none",
        newline=False,
        location="http://127.0.0.1:1/",
        days=(date(2024, 3, 1), date(2024, 3, 2)),
        pages=(0, 2),
    )
    assert bare == Fault("500")
    assert all(f"\n{name} = " in text for name in get_type_hints(Fault))
    assert read_faults("") == []


def test_profiles_and_their_faults_are_served(tmp_path: Path) -> None:
    """`--profiles` is their number, and tables of the fault file apply to them."""
    file = tmp_path / "faults.toml"
    file.write_text('[[profile_fault]]\nkind = "503"\ntimes = 1\n', encoding="utf-8")
    with running("--profiles", "7", "--faults", str(file)) as settings:
        url = settings["MPX_API_URL"] + "/api/query/engage"
        answers = [httpx.post(url, data={"project_id": "12345"}, auth=ACCOUNT) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [503, 200]
    assert len(answers[1].json()["results"]) == answers[1].json()["total"] == 7


def test_the_content_options_default_to_the_simulators_own() -> None:
    """Without options, `mpx simulate` sends the same as `Simulator()`, so only what Mixpanel documents."""
    fields = {field.name: field.default for field in dataclasses.fields(Profile)}
    defaults = {param.name: param.default for param in command.params if param.name in fields}
    shares = {
        "duplicates",
        "missing_insert_id",
        "late",
        "odd",
        "awkward",
        "rejects",
        "long_lines",
        "leaks",
        "strays",
    }
    assert shares <= set(defaults)
    assert {name: defaults[name] for name in shares} == {name: fields[name] for name in shares}
    assert defaults["odd"] == defaults["awkward"] == 0


def test_help_shows_a_fault_file_and_every_kind() -> None:
    """The example in the help is a valid fault file, and the help has every key and kind."""
    file = EXAMPLES[EXAMPLES.index("[[fault]]") : EXAMPLES.index("For faults in event counts")]
    assert [fault.kind for fault in read_faults(file)] == ["terminated_early", "503"]
    words = set(re.findall(r"\w+", EXAMPLES[EXAMPLES.index("[[fault]]") :]))
    assert words >= {*get_args(Kind), *get_args(PageKind), *get_type_hints(Fault)}


def test_every_line_of_the_help_fits_a_terminal() -> None:
    """No line of the help is wider than 80 characters."""
    result = mpx("simulate", "--help")
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert all(option in result.stdout for parameter in command.params for option in parameter.opts)
