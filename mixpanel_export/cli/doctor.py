"""`mpx doctor`: finds problems on this machine, and explains how to fix them."""

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from mixpanel_export._config.environment import expanded, variable
from mixpanel_export._error_base import Advice
from mixpanel_export.cli import option_of, print_json
from mixpanel_export.cli.default_file import mention_other_default
from mixpanel_export.cli.options import account_option, api_url_option, db_argument, per_hour_option
from mixpanel_export.cli.refetch import refetch_command

if TYPE_CHECKING:
    from mixpanel_export._local.doctor import Finding
    from mixpanel_export.credentials import Credentials

EXAMPLES = """\b
Examples:
  mpx doctor
  mpx doctor app.duckdb --account eu
  mpx doctor --offline --json

The command does not change anything, send credentials or use the quota.

\b
Exit codes:
  0  no problems (warnings are possible)
  1  at least one problem
"""

_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


@click.command(
    "doctor", short_help="Check the installation, the credentials and the database.", epilog=EXAMPLES
)
@db_argument
@account_option
@api_url_option
@per_hour_option
@click.option("--offline", is_flag=True, help="Skip the checks that use the network.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(
    ctx: click.Context,
    *,
    db: str,
    account: str | None,
    api_url: str | None,
    per_hour: int,
    offline: bool,
    as_json: bool,
) -> None:
    """Check versions, credentials, network, clock, quota file and DB (default: MPX_DB, [defaults] db, mixpanel.duckdb).

    Each problem is shown with advice on how to fix it. The command does not check whether Mixpanel accepts the
    credentials, because that costs a request; use mpx accounts test.
    """
    mention_other_default(ctx)
    findings = []
    for finding in _findings(db, account, api_url, per_hour, offline=offline):
        findings.append(finding)
        if not as_json:
            _show(finding)
    states = Counter[str](finding.state for finding in findings)
    if as_json:
        values = [finding.to_dict() | {"advice": _advice(finding)} for finding in findings]
        print_json({"ok": not states["problem"], "findings": values})
    else:
        click.echo(_summary(states))
    if states["problem"]:
        ctx.exit(1)


def _findings(
    db: str, account: str | None, api_url: str | None, per_hour: int, *, offline: bool
) -> Iterator["Finding"]:
    from mixpanel_export._local import doctor as _doctor

    yield from _doctor.check_program()
    credentials, findings = _doctor.check_credentials(account)
    yield from findings
    if offline:
        yield _doctor.Finding("server", "ok", "not checked, because of --offline")
    else:
        yield from _check_server(credentials, api_url)
    yield from _doctor.check_database(
        expanded(db), lambda coverage, days: refetch_command(coverage, db, days)
    )
    yield from _doctor.check_quota(credentials, api_url, per_hour)


def _check_server(credentials: "Credentials | None", api_url: str | None) -> Iterator["Finding"]:
    from mixpanel_export._config.endpoint import export_url
    from mixpanel_export._local.doctor import finding_of, server_findings
    from mixpanel_export._source.reach import probe_server
    from mixpanel_export.errors import MixpanelDataError
    from mixpanel_export.sync import run_sync

    region = credentials.region if credentials else (variable("MP_REGION") or "us").lower()
    try:
        probe = run_sync(probe_server, export_url(region, api_url))
    except MixpanelDataError as error:
        yield finding_of("server", "problem", error)
    else:
        yield from server_findings(probe)


def _show(finding: "Finding") -> None:
    state = click.style(f"{finding.state:<7}", fg=_COLOURS[finding.state])
    lines = [f"{state}  {finding.topic:<11}  {finding.text}"]
    if advice := _advice(finding):
        lines.append(f"{'':<22}{advice}")
    click.echo("\n".join(lines))


def _advice(finding: "Finding") -> str | None:
    # A command may contain `$where`, for example as the name of a property in a filter.
    return finding.advice.worded(option_of) if isinstance(finding.advice, Advice) else finding.advice


def _summary(states: Counter[str]) -> str:
    counts = [
        f"{number} {state}{'' if number == 1 else 's'}"
        for state in ("problem", "warning")
        if (number := states[state])
    ]
    return ", ".join(counts) or "No problems found."
