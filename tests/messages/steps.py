"""Steps that cause an error: in the package, in a file, or on the command line."""

import socket
import ssl
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, date, datetime
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import anyio
import duckdb
import httpx
import pytest
from keyring.backend import KeyringBackend
from keyrings import used
from old_files import made, noons
from shell import held_by_another, mpx, served
from support import ACCOUNT, NOW, answering, export, query, simulator

from mixpanel_export import Workspace, upgrade_database
from mixpanel_export._config.system_keyring import store_secret
from mixpanel_export._database.connection import connect
from mixpanel_export._model import Chunk
from mixpanel_export._source.check import check_credentials
from mixpanel_export._source.download import download_events
from mixpanel_export._source.responses import error_from_response
from mixpanel_export.credentials import resolve_credentials
from mixpanel_export.simulator import Fault, Simulator

DAYS = {"from_date": "2024-03-01", "to_date": "2024-03-09"}
WEEK = ("--from", "2024-03-01", "--to", "2024-03-07")
LINE = b'{"event": "a", "properties": {"time": 1709290800, "distinct_id": "u", "$insert_id": "%d"}}\n'
ACCOUNT_TOML = '[accounts.main]\nusername = "svc.1"\nsecret = "s"\nproject_id = "12345"\n'
DEFAULT_ACCOUNT = f'default = "main"\n{ACCOUNT_TOML}'


class Place:
    """An empty folder with its own configuration file, in which a case happens."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.setenv = monkeypatch.setenv
        self.monkeypatch = monkeypatch
        self.db = folder / "events.duckdb"
        self.config = folder / "config.toml"
        self.sim = simulator()

    def configure(self, text: str = ACCOUNT_TOML) -> None:
        self.config.write_text(text, encoding="utf-8")
        self.config.chmod(0o600)

    def export(self, sim: Simulator | None = None, db: Path | str | None = None, **options: Any) -> Any:
        options.setdefault("chunk_days", None)
        run = partial(export, sim or self.sim, db or self.db, **options)  # type: ignore[arg-type] # refused as a path
        return anyio.run(run)

    def failing(self, *faults: Fault, chunk_days: int | None = None, **options: Any) -> Sequence[Exception]:
        """Return the errors of an export that meets *faults*, by one request unless in chunks."""
        sim = simulator(faults=list(faults))
        result = self.export(
            sim, retries=0, max_wait=0.0, chunk_days=chunk_days, one_request=chunk_days is None, **options
        )
        return tuple(result.errors)

    def unreachable(self, error: Exception, **options: Any) -> Sequence[Exception]:
        """Return the errors of an export whose connection fails with *error*."""

        def handle(_: httpx.Request) -> httpx.Response:
            raise error

        return self.failing(transport=httpx.MockTransport(handle), **options)

    def download(self, transport: httpx.MockTransport) -> None:
        """Download two days over *transport*, as `stream_events` does."""
        days = Chunk(date(2024, 3, 1), date(2024, 3, 2))
        call = partial(
            download_events,
            days,
            BytesIO(),
            credentials=ACCOUNT,
            transport=transport,
            api_url="http://127.0.0.1",
        )
        anyio.run(call)

    def workspace(self, **options: Any) -> Workspace:
        return Workspace(path=self.db, credentials=ACCOUNT, **options)


def refused(status: int, body: str) -> Callable[[Place], Sequence[Exception]]:
    """Return a case for Mixpanel's response to a request for two days."""
    days = Chunk(date(2024, 3, 1), date(2024, 3, 2))
    return lambda _: [error_from_response(status, body, None, days, NOW)]


def arguments(**options: Any) -> Callable[[Place], Any]:
    """Return a case for wrong arguments of `export_events`."""
    return lambda place: place.export(**options)


def fetching(**options: Any) -> Callable[[Place], Any]:
    """Return a case for wrong arguments of `Workspace.fetch_events`."""
    return lambda place: place.workspace().fetch_events(**(DAYS | options))


def shell(*words: str, typed: bytes | None = None) -> Callable[[Place], Any]:
    """Return a case for a command line."""
    return lambda _: mpx(*words, given=typed)


