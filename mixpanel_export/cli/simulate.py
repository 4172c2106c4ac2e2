"""`mpx simulate`: a Mixpanel project on a loopback port, to export from without an account."""

import errno
import os
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click

if TYPE_CHECKING:
    from mixpanel_export.simulator import Fault, Simulator

EXAMPLES = """\b
Example, on one terminal:
  mpx simulate --events-per-day 5000 --first-byte 0.5 --seconds-per-day 0.5
and on another, after the lines that it prints:
  mpx export --from 2024-01-01 --to 2024-03-30 --parallel

A file for --faults has one table for each. The first that hits a request decides it. Every key but kind may be
left out, and "none" stands for no value:

\b
  [[fault]]
  kind = "terminated_early"  # 200, then some lines and one that says so
  first = 2024-03-01         # requests for any of these days,
  last = 2024-03-07          # both inclusive
  times = 2                  # the first two of them
  position = 0.9             # where in the body, from 0 to 1
  [[fault]]
  kind = "503"
  probability = 0.05
  retry_after = 2

Other keys: after, seconds, status, text, newline, location. Kinds: 400, 401, 402, 403, 404, 413, 414, 416, 429,
500, 502, 503, 504, auth_text_200, auth_text_400, timeout_error, redirect; reset_before_head, close_before_head,
stall_before_head; terminated_early, error_fragment, error_line, garbage_line, cut_line, blank_lines,
no_final_newline, crlf; reset, close, stall; truncated_gzip, corrupt_crc, trailing_garbage, two_members,
empty_body.
"""

Command = Callable[..., Any]

USERNAME, SECRET, PROJECT_ID = "demo.mp-service-account", "demo-secret", "12345"


def _share(name: str, default: float, what: str) -> Callable[[Command], Command]:
    return click.option(name, type=click.FloatRange(0, 1), metavar="SHARE", default=default, help=what)


def _check_zone(_: click.Context, __: click.Parameter, name: str | None) -> str | None:
    try:
        return None if name is None else ZoneInfo(name).key
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise click.BadParameter(f"there is no time zone {name}") from error


