"""Sequential against parallel, where the network decides: one connection carries a day in 2.5 seconds.

The simulator waits 0.5 s before the first byte and keeps Mixpanel's limits, 3 requests a second and 60 an
hour. One request for all days competes with what `export_events` does by default, ten workers. Everything
takes its real time: 90 days in one request are nearly four minutes.
"""

import argparse
import tempfile
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from _measure import cost_of, in_own_process, machine, served, stored

from mixpanel_export import Credentials, export_events

FIRST = date(2024, 1, 1)
ACCOUNT = Credentials("demo.mp-service-account", "demo-secret", "12345")
NETWORK = {"seconds_per_day": 2.5, "first_byte": 0.5, "per_second": 3, "per_hour": 60}


def export(url: str, last: date, db: Path, **options: Any) -> None:
    """Export the days up to *last* with the default settings but for *options*."""
    anyio.run(
        partial(export_events, FIRST, last, db=db, credentials=ACCOUNT, api_url=url, **options),
    )


def seconds(days: int, events_per_day: int, folder: Path, **options: Any) -> float:
    """Return how long an export of so many *days* takes, from a server whose quota nobody has used.

    Raises:
        SystemExit: the table does not hold exactly the simulator's events.
    """
    last = FIRST + timedelta(days - 1)
    with (
        served(FIRST, last, events_per_day=events_per_day, **NETWORK) as (url, truth),
        tempfile.TemporaryDirectory(dir=folder) as run,
    ):
        db = Path(run, "export.duckdb")
        cost = cost_of(export, url, last, db, **options)
        if in_own_process(stored, db) != (truth.distinct, truth.checksum):
            raise SystemExit(
                f"{days} days with {options or 'default settings'} are not the simulator's events"
            )
    return cost.wall


def main() -> None:
    """Measure each number of days once in sequence and once in parallel, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, nargs="+", default=[30, 90], metavar="N", help="1 to 100 each")
    parser.add_argument("--events-per-day", type=int, default=1000, metavar="N")
    parser.add_argument("--folder", type=Path, help="where the databases go meanwhile; default: the system's")
    given = parser.parse_args()
    print(f"{machine()}; {given.events_per_day} events a day; every table checked against the truth\n")
    print("| days | one request, s | 10 workers, s | ratio |\n|---:|---:|---:|---:|", flush=True)
    for days in given.days:
        one = seconds(days, given.events_per_day, given.folder, max_workers=1, chunk_days=days)
        ten = seconds(days, given.events_per_day, given.folder)
        print(f"| {days} | {one:.1f} | {ten:.1f} | {one / ten:.1f} |", flush=True)


if __name__ == "__main__":
    main()
