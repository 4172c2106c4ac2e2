"""`mpx quota`: shows a project's hourly quotas, the processes that use them, and when more requests become available."""

import os
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import click

from mixpanel_export._config.environment import variable
from mixpanel_export.cli import print_json
from mixpanel_export.cli.options import account_option, api_url_option, per_hour_option, region_option
from mixpanel_export.cli.report import aligned

if TYPE_CHECKING:
    from mixpanel_export._quota.shared import Key, QuotaState

EXAMPLES = """\b
Examples:
  mpx quota
  mpx quota --project 12345 --region eu --json

Raw exports have one quota; queries of event counts and profiles share another. The command only counts the requests that
this user sent from this machine. Mixpanel also counts requests from other machines and programs.
"""

_MAX_AGE = 3_500.0  # seconds; older requests may be gone from the quota file, so an earlier start is unknown


@click.command("quota", short_help="Show how many requests are left this hour.", epilog=EXAMPLES)
@click.option(
    "--project",
    "--project-id",
    "project_id",
    metavar="ID",
    help="Project to show, instead of the account's project; no secret is needed.",
)
@region_option
@account_option
@api_url_option
@per_hour_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with times in seconds from now.")
def command(
    *,
    project_id: str | None,
    region: str | None,
    account: str | None,
    api_url: str | None,
    per_hour: int,
    as_json: bool,
) -> None:
    """Show how many requests a project has left in the rolling hour, which processes used the quota, and when more requests become available."""
    from mixpanel_export._quota.file import QuotaFile, quota_file
    from mixpanel_export._quota.limits import Quota
    from mixpanel_export._quota.shared import SharedQuota
    from mixpanel_export.cli.watch import messages

    exports, queries = _keys(project_id, region, account, api_url)
    with messages(quiet=False, verbose=False):
        file = QuotaFile(quota_file())
        export_state = SharedQuota(exports, per_hour=per_hour, file=file).read()
        query_state = SharedQuota(queries, 0, Quota.for_queries().per_hour, file=file).read()
    if as_json:
        print_json({**_as_dict(exports, export_state), "queries": _as_dict(queries, query_state)})
        return
    now = datetime.now().astimezone()
    rows = [("project", f"{exports.project or 'of a project secret'} on {exports.host}")]
    rows += _running(now, [*_users(export_state), *_users(query_state)])
    rows += [("left", _left(export_state)), *_use(export_state, now)]
    rows += [("queries", _left(query_state)), *_use(query_state, now)]
    click.echo("\n".join(aligned(rows)))


def _keys(
    project_id: str | None, region: str | None, account: str | None, api_url: str | None
) -> "tuple[Key, Key]":
    """Return the quota keys of the project that `mpx export` would export with these options."""
    from mixpanel_export._config.endpoint import export_url, query_url
    from mixpanel_export._quota.shared import key_of

    region, project = _project(project_id, region, account)
    return (
        key_of(export_url(region, api_url), project),
        key_of(query_url(region, api_url), project, "query"),
    )


def _project(project_id: str | None, region: str | None, account: str | None) -> tuple[str, str]:
    """Return the region and the id of the project."""
    from mixpanel_export.credentials import checked_project_id, resolve_credentials
    from mixpanel_export.errors import AccountNotFoundError, ConfigError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # the warnings concern the secret, which this command does not use
            credentials = resolve_credentials(account, project_id=project_id, region=region)
    except AccountNotFoundError:
        raise
    except ConfigError:
        project_id = project_id or variable("MP_PROJECT_ID")
        if not project_id:
            raise
        region = region or variable("MP_REGION") or "us"
        return region.lower(), checked_project_id(project_id)
    return credentials.region, credentials.project_id


def _left(state: "QuotaState") -> str:
    if state.remaining is None:
        return f"no limit; {len(state.counted)} used in the last hour"
    return f"{state.remaining} of {state.hour.quota} requests this hour"


def _use(state: "QuotaState", now: datetime) -> Iterator[tuple[str, str]]:
    """Yield the users of the quota, the end of a pause, and the times when more requests become available."""
    used: Counter[str] = Counter()
    for user in _users(state):
        used[_user_words(user)] += user.requests
    for name, requests in used.items():
        yield "used", f"{requests} by {name}"
    if state.pause:
        yield "paused", f"until {_at(now, state.pause)}, at Mixpanel's request"
    if waits := state.seconds_until_free:
        last = f", all by {_at(now, waits[-1])}" if len(waits) > 1 else ""
        yield "more", f"from {_at(now, waits[0])}{last}"


@dataclass(frozen=True, slots=True)
class _User:
    """The requests of one process for one purpose that count against the quota."""

    process: int | None
    """The process id; None if the machine has been restarted since then."""
    purpose: str
    requests: int
    since: float
    """Seconds since the first of the requests."""
    running: bool | None
    """Whether the process is running; None if the system has no safe way to check."""


def _users(state: "QuotaState") -> list[_User]:
    """Return the users of the quota, in the order of their first requests."""
    ages: dict[tuple[int | None, str], list[float]] = {}
    for request in state.requests:
        if request.counted:
            ages.setdefault((request.pid, request.purpose), []).append(request.age)
    return [
        _User(
            process,
            purpose,
            len(group),
            max(group),
            running=False if process is None else _is_running(process),
        )
        for (process, purpose), group in ages.items()
    ]


def _running(now: datetime, users: Sequence[_User]) -> Iterator[tuple[str, str]]:
    """Yield a row for each running user. If none is running, yield one row that says so."""
    for user in users:
        if user.running:
            since = (now - timedelta(seconds=user.since)).strftime("%H:%M")
            when = "for about an hour or longer" if user.since > _MAX_AGE else f"since {since}"
            yield "running", f"{user.purpose or 'a program'} {when} (process {user.process})"
    if all(user.running is False for user in users):
        yield "running", "nothing on this machine"


def _user_words(user: _User) -> str:
    if user.process is None:
        return "processes before the last restart of the machine"
    if user.running is False:
        return f"{user.purpose or 'a program'} (ended)"
    return f"{user.purpose or 'a program'} (process {user.process}{', running' if user.running else ''})"


def _is_running(process: int) -> bool | None:
    """Whether a process with that id exists; None if the system has no safe way to check."""
    if sys.platform == "win32":
        return None  # on Windows, os.kill would end the process
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _at(now: datetime, seconds: float) -> str:
    clock = (now + timedelta(seconds=seconds)).strftime("%H:%M:%S")
    away = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
    return f"{clock} (in {away})"


def _as_dict(key: "Key", state: "QuotaState") -> dict[str, object]:
    return {
        "host": key.host,
        "project_id": key.project,
        "per_hour": state.hour.quota,
        "left": state.remaining,
        "used": len(state.counted),
        "wait_seconds": round(state.wait, 1),
        "pause_seconds": round(state.pause, 1),
        "more_in_seconds": [round(seconds, 1) for seconds in state.seconds_until_free],
        "processes": [
            {
                "pid": user.process,
                "requests": user.requests,
                "running": user.running,
                "purpose": user.purpose or None,
                "seconds_since_first": round(user.since, 1),
            }
            for user in _users(state)
        ],
    }