@cache
def exported() -> bytes:
    """Return the content of a file with an export of nine days."""
    with TemporaryDirectory() as folder:
        db = Path(folder, "events.duckdb")
        anyio.run(partial(export, simulator(), db, chunk_days=1))
        return db.read_bytes()


def exists(place: Place) -> None:
    """Have an exported table."""
    place.db.write_bytes(exported())


def sql(statements: str) -> Callable[[Place], None]:
    """Return a step that changes the database by hand."""
    return lambda place: (query(place.db, statements), None)[1]


def old_file(place: Place) -> None:
    made(place.db, noons("2024-03-01", 9))


def steps(*cases: Callable[[Place], Any]) -> Callable[[Place], Any]:
    """Return a case with several steps, of which the last one fails."""

    def case(place: Place) -> Any:
        return [step(place) for step in cases][-1]

    return case


def upgraded(place: Place) -> None:
    upgrade_database(place.db)


def forgotten(*ids: str, **options: Any) -> Callable[[Place], Any]:
    """Forget people."""
    return lambda place: place.workspace().forget(*ids, **options)


def flattened(*tables: str, **options: Any) -> Callable[[Place], Any]:
    """Make a flat table."""
    return lambda place: place.workspace().flatten(*tables, **options)


def flattened_meanwhile(place: Place) -> None:
    """Update a flat table while a transaction of another connection changes what is known of it."""
    place.workspace().flatten()
    with closing(duckdb.connect(str(place.db))) as other:
        other.begin()
        other.execute("DELETE FROM _flat_columns")
        place.workspace().flatten()


def written_to(change: str) -> Callable[[Place], Any]:
    """Forget every person while another connection's transaction changes the ledger."""

    def case(place: Place) -> None:
        with closing(duckdb.connect(str(place.db))) as other:
            ids = [name for (name,) in other.execute("SELECT DISTINCT distinct_id FROM events").fetchall()]
            other.begin()
            other.execute(f"UPDATE _export_batches SET {change}")
            place.workspace().forget(*filter(None, ids))

    return case


def inspected(*words: str) -> Callable[[Place], Any]:
    """Return a case for `mpx mp inspect tables` of the database."""
    return lambda place: mpx("mp", "-q", "--db", str(place.db), "inspect", "tables", *words)


def failing_jq(place: Place) -> None:
    """Let jq be a program that fails."""
    program = place.folder / "jq"
    program.write_text("#!/bin/sh\necho 'jq: error: x/0 is not defined' >&2\nexit 3\n", encoding="utf-8")
    program.chmod(0o700)
    place.setenv("PATH", str(place.folder))


def configured(text: str = ACCOUNT_TOML) -> Callable[[Place], None]:
    return lambda place: place.configure(text)


def environment(**values: str) -> Callable[[Place], None]:
    def set_all(place: Place) -> None:
        for name, value in values.items():
            place.setenv(name, value)

    return set_all


def in_use(case: Callable[[Place], Any]) -> Callable[[Place], Any]:
    """Return the *case* while another process holds the database."""

    def held(place: Place) -> Any:
        with held_by_another(place.db):
            return case(place)

    return held


def opened_here(setting: str = "", *, read_only: bool = False) -> Callable[[Place], Any]:
    """Return an export into a file that this process has open, with *setting*."""

    def case(place: Place) -> Any:
        exists(place)
        with closing(connect(place.db, read_only=read_only)) as connection:
            connection.execute(setting or "SELECT 1")
            return place.export(mode="resume")

    return case


def twice_at_once(place: Place) -> None:
    """An export whose callback begins another one into the same file."""
    place.export(on_batch_complete=lambda _: export(place.sim, place.db, mode="resume"))


def moved_away(place: Place) -> None:
    """An export whose file is replaced while Mixpanel responds."""
    other = place.folder / "other.duckdb"
    duckdb.connect(str(other)).close()

    def body(_: httpx.Request) -> bytes:
        other.replace(place.db)
        return LINE % 1

    place.export(transport=answering(body), one_request=True)


def old_secret(_: Place) -> None:
    resolve_credentials(environ={"MP_SECRET": "s"})


def readable(place: Place) -> None:
    place.configure()
    place.config.chmod(0o644)
    resolve_credentials("main")


