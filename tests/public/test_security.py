"""Security: secrets are never shown, names cannot inject SQL, and a server cannot harm the machine."""

import base64
import gzip
import os
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import anyio
import pytest
import trustme
from anyio.abc import ByteStream
from anyio.from_thread import start_blocking_portal
from examples import examples, slow
from hypothesis import example, given
from hypothesis import strategies as st
from servers import Server, serving
from shell import served
from support import answering, export, held, query, simulator, truth

from mixpanel_export import errors
from mixpanel_export.credentials import Credentials
from mixpanel_export.simulator import Fault
from mixpanel_export.simulator.faults import Kind

USER, SECRET = "svc.mp-service-account", "p4ss-of-nobody-else"
PAIR = f"{USER}:{SECRET}".encode()
SECRETS = {
    SECRET.encode(),
    base64.b64encode(SECRET.encode()),
    base64.urlsafe_b64encode(PAIR),
    base64.b64encode(PAIR),
    base64.b16encode(PAIR),
}
DAY = date(2024, 3, 1)
EVENT = b'{"event":"e","properties":{"time":1709287200,"distinct_id":"d","$insert_id":"i"}}\n'


def found_in(content: bytes) -> set[bytes]:
    """Return which forms of the secret *content* has."""
    return {form for form in SECRETS if form in content}


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "events.duckdb"


# Secrets

# Everything is logged, every failure is shown with all local variables of our own frames, the last one by Python itself.
LEAKY = """
import faulthandler, logging, os, sys, traceback
from datetime import date, timedelta
from pathlib import Path

logging.basicConfig(level=0, filename=sys.argv[2])
for name in ("mixpanel_export", "httpx", "httpcore", "anyio", "asyncio", "hpack", "h2"):
    logging.getLogger(name).setLevel(0)

from mixpanel_export import MixpanelDataError, Workspace
from mixpanel_export.cli import cli

workspace = Workspace(path=sys.argv[1])
print(repr(workspace), vars(workspace))
day = date(2024, 3, 1)
first, single, end = date(2024, 3, 1), int(sys.argv[3]), int(sys.argv[4])
for number in range(single, end):
    day = first + timedelta(number)
    try:
        result = workspace.fetch_events(
            f"t{number}", from_date=day, to_date=day, parallel=number % 2 == 0, retries=0, resume=True
        )
    except MixpanelDataError as error:
        shown = traceback.TracebackException.from_exception(error, capture_locals=True)
        print("".join(shown.format()), repr(error), error.to_dict())
    else:
        print(repr(result), result.to_dict())
workspace.close()
dates = ["--from", str(first), "--to", str(first + timedelta(single - 1)), "--db", sys.argv[1]]
cli(["export", "again", *dates, "--parallel", "--chunk-days", "1", "--retries", "0", "-v"], standalone_mode=False)
Workspace(path=sys.argv[1]).fetch_events("last", from_date=day, to_date=day, retries=0)
"""


