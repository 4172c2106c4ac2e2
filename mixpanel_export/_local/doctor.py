"""What may be wrong on this machine, looked at without changing or asking anything: one finding a line."""

import os
import platform
import re
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from mixpanel_export._advice import Problem
from mixpanel_export._database.connection import Connection, connected_to_look, takes_zstd
from mixpanel_export._database.ledger import Ledger, Selection
from mixpanel_export._database.schema import check_format, check_ledger, table_exists, table_names
from mixpanel_export._model import Chunk
from mixpanel_export._quota.shared import SharedQuota, key_of, quota_file
from mixpanel_export._source.reach import Reached
from mixpanel_export.credentials import (
    Credentials,
    account_used,
    config_file,
    export_url,
    resolve_credentials,
)
from mixpanel_export.errors import (
    DatabaseLockedError,
    LedgerMismatchError,
    MixpanelDataError,
    TableFormatError,
)

State = Literal["ok", "warning", "problem"]

DISTRIBUTION = "mpx-export"
_SHOWN = ("duckdb", "httpx", "h2", "anyio", "isal", "tqdm", "click")
_LITTLE_DISK = 1 << 30  # bytes; a few million events
_FAR = 5.0  # seconds; clocks that are kept right differ by less
_STORAGE = "SELECT tags['storage_version'] FROM duckdb_databases() WHERE database_name = current_database()"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found about a *topic*; *advice* says what to do, None where there is nothing to do."""

    topic: str
    state: State
    text: str
    advice: str | None = None

    def to_dict(self) -> dict[str, object]:
        """Return the fields in order, ready for JSON."""
        return asdict(self)


def finding_of(topic: str, state: State, problem: Warning | Exception) -> Finding:
    """Return an error or a warning as a finding."""
    if isinstance(problem, Problem) and problem.advice:
        return Finding(topic, state, problem.text(advice=False), problem.advice)
    text, _, advice = str(problem).partition("; ")
    return Finding(topic, state, text, advice or None)


def look_at_program() -> Iterator[Finding]:
    """Find which Python and which libraries run, and those that are too old or not there."""
    python = f"Python {platform.python_version()}, {platform.platform()}"
    yield Finding("program", "ok", f"{DISTRIBUTION} {_version_of(DISTRIBUTION) or 'not installed'}, {python}")
    found = {name: _version_of(name) for name in _SHOWN}
    yield Finding("libraries", "ok", ", ".join(f"{name} {known}" for name, known in found.items() if known))
    for requirement in requires(DISTRIBUTION) or () if _version_of(DISTRIBUTION) else ():
        if lack := _lack(requirement):
            yield Finding(
                "libraries", "problem", lack, f"run `{sys.executable} -m pip install -U {DISTRIBUTION}`"
            )


def _version_of(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _lack(requirement: str) -> str | None:
    """Say what a *requirement* asks for, where what is installed is older or nothing is; None where it is met."""
    wanted = re.fullmatch(r"([\w.-]+)(?:\[[^]]*\])?(?:>=([\d.]+))?", requirement)
    if not wanted:
        return None  # an extra's, or one of another shape
    found = _version_of(wanted[1])
    if found and _numbers(found) >= _numbers(wanted[2] or ""):
        return None
    least = f" {wanted[2]} or later" if wanted[2] else ""
    return f"{wanted[1]}{least} is needed, and there is {found or 'none'}"


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", release.partition("+")[0])[:3])


def look_at_credentials(account: str | None) -> tuple[Credentials | None, list[Finding]]:
    """Find which credentials an export would use, from where, and who else may read them."""
    with _warnings_of("credentials") as found:
        try:
            name = account_used(account)
            credentials = resolve_credentials(account)
        except MixpanelDataError as error:
            return None, [finding_of("credentials", "problem", error)]
    source = f"account {name} of {config_file()}" if name else "the environment's MP_USERNAME and MP_SECRET"
    who = credentials.username or "a project secret"
    zone = f", times in {credentials.project_timezone}" if credentials.project_timezone else ""
    text = f"{source}: {who}, project {credentials.project_id}, {credentials.region}{zone}"
    test = f"mpx accounts test {name}" if name and account else "mpx accounts test"
    advice = f"`{test}` asks Mixpanel whether it accepts them, by one request"
    return credentials, [Finding("credentials", "ok", text, advice), *found]


def tell_of_server(reached: Reached) -> Iterator[Finding]:
    """Tell how the server answered, and whether its clock is ours."""
    way = f"by way of the proxy {reached.proxy}" if reached.proxy else "without a proxy"
    how = f"{reached.tls or 'no TLS'}, {way}, status {reached.status} after {reached.seconds:.2f} s"
    yield Finding("server", "ok", f"{reached.server} answers ({how})")
    if reached.ahead is None:
        yield Finding("clock", "ok", "not compared, as the server tells no time")
    elif abs(reached.ahead) <= _FAR + reached.doubt:
        yield Finding("clock", "ok", f"the same as the server's, give or take {_FAR + reached.doubt:.0f} s")
    else:
        side = "ahead of" if reached.ahead > 0 else "behind"
        yield Finding(
            "clock",
            "warning",
            f"{abs(reached.ahead):.0f} s {side} the server's",
            "let the system keep its clock (NTP), as it decides which days are over",
        )


def look_at_quota(credentials: Credentials | None, api_url: str | None, per_hour: int) -> list[Finding]:
    """Find whether the quota file can be used, and what it says is left of the *per_hour*, 0 for no limit."""
    region, project = (credentials.region, credentials.project_id) if credentials else ("us", "")
    with _warnings_of("quota") as found:
        try:
            view = SharedQuota(key_of(export_url(region, api_url), project), per_hour=per_hour).look()
        except MixpanelDataError as error:
            return [finding_of("quota", "problem", error)]
    if found:
        return found
    if credentials is None:
        return [Finding("quota", "ok", f"{quota_file()} can be used")]
    left = (
        f"{view.remaining} of {per_hour} requests left this hour"
        if per_hour
        else "no limit of requests an hour"
    )
    text = f"{left}, {len(view.counted)} used, says {quota_file()}"
    if view.wait < 60:
        return [Finding("quota", "ok", text)]
    return [
        Finding("quota", "warning", text, f"an export would wait {view.wait / 60:.0f} min; see `mpx quota`")
    ]


def look_at_database(path: Path) -> Iterator[Finding]:
    """Find whether the file opens, what is in it, whether its books are right, and whether there is room."""
    folder = path.absolute().parent
    if not folder.is_dir():
        yield Finding(
            "database", "problem", f"there is no folder {folder}", "create it, or choose another path"
        )
        return
    yield _look_at_folder(folder)
    if not path.exists():
        yield Finding("database", "ok", f"there is no {path} yet; an export creates it")
        return
    try:
        with connected_to_look(path) as connection:
            yield from _look_into(connection, path)
    except DatabaseLockedError as error:
        yield finding_of("database", "warning", error)
    except MixpanelDataError as error:
        yield finding_of("database", "problem", error)


def _look_at_folder(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    room = f"{_size(free)} free in {folder}"
    if not os.access(folder, os.W_OK):
        advice = "allow it, or choose another path"
        return Finding("disk", "problem", f"this user may not write to {folder}", advice)
    if free < _LITTLE_DISK:
        return Finding("disk", "warning", room, "make room: rows are kept there while they are on their way")
    return Finding("disk", "ok", room)


def _look_into(connection: Connection, path: Path) -> Iterator[Finding]:
    names = [name for name in table_names(connection) if not name.startswith("_")]
    storage = connection.execute(_STORAGE).fetchone()
    text = f"{path}: {_size(path.stat().st_size)}, {len(names)} table{'' if len(names) == 1 else 's'}"
    yield Finding(
        "database", "ok", text + (f", storage version {storage[0]}" if storage and storage[0] else "")
    )
    if not takes_zstd(connection):
        yield Finding(
            "database",
            "warning",
            "its storage version is older than 1.2, so properties take about four times the space",
            "export into a new file",
        )
    check_ledger(connection)
    for name in names:
        yield from _look_at_table(connection, name)


def _look_at_table(connection: Connection, table: str) -> Iterator[Finding]:
    try:
        check_format(connection, table, replacing=True)
    except TableFormatError:
        return  # the user's own
    try:
        check_format(connection, table)
        _check_rows(connection, table)
    except TableFormatError as error:
        yield finding_of("database", "warning", error)
    except LedgerMismatchError as error:
        yield finding_of("database", "problem", error)


def _check_rows(connection: Connection, table: str) -> None:
    """Raise `LedgerMismatchError` where the table does not hold what the ledger says, of whatever selection."""
    if not table_exists(connection, "_export_batches"):
        return
    batches = Ledger(connection, table, Selection(""), "UTC").batches()  # those of all selections
    for selection in dict.fromkeys(batch.selection for batch in batches):
        mine = [batch.chunk for batch in batches if batch.selection == selection]
        days = Chunk(min(chunk.first for chunk in mine), max(chunk.last for chunk in mine))
        Ledger(connection, table, selection, "UTC").check_rows(days, trust=True)


@contextmanager
def _warnings_of(topic: str) -> Iterator[list[Finding]]:
    """Collect what is warned of in the block as findings, which are there when it has ended."""
    found: list[Finding] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield found
    found += [
        finding_of(topic, "warning", warning.message)
        for warning in caught
        if isinstance(warning.message, Warning)
    ]


def _size(count: float) -> str:
    for unit in ("bytes", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
