"""What `mpx` says about an export, as text; nothing here prints."""

import json
import os
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any

import click
from click.core import ParameterSource

from mixpanel_export.cli import in_options, one_line, program
from mixpanel_export.cli.duration import duration_words
from mixpanel_export.results import DateRange, ParallelFetchResult

# Options that say where to go on and how; the command that goes on has its own.
_REPLACED = {"table", "from_date", "to_date", "db", "append", "replace", "resume"}


def result_lines(result: ParallelFetchResult, db: str, replaced: int = 0) -> list[str]:
    """Return the small table that an export ends with; *replaced* rows came in the place of earlier ones."""
    batches = result.successful_batches + result.failed_batches
    done = (
        f"{result.successful_batches} of {batches}" if batches else "none to fetch; the table has these days"
    )
    added = f"{result.total_rows:,}" + (f" (in place of earlier ones: {replaced:,})" if replaced > 0 else "")
    rows = [
        ("table", result.table),
        ("database", db),
        ("rows added", added),
        ("batches", done),
        ("seconds", f"{result.duration_seconds:.1f}"),
        *remarks(result),
    ]
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {value}" for name, value in rows]


def remarks(result: ParallelFetchResult) -> Iterator[tuple[str, str]]:
    """Yield what happened besides the export itself; most exports have nothing to remark."""
    if result.added_date_ranges:
        yield "days added", ", ".join(map(_days, result.added_date_ranges)) + " (an earlier batch held them)"
    if result.removed_duplicates:
        yield "duplicates", f"{result.removed_duplicates:,} removed"
    if result.rejects:
        yield "rejects", f"{result.rejects:,} lines are no events; they are in _export_rejects"
    if result.repaired:
        yield "repaired", f"{result.repaired:,} events; their original lines are in _export_rejects"


def failure_lines(result: ParallelFetchResult, command: str, *, replacing: bool = False) -> list[str]:
    """Return the summary of an export with failed batches; *command* fetches what is missing."""
    batches = result.successful_batches + result.failed_batches
    lines = [f"{result.failed_batches} of {batches} batches failed:"]
    for days, error in zip(result.failed_date_ranges, result.errors, strict=True):
        lines.append(f"  {_days(days)}: {in_options(one_line(error))}")
    if replacing:
        kept = result.successful_batches
        lines.append(
            f"{result.table} is unchanged; {kept} {'batch is' if kept == 1 else 'batches are'} kept, "
            "and the swap comes when the rest is here."
        )
    lines += ["To fetch only what is missing:", f"  {command}"]
    if not result.successful_batches:
        lines.append(f"no data was retrieved: {in_options(one_line(result.errors[0]))}")
    return lines


def next_command(ctx: click.Context, ranges: Sequence[DateRange]) -> str:
    """Return the command that goes on over *ranges*, with the same selection and the options typed.

    Nothing secret is ever an option, so nothing secret is in it.
    """
    given = ctx.params
    first, last, mode = min(first for first, _ in ranges), max(last for _, last in ranges), "--resume"
    if given["replace"]:
        # It is not in the table before it is whole; asked for again, as it was, it continues.
        first, last, mode = given["from_date"], given["to_date"], "--replace"
    words = [program(), "export", given["table"], "--from", first, "--to", last, "--db", given["db"], mode]
    return quoted([*words, *_typed_options(ctx)])


def event_words(events: Sequence[str]) -> str:
    """Return *events* as one value of `--events`: names with commas between, a JSON list where that would not do."""
    plain = all("," not in name and name == name.strip() and not name.startswith("[") for name in events)
    return ",".join(events) if plain else json.dumps(list(events), ensure_ascii=False)


def _typed_options(ctx: click.Context) -> Iterator[str]:
    for option in ctx.command.params:
        name = option.name or ""
        value: Any = ctx.params.get(name)
        if name in _REPLACED or ctx.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        yield option.opts[-1]
        if name == "events":
            yield event_words(value)
        elif isinstance(value, float):
            yield duration_words(value)
        elif value is not True:
            yield str(value)


def quoted(words: Sequence[str]) -> str:
    """Return *words* as one line of the shell that people have here."""
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def _days(days: DateRange) -> str:
    return f"{days[0]} to {days[1]}"
