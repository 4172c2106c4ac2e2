"""`mpx simulate`: serve a simulated Mixpanel project on a loopback port."""

import errno
import sys
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click

from mixpanel_export.cli.help import SectionedCommand
from mixpanel_export.cli.options import option

if TYPE_CHECKING:
    from mixpanel_export.simulator import Fault, Simulator

EXAMPLES = """\b
Example, in one terminal:
  mpx simulate --events-per-day 5000 --first-byte 0.5 --seconds-per-day 0.5
In another terminal, run the lines that it prints, and then:
  mpx export --from 2024-01-01 --to 2024-03-30 --parallel

The file for --faults has one table per fault. The first fault that matches a request is applied. Every key except kind
is optional; "none" means no value:

\b
  [[fault]]
  kind = "terminated_early"  # status 200, some lines, then an error line
  first = 2024-03-01         # applies to requests for any of these days,
  last = 2024-03-07          # both inclusive
  times = 2                  # applies to the first two such requests
  position = 0.9             # position in the body, from 0 to 1
  [[fault]]
  kind = "503"
  probability = 0.05
  retry_after = 2

For faults in event counts, use [[query_fault]] tables; for faults in profiles, use [[profile_fault]] tables.

Other keys: after, days, pages, seconds, status, text, newline, location. Kinds: 400, 401, 402, 403, 404, 413, 414, 416, 429,
500, 502, 503, 504, auth_text_200, auth_text_400, empty_200, timeout_error, redirect; reset_before_head, close_before_head,
stall_before_head; terminated_early, error_fragment, error_line, garbage_line, cut_line, blank_lines,
no_final_newline, crlf; reset, close, stall; truncated_gzip, corrupt_crc, trailing_garbage, two_members,
empty_body. Kinds for profiles only: session_evicted, short_page, total_too_low, total_too_high, wrong_page, page_again,
profile_repeated, profile_skipped.
"""

Command = Callable[..., Any]

USERNAME, SECRET, PROJECT_ID = "demo.mp-service-account", "demo-secret", "12345"


def _share(name: str, default: float, text: str) -> Callable[[Command], Command]:
    return option(
        name, section="Events", type=click.FloatRange(0, 1), metavar="SHARE", default=default, help=text
    )


def _check_zone(_: click.Context, __: click.Parameter, name: str | None) -> str | None:
    try:
        return None if name is None else ZoneInfo(name).key
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise click.BadParameter(f"there is no time zone {name}") from error


def _read_faults(_: click.Context, __: click.Parameter, path: Path | None) -> "dict[str, list[Fault]]":
    from mixpanel_export.simulator.fault_file import TABLES, read_faults

    if path is None:
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        return {f"{table}s": read_faults(text, table) for table in TABLES}
    except ValueError as error:
        raise click.BadParameter(f"{path}: {error}") from error


