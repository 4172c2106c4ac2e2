"""`python -m tests.torture`: everything, in as many processes as asked for, and a summary as Markdown."""

import os
import sys
import time
from random import SystemRandom

import click

from .plan import POSIX, Plan, run, summary


@click.command()
@click.option("--seed", type=int, help="Where to begin; what a failure prints. Drawn otherwise.")
@click.option("--schedules", type=int, help="How many schedules of exports under faults.  [default: 2000]")
@click.option("--kills", type=int, help="How many kills, at least.  [default: 200]")
@click.option("--files", type=int, help="Instead: how many files to kill exports into.")
@click.option("--mutations", type=int, help="How many mutated bodies to decode.  [default: 50000]")
@click.option("--written", type=int, help="How many mutated bodies to export.  [default: 300]")
@click.option("--minutes", type=float, default=60.0, show_default=True, help="When to begin nothing more.")
@click.option("--jobs", type=int, default=os.cpu_count() or 1, show_default=True, help="Processes.")
@click.option("--fail-fast", is_flag=True, help="Begin nothing more after the first failure.")
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
    """Torture the exporter. Name one part with its number to run that part alone."""
    if seed is None:
        seed = SystemRandom().randrange(10**6) * 1000
    if all(number is None for number in (schedules, kills, files, mutations, written)):
        schedules, kills, mutations, written = 2000, 200, 50_000, 300
    begun = time.monotonic()
    plan = Plan(seed, schedules or 0, kills or 0, files or 0, mutations or 0, written or 0)
    tally = run(plan, jobs=jobs, until=begun + 60 * minutes, fail_fast=fail_fast)
    click.echo(summary(tally, seed, time.monotonic() - begun))
    for failure in tally.failures:
        click.echo(f"\nFAILED  {failure}")
    missing = plan.missing(tally.kills)
    if missing:
        click.echo(f"\n{missing}" if POSIX else "\nkills need SIGKILL and fork, so there were none here")
    sys.exit(bool(tally.failures or (missing and POSIX)))


if __name__ == "__main__":
    main()