def unused_zone(place: Place) -> None:
    place.configure()
    place.setenv("MPX_PROJECT_TIMEZONE", "US/Pacific")
    resolve_credentials("main")


def port_in_use(_: Place) -> Any:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return mpx("simulate", "--port", str(server.getsockname()[1]))


def gone_folder(place: Place) -> None:
    """Export into a folder that is removed, as the current one."""
    folder = place.folder / "gone"
    folder.mkdir()
    place.monkeypatch.chdir(folder)
    folder.rmdir()
    place.export(db="x.duckdb")


def damaged(place: Place) -> None:
    """Cut the file off in the middle."""
    content = place.db.read_bytes()
    place.db.write_bytes(content[: len(content) // 2])


def broken_header(place: Place) -> None:
    place.db.write_bytes(bytes(8) + b"DUCK" + (999).to_bytes(8, "little") + bytes(1 << 14))


def full_disk(place: Place) -> None:
    place.monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1 << 20))


def readonly_folder(place: Place) -> None:
    """Refuse to write into folders, even as root."""
    place.monkeypatch.setattr("os.access", lambda *_: False)


def seven_silent_days(place: Place) -> Sequence[Exception]:
    """The errors of an export that gets an empty response for every other day."""

    def body(request: httpx.Request) -> bytes:
        day = date.fromisoformat(request.url.params["from_date"]).day
        return LINE % day if day % 2 else b""

    return place.failing(transport=answering(body), chunk_days=1, last="2024-03-15", per_hour=60)


def homeless(place: Place) -> None:
    """Take the home directory away."""
    place.monkeypatch.delenv("MP_CONFIG_PATH", raising=False)
    # The home that the system has on record for a user cannot be taken away without being root.
    # This process cannot become a user whom the system does not know.
    place.monkeypatch.setattr("mixpanel_export._config.environment._home_in_passwd", lambda: None)
    place.setenv("HOME", "")


def untrusted() -> httpx.ConnectError:
    """Return the error of a connection whose certificate is not trusted."""
    cause = ssl.SSLCertVerificationError(1, "certificate verify failed")
    cause.verify_message = "self-signed certificate"
    error = httpx.ConnectError("")
    error.__cause__ = cause
    return error


def unknown_name() -> httpx.ConnectError:
    error = httpx.ConnectError("")
    error.__cause__ = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return error


def no_hour_to_check(_: Place) -> None:
    sim = simulator(faults=[Fault("429", retry_after=600)])
    transport = sim.transport()
    anyio.run(
        partial(check_credentials, ACCOUNT, api_url="http://127.0.0.1", transport=transport, now=lambda: NOW)
    )


def through_network(place: Place, **options: Any) -> Any:
    """An export without a custom transport."""
    return place.failing(transport=None, api_url="https://127.0.0.1:9", **options)


def added_account(project_id: str, *words: str) -> Callable[[Place], Any]:
    """Add an account for *project_id*, with the secret of the environment. The simulator has `ACCOUNT.project_id`."""

    def run(place: Place) -> Any:
        with served(simulator(now=lambda: datetime.now(UTC))) as url:
            place.setenv("MPX_API_URL", url)
            place.setenv("MP_SECRET", ACCOUNT.secret)
            account = ["--username", str(ACCOUNT.username), "--project-id", project_id]
            return mpx("accounts", "add", "main", *account, *words)

    return run


def query_of(place: Place, *words: str) -> Any:
    return mpx("query", *words, "--db", str(place.db))


def with_keyring(backend: KeyringBackend, case: Callable[[Place], Any]) -> Callable[[Place], Any]:
    """Return the *case* on a system with that keyring."""

    def run(place: Place) -> Any:
        with used(backend):
            return case(place)

    return run


def without_keyring(place: Place) -> Any:
    """Store a secret where the package keyring is not installed."""
    for module in ("keyring", "keyring.errors"):
        place.monkeypatch.setitem(sys.modules, module, None)
    return store_secret("svc.1", "s")


def without_altair(place: Place) -> Any:
    """Make a report where the package altair is not installed."""
    place.monkeypatch.setitem(sys.modules, "altair", None)
    return place.workspace().report()
