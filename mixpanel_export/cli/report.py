"""Formats messages about an export. The functions return text and do not print it."""

import math
import shlex
import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from mixpanel_export.cli import in_options, program
from mixpanel_export.cli.duration import duration_words
from mixpanel_export.cli.event_names import event_words
from mixpanel_export.errors import RateLimitError, SelectionError
from mixpanel_export.results import DateRange, ExportPlan, ParallelFetchResult

if TYPE_CHECKING:
    from mixpanel_export._local.replaced_days import RemovedDays
    from mixpanel_export._model import Chunk, Selection
    from mixpanel_export.changes import DayChange, SyncResult

# The command that continues an export sets these options explicitly.
_REPLACED = {"table", "from_date", "to_date", "days", "db", "mode", "append", "replace", "resume"}


def result_lines(
    result: ParallelFetchResult, db: str, replaced: int = 0, removed: "RemovedDays | None" = None
) -> list[str]:
    """Return an export's summary.

    *replaced* is the number of rows that replaced earlier rows. *removed* contains the days that a replacement removes.
    """
    batches = result.successful_batches + result.failed_batches
    done = (
        f"{result.successful_batches} of {batches}"
        if batches
        else "none to fetch; the table already has these days"
    )
    added = f"{result.total_rows:,}" + (f" (and {replaced:,} replaced)" if replaced > 0 else "")
    rows = [
        ("table", result.table),
        ("database", db),
        ("rows added", added),
        ("batches", done),
        *(_removed(removed.number, removed.events) if removed and not result.has_failures else ()),
        ("seconds", f"{result.duration_seconds:.1f}"),
        *remarks(result),
    ]
    return aligned(rows)


def plan_lines(plan: ExportPlan, db: str, max_wait: float) -> list[str]:
    """Return an export's plan: a summary, and a line for each request."""
    ranges = [(date.fromisoformat(first), date.fromisoformat(last)) for first, last in plan.date_ranges]
    rows = [
        ("table", plan.table),
        ("database", db),
        (
            "requests",
            f"{len(ranges)}, for {count_words(plan.days, 'day')}"
            if ranges
            else "none; the table already has these days",
        ),
        *_plan_remarks(plan),
        (
            "quota",
            "no limit"
            if plan.quota_left is None
            else f"{count_words(plan.quota_left, 'request')} left this hour",
        ),
        ("estimate", _forecast(plan.quota_wait, max_wait)),
    ]
    return aligned(rows) + [
        f"  {first} to {last}  {count_words((last - first).days + 1, 'day')}" for first, last in ranges
    ]


def _removed(days: int, events: int) -> Iterator[tuple[str, str]]:
    """Yield the number of days that a replacement removes, if any."""
    if days:
        yield "removed", f"{count_words(days, 'day')} with {events:,} events that are not requested"


def _plan_remarks(plan: ExportPlan) -> Iterator[tuple[str, str]]:
    yield from _removed(plan.removed_days, plan.removed_events)
    if plan.one_request_seconds is not None and plan.date_ranges:
        yield (
            "why so few",
            f"one request for all days should take at most {math.ceil(plan.one_request_seconds)} s, judging by earlier batches",
        )
    if plan.skipped_date_ranges:
        yield "skipped", ", ".join(map(_days, plan.skipped_date_ranges)) + " (already in the table)"
    if plan.added_date_ranges:
        yield (
            "also fetched",
            ", ".join(map(_days, plan.added_date_ranges)) + " (in the same batch as a requested day)",
        )


def _forecast(quota_wait: float, max_wait: float) -> str:
    from mixpanel_export.progress import in_words

    if not quota_wait:
        return "no wait for the quota"
    return f"about {in_words(quota_wait)} of waiting for the quota" + (
        f", more than --max-wait ({in_words(max_wait)}) allows" if quota_wait > max_wait else ""
    )


def count_words(number: int, noun: str) -> str:
    """Return a number and a noun, such as `2 days`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def aligned(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Return names and values in two columns."""
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {value}" for name, value in rows]


