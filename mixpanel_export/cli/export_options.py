"""The options of `mpx export`, and checks for options that exclude each other."""

from dataclasses import dataclass

import click
from click.core import ParameterSource


@dataclass(frozen=True, slots=True)
class Options:
    """The options, from the command line or the environment."""

    table: str
    from_date: str | None
    to_date: str | None
    days: int | None
    db: str
    account: str | None
    project_id: str | None
    region: str | None
    project_timezone: str | None
    events: list[str] | None
    where: str | None
    limit: int | None
    parallel: bool
    workers: int | None
    chunk_days: int | None
    append: bool
    replace: bool
    yes: bool
    resume: bool
    retries: int
    max_wait: float
    first_byte_timeout: float
    idle_timeout: float
    per_second: int
    per_hour: int
    api_url: str | None
    http2: bool
    no_dedupe: bool
    allow_empty: bool
    allow_new_events: bool
    flatten: bool
    publish: str | None
    dry_run: bool
    stdout: bool
    ordered: bool
    as_json: bool
    quiet: bool
    no_progress: bool
    verbose: bool


def export_options(ctx: click.Context) -> Options:
    """Return the command's options. Options on the command line override settings that they exclude.

    Raises:
        UsageError: Two options exclude each other, or one needs another.
    """
    values = dict(ctx.params)
    typed = {name for name in values if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    mode, flags = values.pop("mode"), [name for name in ("append", "replace", "resume") if values[name]]
    if len(flags) + ("mode" in typed) > 1:
        raise click.UsageError("--mode, --append, --replace and --resume cannot be combined; choose one")
    if not flags and mode != "create":
        values[mode] = True
    if values["limit"] is not None and "parallel" not in typed:
        values["parallel"] = False
    if not values["parallel"] and "workers" not in typed:
        values["workers"] = None
    options = Options(**values)
    _check(options)
    return options


def _check(options: Options) -> None:
    if options.parallel and options.limit is not None:
        raise click.UsageError("--limit needs a single request; leave out --parallel or --limit")
    if not options.parallel and (options.workers or options.chunk_days):
        raise click.UsageError("--workers and --chunk-days need --parallel; add it")
    if options.ordered and not options.stdout:
        raise click.UsageError("--ordered needs --stdout; add it")
    if options.replace and not (options.from_date or options.days):
        raise click.UsageError("--replace needs --from or --days, because it replaces the whole table")