@click.command(
    "simulate", cls=SectionedCommand, short_help="Serve a simulated Mixpanel project.", epilog=EXAMPLES
)
@option(
    "--port",
    section="Server",
    type=click.IntRange(0, 65535),
    metavar="N",
    default=8080,
    help="Port on 127.0.0.1; 0 = any free port.",
)
@option(
    "--events-per-day",
    section="Events",
    type=click.IntRange(0),
    metavar="N",
    default=1000,
    help="Events on an average day.",
)
@option(
    "--first-day",
    section="Events",
    type=click.DateTime(["%Y-%m-%d"]),
    default="2023-01-01",
    metavar="DATE",
    help="First day with events.",
)
@option(
    "--days",
    section="Events",
    type=click.IntRange(1),
    metavar="N",
    show_default="all",
    help="Days with events, from --first-day on.",
)
@option(
    "--profiles",
    section="Events",
    type=click.IntRange(0),
    metavar="N",
    default=1000,
    help="User profiles; the first ones belong to the users of the events.",
)
@option("--seed", section="Events", default=1, metavar="N", help="Seed of the random events.")
@_share("--duplicates", 0.015, "Extra lines, most of which repeat an event.")
@_share("--missing-insert-id", 0.01, "Events without $insert_id.")
@_share("--late", 0.05, "Events that arrive up to 40 hours late.")
@_share("--odd", 0, "Events with an unusual or missing time, distinct_id or $insert_id.")
@_share("--awkward", 0, "Events of kinds that are known to break exporters.")
@_share("--rejects", 0, "Lines that are not events.")
@_share("--long-lines", 0, "Events of one to five megabytes.")
@_share("--leaks", 0, "Events that are also sent with the day before or after.")
@_share("--strays", 0, "Events that are only sent with the day before or after.")
@option(
    "--timezone",
    section="Events",
    metavar="ZONE",
    callback=_check_zone,
    show_default="UTC",
    help="Time zone of a legacy project, such as US/Pacific, whose days and times are local.",
)
@option(
    "--first-byte",
    section="Transfer",
    type=click.FloatRange(0),
    metavar="SECONDS",
    default=0.0,
    help="Seconds from a request to the first byte of its response.",
)
@option(
    "--seconds-per-day",
    section="Transfer",
    type=click.FloatRange(0),
    metavar="SECONDS",
    default=0.0,
    help="Seconds to transfer one day on one connection.",
)
@option(
    "--bandwidth",
    section="Transfer",
    type=click.FloatRange(0, min_open=True),
    metavar="MB/S",
    show_default="unlimited",
    help="Megabytes per second and connection, compressed.",
)
@option(
    "--piece",
    section="Transfer",
    type=click.IntRange(1, 16 * 1024 * 1024),
    metavar="BYTES",
    default=65536,
    help="Bytes per chunk of the transfer.",
)
@option(
    "--gzip-member",
    section="Transfer",
    type=click.IntRange(1),
    metavar="BYTES",
    show_default="one member",
    help="Bytes of lines per gzip member.",
)
@option(
    "--per-second",
    section="Limits",
    type=click.IntRange(0),
    metavar="N",
    default=3,
    help="Requests per second; 0 = unlimited.",
)
@option(
    "--per-hour",
    section="Limits",
    type=click.IntRange(0),
    metavar="N",
    default=60,
    help="Requests per rolling hour; 0 = unlimited.",
)
@option(
    "--concurrent",
    section="Limits",
    type=click.IntRange(0),
    metavar="N",
    default=100,
    help="Requests at a time; 0 = unlimited.",
)
@option(
    "--retry-after",
    "limit_retry_after",
    section="Limits",
    type=click.Choice(["seconds", "date", "none"]),
    default="seconds",
    help="Format of the Retry-After header.",
)
@option(
    "--history-days",
    section="Limits",
    type=click.IntRange(0),
    metavar="N",
    show_default="unlimited",
    help="Days of history that the plan allows.",
)
@option(
    "--legacy-secret",
    section="Server",
    metavar="SECRET",
    help="Project secret that is also accepted, as a user name without a password or a project id.",
)
@option(
    "--faults",
    section="Server",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    callback=_read_faults,
    help="TOML file of faults; see below.",
)
def command(**settings: Any) -> None:
    """Serve a simulated Mixpanel project on 127.0.0.1 until Ctrl-C is pressed; the exit code is then 0.

    The server responds like Mixpanel, including limits and `where`. The same seed gives the same events.
    """
    from mixpanel_export.sync import run_sync

    port = settings.pop("port")
    settings |= settings.pop("faults")  # one list for each kind of table
    try:
        run_sync(_serve, _simulator(**settings), port)
    except KeyboardInterrupt:
        click.echo("Stopped.", err=True)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise click.ClickException(
            f"port {port} is in use; choose another with --port, or 0 for any"
        ) from error


def _simulator(
    *,
    events_per_day: int,
    first_day: datetime,
    days: int | None,
    bandwidth: float | None,
    **settings: Any,
) -> "Simulator":
    from mixpanel_export.simulator import Simulator

    start = first_day.date()
    longest = (date.max - start).days
    end = start + timedelta(days=longest if days is None else min(days, longest))
    events_on = Simulator(events_per_day=events_per_day, first_day=start).profile.events_on
    return Simulator(
        events_per_day=lambda day: events_on(day) if day < end else 0,
        first_day=start,
        bandwidth=None if bandwidth is None else bandwidth * 1e6,
        username=USERNAME,
        secret=SECRET,
        project_id=PROJECT_ID,
        **settings,
    )


async def _serve(simulator: "Simulator", port: int) -> None:
    from anyio import sleep_forever

    async with simulator.serve(port) as url:
        # click.echo flushes its output, so a program can wait for these lines.
        click.echo(
            f"A simulated Mixpanel is on {url} until Ctrl-C. In another terminal:\n\n"
            f"{_settings(url, simulator.profile.timezone)}\n"
        )
        await sleep_forever()


def _settings(url: str, timezone: str | None) -> str:
    """Return the commands that point `mpx export` at the simulator, for this system's shell."""
    values = {
        "MPX_API_URL": url,
        "MP_USERNAME": USERNAME,
        "MP_SECRET": SECRET,
        "MP_PROJECT_ID": PROJECT_ID,
    }
    if timezone is not None:
        values["MPX_PROJECT_TIMEZONE"] = timezone
    line = "$env:{} = '{}'" if sys.platform == "win32" else "export {}={}"
    return "\n".join(line.format(name, value) for name, value in values.items())
