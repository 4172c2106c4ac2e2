"""The checks of `mpx doctor`. They do not change or request anything."""

import os
import platform
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from mixpanel_export._config.config_file import config_file
from mixpanel_export._config.endpoint import export_url, query_url
from mixpanel_export._database.connection import Connection, connected_read_only, supports_zstd
from mixpanel_export._database.coverage import Coverage
from mixpanel_export._database.ledger import check_batches, read_batches
from mixpanel_export._database.path import database_path
from mixpanel_export._database.profile_tables import ProfileTable, profile_tables
from mixpanel_export._database.schema import check_format, check_ledger, table_names
from mixpanel_export._error_base import Problem
from mixpanel_export._flat.state import flat_tables
from mixpanel_export._local.reader import read_contents
from mixpanel_export._model import Chunk
from mixpanel_export._quota.file import QuotaFile, quota_file
from mixpanel_export._quota.limits import Quota
from mixpanel_export._quota.shared import QuotaState, SharedQuota, key_of
from mixpanel_export._source.reach import ServerProbe
from mixpanel_export.credentials import (
    Credentials,
    account_used,
    format_problem,
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
_LIBRARIES = ("duckdb", "httpx", "h2", "anyio", "isal", "tqdm", "click")
_MIN_FREE_DISK = 1 << 30  # bytes; enough for a few million events
_MAX_CLOCK_DIFFERENCE = 5.0  # seconds; synchronized clocks differ by less
_STORAGE = "SELECT tags['storage_version'] FROM duckdb_databases() WHERE database_name = current_database()"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    topic: str
    state: State
    text: str
    advice: str | None = None
    """Advice; None if there is nothing to do."""

    def to_dict(self) -> dict[str, object]:
        """Return the fields in order, ready for JSON."""
        return asdict(self)


def finding_of(topic: str, state: State, problem: Warning | Exception) -> Finding:
    """Convert an error or a warning to a finding."""
    if isinstance(problem, Problem):
        return Finding(topic, state, problem.text(advice=False), problem.advice)
    return Finding(topic, state, str(problem))


def check_program() -> Iterator[Finding]:
    """Report the versions of Python and the libraries, and any library that is missing or too old."""
    python = f"Python {platform.python_version()}, {platform.platform()}"
    yield Finding("program", "ok", f"{DISTRIBUTION} {_version_of(DISTRIBUTION) or 'not installed'}, {python}")
    versions = {name: _version_of(name) for name in _LIBRARIES}
    yield Finding(
        "libraries",
        "ok",
        ", ".join(f"{name} {installed}" for name, installed in versions.items() if installed),
    )
    for requirement in requires(DISTRIBUTION) or () if _version_of(DISTRIBUTION) else ():
        if problem := _unmet(requirement):
            yield Finding(
                "libraries", "problem", problem, f"run `{sys.executable} -m pip install -U {DISTRIBUTION}`"
            )


def _version_of(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _unmet(requirement: str) -> str | None:
    """Return the problem if a *requirement* is not installed or too old, else None."""
    parts = re.fullmatch(r"([\w.-]+)(?:\[[^]]*\])?(?:>=([\d.]+))?", requirement)
    if not parts:
        return None  # the requirement belongs to an extra, or has another form
    name, minimum = parts.groups()
    installed = _version_of(name)
    if installed and _numbers(installed) >= _numbers(minimum or ""):
        return None
    expected = f"{name} {minimum} or later" if minimum else name
    return f"{expected} is required, but {installed or 'none'} is installed"


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", release.partition("+")[0])[:3])


def check_credentials(account: str | None) -> tuple[Credentials | None, list[Finding]]:
    """Return the credentials that an export would use, or None, and findings about their source and format."""
    with _warnings_of("credentials") as warning_findings:
        try:
            name = account_used(account)
            credentials = resolve_credentials(account)
        except MixpanelDataError as error:
            return None, [finding_of("credentials", "problem", error)]
    source = f"account {name} in {config_file()}" if name else "MP_USERNAME and MP_SECRET in the environment"
    who = credentials.username or "a project secret"
    zone = f", times in {credentials.project_timezone}" if credentials.project_timezone else ""
    text = f"{source}: {who}, project {credentials.project_id}, {credentials.region}{zone}"
    test = f"mpx accounts test {name}" if name and account else "mpx accounts test"
    advice = f"run `{test}` to test whether Mixpanel accepts them; it costs one request"
    if problem := format_problem(credentials):
        warning_findings.append(Finding("credentials", "warning", problem, "copy it again from Mixpanel"))
    return credentials, [Finding("credentials", "ok", text, advice), *warning_findings]


def server_findings(probe: ServerProbe) -> Iterator[Finding]:
    """Report how the server responded, and whether the clocks agree."""
    way = f"through the proxy {probe.proxy}" if probe.proxy else "without a proxy"
    how = f"{probe.tls or 'no TLS'}, {way}, status {probe.status} after {probe.seconds:.2f} s"
    yield Finding("server", "ok", f"{probe.server} responds ({how})")
    if probe.ahead is None:
        yield Finding("clock", "ok", "not compared, because the server does not send the time")
    elif abs(probe.ahead) <= _MAX_CLOCK_DIFFERENCE + probe.uncertainty:
        seconds = _MAX_CLOCK_DIFFERENCE + probe.uncertainty
        yield Finding("clock", "ok", f"within {seconds:.0f} s of the server's clock")
    else:
        side = "ahead of" if probe.ahead > 0 else "behind"
        yield Finding(
            "clock",
            "warning",
            f"{abs(probe.ahead):.0f} s {side} the server's clock",
            "synchronize the clock (NTP), because it determines which days are over",
        )


def check_quota(credentials: Credentials | None, api_url: str | None, per_hour: int) -> list[Finding]:
    """Report whether the quota file can be used, and how many exports and queries are left this hour.

    *per_hour* is the number of export requests that the project allows; 0 means no limit.
    """
    region, project = (credentials.region, credentials.project_id) if credentials else ("us", "")
    with _warnings_of("quota") as warning_findings:
        try:
            file = QuotaFile(quota_file())
            export_key = key_of(export_url(region, api_url), project)
            exports = SharedQuota(export_key, per_hour=per_hour, file=file).read()
            query_key = key_of(query_url(region, api_url), project, "query")
            queries = SharedQuota(query_key, 0, Quota.for_queries().per_hour, file=file).read()
        except MixpanelDataError as error:
            return [finding_of("quota", "problem", error)]
    if warning_findings:
        return warning_findings
    if credentials is None:
        return [Finding("quota", "ok", f"{quota_file()} is usable")]
    return [
        _quota_finding("quota", exports, "requests", "an export"),
        _quota_finding("queries", queries, "queries for profiles and counts", "the next query"),
    ]


def _quota_finding(topic: str, state: QuotaState, noun: str, subject: str) -> Finding:
    quota = state.hour.quota
    left = f"{state.remaining} of {quota} {noun} left this hour" if quota else f"no hourly limit on {noun}"
    text = f"{left}, {len(state.counted)} used, according to {quota_file()}"
    if state.wait < 60:
        return Finding(topic, "ok", text)
    return Finding(topic, "warning", text, f"{subject} would wait {state.wait / 60:.0f} min; see `mpx quota`")


def check_database(path: Path, refetch_command: Callable[[Coverage, Chunk], str]) -> Iterator[Finding]:
    """Check that the disk has space, that the file opens, and that its tables agree with the ledger.

    *refetch_command* returns the command that fetches days again.
    """
    try:
        database_path(path)
    except MixpanelDataError as error:
        yield finding_of("database", "problem", error)
        return
    folder = path.resolve().parent
    if not folder.is_dir():
        yield Finding(
            "database", "problem", f"the folder {folder} does not exist", "create it, or choose another path"
        )
        return
    yield _check_folder(folder)
    if not path.exists():
        yield Finding("database", "ok", f"{path} does not exist yet", "an export creates it")
        return
    try:
        with connected_read_only(path) as connection:
            yield from _check_contents(connection, path, refetch_command)
    except DatabaseLockedError as error:
        yield finding_of("database", "warning", error)
    except MixpanelDataError as error:
        yield finding_of("database", "problem", error)


def _check_folder(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    text = f"{_size(free)} free in {folder}"
    if not os.access(folder, os.W_OK):
        advice = "grant the permission, or choose another path"
        return Finding("disk", "problem", f"this user may not write to {folder}", advice)
    if free < _MIN_FREE_DISK:
        return Finding(
            "disk", "warning", text, "free up disk space; an export also stores its downloads there"
        )
    return Finding("disk", "ok", text)


def _check_contents(
    connection: Connection, path: Path, refetch_command: Callable[[Coverage, Chunk], str]
) -> Iterator[Finding]:
    names = [name for name in table_names(connection) if not name.startswith("_")]
    storage = connection.execute(_STORAGE).fetchone()
    text = f"{path}: {_size(path.stat().st_size)}, {len(names)} table{'' if len(names) == 1 else 's'}"
    yield Finding(
        "database", "ok", text + (f", storage version {storage[0]}" if storage and storage[0] else "")
    )
    if not supports_zstd(connection):
        yield Finding(
            "database",
            "warning",
            "the storage version is older than 1.2, so properties take about four times the space",
            "export into a new file",
        )
    check_ledger(connection)
    others = {table.name for table in flat_tables(connection)}
    for profiles in profile_tables(connection):
        others.add(profiles.name)
        yield from _check_profiles(profiles)
    for name in names:
        if name not in others:
            yield from _check_table(connection, name)
    contents = read_contents(connection)
    for coverage in contents.coverages:
        # An export would be rejected until the unknown rows, which `_check_table` reports, are deleted.
        for changed in () if coverage.table in contents.unknown else coverage.changed_days:
            command = refetch_command(coverage, changed.days)
            text = f"{changed.days}: table {coverage.table} was changed by hand: {changed}"
            yield Finding("database", "problem", text, f"run `{command}` to fetch these days again")


def _check_profiles(table: ProfileTable) -> Iterator[Finding]:
    advice = f"export them again with `mpx profiles {table.name} --replace`"
    if table.failure:
        text = f"the last export of profiles into {table.name} failed: {table.failure.error}"
        yield Finding(
            "database", "warning", text, "run `mpx status` to see the command that exports them again"
        )
    if table.row_count_difference:
        exported = (table.rows or 0) - table.row_count_difference
        text = f"table {table.name} has {table.rows:,} profiles, but {exported:,} were exported"
        yield Finding("database", "problem", text, advice)


def _check_table(connection: Connection, table: str) -> Iterator[Finding]:
    try:
        check_format(connection, table, replacing=True)
    except TableFormatError:
        return  # not an exported table
    try:
        check_format(connection, table)
        check_batches(connection, table, read_batches(connection, table))
    except TableFormatError as error:
        yield finding_of("database", "warning", error)
    except LedgerMismatchError as error:
        yield finding_of("database", "problem", error)


@contextmanager
def _warnings_of(topic: str) -> Iterator[list[Finding]]:
    """Collect the warnings raised in the block as findings. The list is complete when the block ends."""
    findings: list[Finding] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield findings
    findings += [
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