def _read_faults(_: click.Context, __: click.Parameter, path: Path | None) -> "list[Fault]":
    from mixpanel_export.simulator.fault_file import read_faults

    if path is None:
        return []
    try:
        return read_faults(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise click.BadParameter(f"{path}: {error}") from error


@click.command("simulate", short_help="Serve a made-up Mixpanel project.", epilog=EXAMPLES)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="N",
    default=8080,
    help="Port on 127.0.0.1; 0 takes a free one.",
)
@click.option(
    "--events-per-day", type=click.IntRange(0), metavar="N", default=1000, help="Events of an average day."
)
@click.option(
    "--first-day",
    type=click.DateTime(["%Y-%m-%d"]),
    default="2023-01-01",
    metavar="DATE",
    help="Days before it are empty.",
)
@click.option(
    "--days",
    type=click.IntRange(1),
    metavar="N",
    show_default="all",
    help="Days from --first-day on that have events.",
)
@click.option("--seed", default=1, metavar="N", help="Another number gives other events.")
@_share("--duplicates", 0.015, "Lines more than events: most repeat one.")
@_share("--missing-insert-id", 0.01, "Events without $insert_id.")
@_share("--late", 0.05, "Events that arrive up to 40 hours late.")
@_share("--odd", 0.002, "Events with an unusual or missing time, distinct_id or $insert_id.")
@_share("--awkward", 0, "Events that exporters were seen to break on.")
@_share("--rejects", 0, "Lines that are no events.")
@_share("--long-lines", 0, "Events of one to five megabytes.")
@_share("--leaks", 0, "Events sent with the day before or after too.")
@_share("--strays", 0, "Events sent with the day before or after only.")
@click.option(
    "--timezone",
    metavar="ZONE",
    callback=_check_zone,
    show_default="UTC",
    help="Zone of a legacy project, such as US/Pacific: its days and times are local.",
)
@click.option(
    "--first-byte",
    type=click.FloatRange(0),
    metavar="SECONDS",
    default=0.0,
    help="Seconds from a request to its answer.",
)
@click.option(
    "--seconds-per-day",
    type=click.FloatRange(0),
    metavar="SECONDS",
    default=0.0,
    help="Seconds that a day takes to transfer on one connection.",
)
@click.option(
    "--bandwidth",
    type=click.FloatRange(0, min_open=True),
    metavar="MB/S",
    show_default="no bound",
    help="Megabytes a second and connection, compressed.",
)
@click.option(
    "--piece",
    type=click.IntRange(1, 16 * 1024 * 1024),
    metavar="BYTES",
    default=65536,
    help="Size of a chunk of the transfer.",
)
@click.option(
    "--gzip-member",
    type=click.IntRange(1),
    metavar="BYTES",
    show_default="one for all",
    help="Bytes of lines in a gzip member.",
)
@click.option(
    "--per-second", type=click.IntRange(0), metavar="N", default=3, help="Requests a second; 0 = unlimited."
)
@click.option(
    "--per-hour",
    type=click.IntRange(0),
    metavar="N",
    default=60,
    help="Requests a rolling hour; 0 = unlimited.",
)
@click.option(
    "--concurrent", type=click.IntRange(0), metavar="N", default=100, help="Requests at once; 0 = unlimited."
)
@click.option(
    "--retry-after",
    "limit_retry_after",
    type=click.Choice(["seconds", "date", "none"]),
    default="seconds",
    help="How Retry-After is worded.",
)
@click.option(
    "--history-days",
    type=click.IntRange(0),
    metavar="N",
    show_default="no bound",
    help="Days before today that the plan reaches back; earlier ones are refused.",
)
@click.option(
    "--legacy-secret",
    metavar="SECRET",
    help="A project secret that is accepted too: as the user name, without password or project id.",
)
@click.option(
    "--faults",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    callback=_read_faults,
    help="TOML file of what goes wrong; see below.",
)
def command(**given: Any) -> None:
    """Serve a made-up Mixpanel project on 127.0.0.1 until Ctrl-C, which ends it with exit code 0.

    It answers as Mixpanel does, limits and `where` included. The same seed gives the same events.
    """
    from mixpanel_export.sync import run_sync

    port = given.pop("port")
    try:
        run_sync(_serve, _simulator(**given), port)
    except KeyboardInterrupt:
        click.echo("stopped", err=True)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise click.ClickException(
            f"port {port} is in use; choose another with --port, or 0 for any"
        ) from error


def _simulator(
    *, events_per_day: int, first_day: datetime, days: int | None, bandwidth: float | None, **settings: Any
) -> "Simulator":
    from mixpanel_export.simulator import Simulator

    begins = first_day.date()
    left = (date.max - begins).days
    ends = begins + timedelta(days=left if days is None else min(days, left))
    endless = Simulator(events_per_day=events_per_day, first_day=begins).profile.events_on
    return Simulator(
        events_per_day=lambda day: endless(day) if day < ends else 0,
        first_day=begins,
        bandwidth=None if bandwidth is None else bandwidth * 1e6,
        username=USERNAME,
        secret=SECRET,
        project_id=PROJECT_ID,
        **settings,
    )


async def _serve(simulator: "Simulator", port: int) -> None:
    from anyio import sleep_forever

    async with simulator.serve(port) as url:
        # click.echo flushes, so a program that waits for these lines sees them.
        click.echo(
            f"A simulated Mixpanel is on {url} until Ctrl-C. In another terminal:\n\n"
            f"{_settings(url, simulator.profile.timezone)}\n"
        )
        await sleep_forever()


def _settings(url: str, timezone: str | None) -> str:
    """Return the lines that make `mpx export` ask here, for the shell that people have."""
    values = {
        "MPX_API_URL": url,
        "MP_USERNAME": USERNAME,
        "MP_SECRET": SECRET,
        "MP_PROJECT_ID": PROJECT_ID,
    }
    if timezone is not None:
        values["MPX_PROJECT_TIMEZONE"] = timezone
    line = "$env:{} = '{}'" if os.name == "nt" else "export {}={}"
    return "\n".join(line.format(name, value) for name, value in values.items())
