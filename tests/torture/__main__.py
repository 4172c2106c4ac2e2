"""`python -m tests.torture`: all parts in several processes, and a summary in Markdown."""

import os
import sys
import time
from random import SystemRandom

import click

from .plan import POSIX, Plan, run, summary


@click.command()
@click.option("--seed", type=int, help="First seed; a failure prints its own.  [default: random]")
@click.option("--schedules", type=int, help="Schedules of exports under faults.  [default: 2000]")
@click.option("--kills", type=int, help="Minimum number of kills.  [default: 200]")
@click.option("--files", type=int, help="Files to kill exports into, instead of a number of kills.")
@click.option("--mutations", type=int, help="Mutated bodies to decode.  [default: 50000]")
@click.option("--written", type=int, help="Mutated bodies to export.  [default: 300]")
@click.option(
    "--minutes", type=float, default=60.0, show_default=True, help="Time after which no task starts."
)
@click.option("--jobs", type=int, default=os.cpu_count() or 1, show_default=True, help="Number of processes.")
@click.option("--fail-fast", is_flag=True, help="Start no task after the first failure.")
def main(
    seed: int | None,
    schedules: int | None,
    kills: int | None,
    files: int | None,
    mutations: int | None,
    written: int | None,
    minutes: float,
    jobs: int,
    fail_fast: bool,
) -> None:
    """Torture the exporter. Without the number of a part all parts run, otherwise only those with a number."""
    if seed is None:
        seed = SystemRandom().randrange(10**6) * 1000
    if all(number is None for number in (schedules, kills, files, mutations, written)):
        schedules, kills, mutations, written = 2000, 200, 50_000, 300
    started = time.monotonic()
    plan = Plan(seed, schedules or 0, kills or 0, files or 0, mutations or 0, written or 0)
    tally = run(plan, jobs=jobs, until=started + 60 * minutes, fail_fast=fail_fast)
    click.echo(summary(tally, seed, time.monotonic() - started))
    for failure in tally.failures:
        click.echo(f"\nFAILED  {failure}")
    missing = plan.missing(tally.kills)
    if missing:
        click.echo(f"\n{missing}" if POSIX else "\nno kills: they need SIGKILL and fork")
    sys.exit(bool(tally.failures or (missing and POSIX)))


if __name__ == "__main__":
    main()