def test_a_secret_appears_nowhere(db: Path, tmp_path: Path) -> None:
    """Not in a log at any level, a traceback with its variables, an output, the database, nor any other file.

    A server that repeats it in its answers changes nothing.
    """
    echo = f"you are {SECRET}, or {base64.b64encode(PAIR).decode()}, and that is an error"
    stopping: list[Kind] = []  # the faults that end an export; each has an export of a day to itself
    others: list[Kind] = []
    for kind in get_args(Kind):
        ends = kind.startswith(("auth", "redirect")) or (kind.startswith("4") and kind != "429")
        (stopping if ends else others).append(kind)
    kinds_that_say: list[Kind] = ["500", "400", "401", "error_line"]
    days = [DAY + timedelta(number) for number in range(len(others) + len(stopping) + len(kinds_that_say))]
    faults = [
        *(
            Fault(kind, first=day, last=day, seconds=0.2, retry_after=0, times=1 if kind == "429" else None)
            for kind, day in zip([*others, *stopping], days, strict=False)
        ),
        *(
            Fault(kind, first=day, last=day, text=echo)
            for kind, day in zip(kinds_that_say, days[-4:], strict=True)
        ),
    ]
    sim = simulator(events_per_day=5, username=USER, secret=SECRET, faults=faults)
    log = tmp_path / "all.log"
    with served(sim) as url:
        settings = {
            "MPX_API_URL": url,
            "MP_USERNAME": USER,
            "MP_SECRET": SECRET,
            "MP_PROJECT_ID": "12345",
            "MPX_PER_SECOND": "0",
            "MPX_PER_HOUR": "0",
        }
        done = subprocess.run(
            [sys.executable, "-c", LEAKY, str(db), str(log), str(len(others)), str(len(days))],
            env=os.environ | settings,
            capture_output=True,
            check=False,
        )
    assert b"Traceback" in done.stderr, done.stderr.decode()
    assert len(sim.requests) > len(days)
    assert log.stat().st_size > 10_000
    written = {path: path.read_bytes() for path in _files(tmp_path, Path(os.environ["MPX_STATE_DIR"]))}
    written |= {Path("stdout"): done.stdout, Path("stderr"): done.stderr}
    assert {path: found for path, content in written.items() if (found := found_in(content))} == {}


def _files(*folders: Path) -> Iterator[Path]:
    for folder in folders:
        yield from (path for path in folder.rglob("*") if path.is_file())