def remarks(result: ParallelFetchResult) -> Iterator[tuple[str, str]]:
    """Yield less common facts about an export; most exports have none."""
    if result.added_date_ranges:
        yield (
            "also fetched",
            ", ".join(map(_days, result.added_date_ranges)) + " (in the same batch as a requested day)",
        )
    if result.removed_duplicates:
        yield "duplicates", f"{result.removed_duplicates:,} removed"
    if result.rejects:
        yield "rejects", f"{result.rejects:,} lines that are not events; see _export_rejects"
    if result.repaired:
        yield "repaired", f"{result.repaired:,} events; see _export_rejects for the original lines"


def failure_lines(result: ParallelFetchResult, command: str, *, replacing: bool = False) -> list[str]:
    """Return the summary of an export with failed batches. *command* fetches the remaining days."""
    batches = result.successful_batches + result.failed_batches
    lines = [f"{result.failed_batches} of {batches} batches failed:"]
    lines += [f"  {days}: {reason}" for days, reason in _failures(result)]
    if replacing:
        complete = result.successful_batches
        lines.append(
            f"{result.table} is unchanged; {complete} {'batch is' if complete == 1 else 'batches are'} kept, "
            "and the table is replaced once the rest has arrived."
        )
    lines += [f"To fetch the rest{_when(result)}:", f"  {command}"]
    if not result.successful_batches:
        lines.append("No events were exported.")
    return lines


def failure_line(result: ParallelFetchResult, command: str) -> str:
    """Return the summary of an export with failed batches on one line: the first failure and the number of others."""
    batches = result.successful_batches + result.failed_batches
    (days, reason), *others = _failures(result)
    more = f" (and {count_words(len(others), 'other range')})" if others else ""
    return (
        f"{result.failed_batches} of {batches} batches failed: {days}: {reason}{more}. "
        f"To fetch the rest{_when(result)}: {command}"
    )


def _failures(result: ParallelFetchResult) -> Iterator[tuple[str, str]]:
    """Yield the days and the reason of each failure. All failures due to the used-up quota are merged into one."""
    over_quota = []
    for days, error in zip(result.failed_date_ranges, result.errors, strict=True):
        if isinstance(error, RateLimitError):
            over_quota.append(days)
        else:
            yield _days(days), in_options(error, days=False)
    if over_quota:
        yield (
            ", ".join(map(_days, _joined(over_quota))),
            "the quota is used up, and --max-wait is too short",
        )


def _when(result: ParallelFetchResult) -> str:
    """Return when to continue, if that depends only on the quota."""
    from mixpanel_export.progress import in_words

    waits = [error.retry_after for error in result.errors if isinstance(error, RateLimitError)]
    if len(waits) < len(result.errors) or not waits[0]:
        return ""
    return f", in {in_words(waits[0])}"


def _joined(ranges: Sequence[DateRange]) -> list[DateRange]:
    """Return *ranges*, which must be in order, with adjacent ranges joined."""
    joined: list[DateRange] = []
    for first, last in ranges:
        if joined and date.fromisoformat(joined[-1][1]) + timedelta(days=1) == date.fromisoformat(first):
            joined[-1] = joined[-1][0], last
        else:
            joined.append((first, last))
    return joined


def next_command(ctx: click.Context, requested: DateRange, failed: Sequence[DateRange] = ()) -> str:
    """Return the command that continues with the *failed* days, or with all *requested* days.

    It has the same selection and the options from the command line. No option holds a secret, so neither does the
    command.
    """
    params = ctx.params
    mode = "--resume"
    if params["replace"]:
        # A replacement is continued by the same command: its rows are not in the table until it is complete.
        failed, mode = (), "--replace"
    ranges = failed or (requested,)
    first, last = min(first for first, _ in ranges), max(last for _, last in ranges)
    words = [program(), "export", params["table"], "--from", first, "--to", last, "--db", params["db"], mode]
    return quoted([*words, *_typed_options(ctx, _REPLACED)])


def next_streams(ctx: click.Context, failed: Sequence[DateRange]) -> str:
    """Return the commands that write only the *failed* days to standard output."""
    commands = [
        quoted([program(), "export", "--from", first, "--to", last, *_typed_options(ctx, _REPLACED)])
        for first, last in _joined(failed)
    ]
    return " && ".join(commands)


