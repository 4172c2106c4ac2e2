"""`mpx simulate`: a Mixpanel project on a loopback port, to export from without an account."""

import errno
import os
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mixpanel_export.simulator import Simulator

EXAMPLES = """\b
Example, on one terminal:
  mpx simulate --events-per-day 5000 --first-byte 0.5 --seconds-per-day 0.5
and on another, after the lines that it prints:
  mpx export --from 2024-01-01 --to 2024-03-30 --parallel
"""

USERNAME, SECRET, PROJECT_ID = "demo.mp-service-account", "demo-secret", "12345"


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
@click.option(
    "--duplicates",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    default=0.015,
    help="Share of events sent twice.",
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
def command(**given: Any) -> None:
    """Serve a made-up Mixpanel project on 127.0.0.1 until Ctrl-C, which ends it with exit code 0.

    It answers as Mixpanel does, limits included. The same seed gives the same events.
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
    ends = date.max if days is None else begins + timedelta(days=days)
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
            f"A simulated Mixpanel is on {url} until Ctrl-C. In another terminal:\n\n{_settings(url)}\n"
        )
        await sleep_forever()


def _settings(url: str) -> str:
    """Return the lines that make `mpx export` ask here, for the shell that people have."""
    values = {
        "MPX_API_URL": url,
        "MP_USERNAME": USERNAME,
        "MP_SECRET": SECRET,
        "MP_PROJECT_ID": PROJECT_ID,
    }
    line = "$env:{} = '{}'" if os.name == "nt" else "export {}={}"
    return "\n".join(line.format(name, value) for name, value in values.items())