@pytest.mark.anyio
async def test_http2_logs_no_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The HTTP/2 library logs no header either, whatever level the application has set."""
    authority = trustme.CA()
    trusted = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(trusted)
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    account = Credentials(USER, SECRET, "12345")
    sim = simulator(username=USER, secret=SECRET)
    with caplog.at_level(0):
        async with serving(authority, Server(sim.transport())) as server:
            url = server.url.removesuffix("/api/2.0/export")
            await export(sim, tmp_path / "a.db", transport=None, api_url=url, http2=True, credentials=account)
    assert set(server.connections) == {"h2"}
    assert "httpcore" in caplog.text
    assert "hpack" not in {record.name.partition(".")[0] for record in caplog.records}
    assert found_in(caplog.text.encode()) == set()


# Names

HOSTILE = [
    "'; DROP TABLE events; --",
    '"; DROP TABLE events; --',
    "a' OR '1'='1",
    "\\",
    "%s",
    "{files}",
    "\x00",
    "\n",
]
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@examples(core=2, full=30)
@given(name=NAMES, where=NAMES, project=st.text("abcXYZ019_-", max_size=8))
@example(name=HOSTILE[0], where=HOSTILE[1], project="")
@example(name=HOSTILE[1], where=HOSTILE[0], project="1")
@example(name=HOSTILE[6], where=HOSTILE[3], project="1")
def test_no_selection_is_sql(name: str, where: str, project: str) -> None:
    """Event names, expressions and projects are stored unchanged in the ledger, and no table is damaged."""
    with TemporaryDirectory() as folder:
        db = Path(folder, "events.duckdb")
        account = Credentials("user", "secret", project or "0")

        async def twice() -> None:
            for mode in ("create", "replace"):
                await export(
                    simulator(),
                    db,
                    transport=answering(lambda _: EVENT),
                    credentials=account,
                    last="2024-03-01",
                    mode=mode,
                    events=[name],
                    where=where,
                )

        anyio.run(twice)
        assert query(db, "SELECT count(*) FROM events") == [(1,)]
        found = query(
            db, "SELECT project, json_extract_string(events, '$[0]'), \"where\" FROM _export_batches"
        )
        assert found == [(project or "0", name, where)]


@pytest.mark.parametrize(
    "table", [*HOSTILE, "", "_export_batches", "a b", "a.b", "é", "a;b", "main.events", "a" * 5 + '"']
)
def test_a_table_is_a_plain_name(table: str, db: Path) -> None:
    """Any other name is rejected before the file is opened."""
    with pytest.raises(ValueError, match="must consist of letters"):
        anyio.run(lambda: export(simulator(), db, table=table))
    assert not db.exists()


@pytest.mark.parametrize("table", ["select", *slow(["TABLE", "events", "0"])])
def test_a_keyword_is_a_name_like_any_other(table: str, db: Path) -> None:
    """Names are quoted everywhere."""
    sim = simulator()
    anyio.run(lambda: export(sim, db, table=table, last="2024-03-02"))
    anyio.run(lambda: export(sim, db, table=table, mode="replace", last="2024-03-03"))
    assert held(db, table) == truth(sim, last="2024-03-03")


QUICK_NAMES = ["it's", "[ab]", "{a,b}", '"']
AWKWARD = [
    "';DROP TABLE events;--",
    "a b",
    "a*b",
    "%41",
    "$HOME",
    "ü-\u2028",
    "-x",
    ":memory:",
    "~",
]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows forbids most of these names")
@pytest.mark.parametrize("name", [QUICK_NAMES[0], *slow([*QUICK_NAMES[1:], *AWKWARD, "a\nb"])])
def test_a_path_is_a_path(name: str, tmp_path: Path) -> None:
    """No character in a path has a meaning in SQL or in a pattern; nothing is written elsewhere."""
    sim = simulator()
    db = tmp_path / f"d{name}" / name
    db.parent.mkdir()
    other = db.parent.parent / "dab"
    other.mkdir(exist_ok=True)
    anyio.run(lambda: export(sim, db, last="2024-03-02"))
    anyio.run(lambda: export(sim, db, mode="resume"))
    assert held(db) == truth(sim)
    assert set(tmp_path.rglob("*")) == {other, db.parent, db}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows forbids these names, or means what DuckDB does")
@pytest.mark.parametrize("name", ["a\\b.duckdb", "..\\b.duckdb", "a?b/c.duckdb", "a?access_mode=read_only"])
def test_a_path_that_duckdb_reads_otherwise_is_refused(name: str, tmp_path: Path) -> None:
    """Nothing is written to the file that DuckDB would use instead."""
    db = tmp_path / name
    (tmp_path / "a").mkdir()
    db.parent.mkdir(exist_ok=True)
    before = set(tmp_path.parent.rglob("*"))
    with pytest.raises(errors.DatabaseError, match="another path"):
        anyio.run(lambda: export(simulator(), db))
    assert set(tmp_path.parent.rglob("*")) == before


@given(project=NAMES.filter(lambda text: not all(c.isascii() and (c.isalnum() or c in "_-") for c in text)))
@example(project="../../x")
@example(project="1' OR '1'='1")
def test_a_project_names_no_other_file(project: str) -> None:
    """The default file is named after the project, so an id that could be a path is rejected."""
    with pytest.raises(errors.ConfigError) as caught:
        Credentials("user", "secret", project)
    assert caught.value.argument == "project_id"


# Servers: what they may cost


PIECE = 64 << 10
HEAD = b"HTTP/1.1 %s\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n%s\r\n"


def chunked(pieces: Iterator[bytes]) -> Iterator[bytes]:
    return (b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)


def without_end(piece: bytes) -> Iterator[bytes]:
    while True:
        yield piece


def inflating(piece: bytes, size: int) -> Iterator[bytes]:
    """Yield gzip that expands to *size* bytes of *piece*; it has about a thousandth of that size."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    for _ in range(size // len(piece)):
        yield from filter(None, [packer.compress(piece)])
    yield packer.flush()


def bomb_of_bombs() -> Iterator[bytes]:
    """Yield gzip of gzip: a million bytes from one."""
    inner = b"".join(inflating(bytes(1 << 20), 512 << 20))
    yield gzip.compress(inner)