def retry_command(ctx: click.Context) -> str:
    """Return the `mpx retry` command with the options from the command line."""
    return quoted([program(), "retry", ctx.params["db"], *_typed_options(ctx, {"db"})])


def profiles_command(ctx: click.Context) -> str:
    """Return the `mpx profiles` command with the options from the command line."""
    return quoted([program(), "profiles", ctx.params["table"], *_typed_options(ctx, {"table"})])


def sync_command(ctx: click.Context, *more: str) -> str:
    """Return the `mpx sync` command with the names and options from the command line, and the options *more*."""
    typed = _typed_options(ctx, {"names", "accept_loss"})
    return quoted([program(), "sync", *ctx.params["names"], *typed, *more])


def sync_line(result: "SyncResult", title: str) -> str:
    """Return the summary of a sync on one line."""
    counts = {"added": result.added, "removed": result.removed, "re-keyed": result.rekeyed}
    changed = ", ".join(f"{number:,} {word}" for word, number in counts.items() if number)
    return (
        f"{title}: {count_words(result.fetched_days, 'day')} fetched with {count_words(result.requests, 'request')}, "
        f"{result.export.total_rows:+,} rows to {result.days[1]} in {result.export.duration_seconds:.1f} s; "
        f"{changed or 'nothing changed'} in earlier days"
    )


def kept_line(change: "DayChange", title: str, command: str) -> str:
    """Return the report on a day that lost events. *command* replaces the old events."""
    return (
        f"{title}: {change.day} had {change.old_rows:,} events and now has {change.new_rows:,}, so the earlier ones are "
        f"kept; to replace them: {command}"
    )


def export_command(
    table: str,
    days: "Chunk",
    db: str,
    selection: "Selection",
    *,
    zone: str,
    deduped: bool,
    mode: str = "--resume",
) -> str:
    """Return the command that exports *days* with the options that the ledger recorded for them."""
    words = [program(), "export", table, "--from", str(days.first), "--to", str(days.last), "--db", db, mode]
    if days.length > 1:
        words.append("--parallel")
    values = {
        "--project-id": selection.project,
        "--events": None if selection.events is None else event_words(selection.events),
        "--where": selection.where,
        "--project-timezone": None if zone == "UTC" else zone,
    }
    for option, value in values.items():
        words += [option, value] if value else []
    return quoted(words if deduped else [*words, "--no-dedupe"])


def selection_advice(error: SelectionError, events: Sequence[str] | None, where: str | None) -> str | None:
    """Return the options to use or leave out to match the table's selection; None if there are none.

    *events* and *where* have the values of this export's options.
    """
    if "table_events" not in error.details:
        return None
    table_events, table_where = error.details["table_events"], error.details["table_where"]
    words = []
    if isinstance(table_events, list) and table_events != events:
        words.append(f"use {quoted(['--events', event_words(table_events)])}")
    elif table_events is None and events is not None:
        words.append("leave out --events")
    if isinstance(table_where, str) and table_where != where:
        words.append(f"use {quoted(['--where', table_where])}")
    elif table_where is None and where is not None:
        words.append("leave out --where")
    return " and ".join(words) or None


def _typed_options(ctx: click.Context, without: Collection[str]) -> Iterator[str]:
    for option in ctx.command.params:
        name = option.name or ""
        value: Any = ctx.params.get(name)
        if (
            name not in ctx.params
            or name in without
            or ctx.get_parameter_source(name) is not ParameterSource.COMMANDLINE
        ):
            continue
        word = option.secondary_opts[-1] if value is False else option.opts[-1]
        if isinstance(value, tuple):
            for item in value:
                yield from (word, str(item))
            continue
        yield word
        if isinstance(value, list):
            yield event_words(value)
        elif isinstance(value, float):
            yield duration_words(value)
        elif not isinstance(value, bool):
            yield str(value)


def quoted(words: Sequence[str]) -> str:
    """Return *words* as a command line for the shell of this system."""
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)


def _days(days: DateRange) -> str:
    first, last = days
    return first if first == last else f"{first} to {last}"