GZIP, GZIPS = b"Content-Encoding: gzip\r\n", b"Content-Encoding: gzip, gzip, gzip\r\n"
SERVERS: dict[str, Callable[[], Iterator[bytes]]] = {
    "endless line": lambda: _after(HEAD % (b"200 OK", b""), chunked(without_end(b"x" * PIECE))),
    "one inflated line": lambda: _after(
        HEAD % (b"200 OK", GZIP), chunked(inflating(b"x" * (1 << 20), 512 << 20))
    ),
    "many inflated lines": lambda: _after(
        HEAD % (b"200 OK", GZIP), chunked(inflating(b"no event\n" * (1 << 17), 300 << 20))
    ),
    "endless error": lambda: _after(HEAD % (b"500 X", b""), chunked(without_end(b"x" * PIECE))),
    "inflated error": lambda: _after(HEAD % (b"500 X", GZIP), chunked(inflating(bytes(1 << 20), 512 << 20))),
    "error inflated twice": lambda: _after(HEAD % (b"500 X", GZIPS), chunked(bomb_of_bombs())),
    "inflated twice": lambda: _after(HEAD % (b"200 OK", GZIPS), chunked(bomb_of_bombs())),
    "thousands of headers": lambda: _after(
        b"HTTP/1.1 200 OK\r\n", (b"X-%d: %s\r\n" % (number, b"y" * 1000) for number in range(1_000_000))
    ),
    "endless status line": lambda: without_end(b"HTTP/1.1 200 " + b"O" * PIECE),
    "redirects": lambda: iter(
        [b"HTTP/1.1 302 X\r\nLocation: /api/2.0/export\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"]
    ),
}

QUICK = ["endless line", "inflated error"]
"""The servers of the core run: a response without end, and one that inflates, at each stage."""


def _after(head: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield head
    yield from rest


@asynccontextmanager
async def hostile(answer: Callable[[], Iterator[bytes]]) -> AsyncIterator[str]:
    """Respond to each client for as long as it is connected."""

    async def serve(stream: ByteStream) -> None:
        async with stream:
            try:
                await stream.receive()
                for piece in answer():
                    await stream.send(piece)
            except anyio.BrokenResourceError:
                return  # they do not listen any more

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, serve)
        yield f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
        tasks.cancel_scope.cancel()


MEASURED = """
import re, resource, sys
from pathlib import Path
from mixpanel_export import MixpanelDataError, Workspace

def peak():
    if sys.platform == "linux":  # where the other way counts what the parent had, too
        return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

with Workspace(path=sys.argv[1]) as workspace:
    before = peak()
    workspace.connection
    try:
        workspace.fetch_events(from_date="2024-03-01", to_date="2024-03-01", retries=0)
    except MixpanelDataError as error:
        print(peak() - before, error, sep="\\n")
"""
BOUND = 256 << 20
"""Bytes by which no answer may make a process grow: a line of 64 MiB twice, and what blocks are on their way."""


@pytest.mark.skipif(sys.platform == "win32", reason="there a process cannot ask for its peak")
@pytest.mark.parametrize("server", [*QUICK, *slow(sorted(SERVERS.keys() - QUICK))])
def test_no_server_exhausts_memory(server: str, db: Path) -> None:
    """The response is an error, memory growth is bounded, and nothing is left on the disk."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(hostile(SERVERS[server])) as url,
    ):
        settings = {
            "MPX_API_URL": url,
            "MP_USERNAME": USER,
            "MP_SECRET": SECRET,
            "MP_PROJECT_ID": "1",
            "MPX_PER_SECOND": "0",
            "MPX_PER_HOUR": "0",
        }
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, str(db)],
            env=os.environ | settings,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    grown, said = done.stdout.splitlines()
    assert int(grown) < BOUND
    assert "2024-03-01" in said
    assert list(db.parent.iterdir()) == [db]
    assert query(db, "SELECT count(*) FROM _export_batches WHERE status <> 'failed'") == [(0,)]
