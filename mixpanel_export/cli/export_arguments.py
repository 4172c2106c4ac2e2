"""Converts the options of `mpx export` to arguments of the library."""

from typing import TYPE_CHECKING, Any

import click

from mixpanel_export.cli.export_options import Options
from mixpanel_export.cli.log import say
from mixpanel_export.cli.run_export import request_arguments
from mixpanel_export.errors import DateRangeTooLargeError

if TYPE_CHECKING:
    from mixpanel_export._model import Chunk
    from mixpanel_export.credentials import Credentials


def credentials_of(options: Options) -> "Credentials":
    """Return the credentials that the options select."""
    from mixpanel_export.credentials import resolve_credentials

    return resolve_credentials(options.account, project_id=options.project_id, region=options.region)


def export_arguments(options: Options, credentials: "Credentials", days: "Chunk") -> dict[str, Any]:
    """Return the arguments of `export_events`, the same for an export and a dry run."""
    from mixpanel_export._compat import mode_of, text_or_none

    if not options.parallel:
        _check_one_request(options, days)
    return {
        "from_date": days.first,
        "to_date": days.last,
        "db": options.db,
        "table": options.table,
        "credentials": credentials,
        "events": options.events,
        "where": text_or_none(options.where),
        "limit": options.limit,
        "max_workers": options.workers or 10,
        "chunk_days": options.chunk_days,
        "one_request": not options.parallel,
        "mode": mode_of(append=options.append, replace=options.replace, resume=options.resume),
        "dedupe": not options.no_dedupe,
        "allow_empty": options.allow_empty,
        "flatten": options.flatten,
        "project_timezone": options.project_timezone,
        **request_arguments(
            retries=options.retries,
            max_wait=options.max_wait,
            first_byte_timeout=options.first_byte_timeout,
            idle_timeout=options.idle_timeout,
            per_second=options.per_second,
            per_hour=options.per_hour,
            api_url=options.api_url,
        ),
    }


def _check_one_request(options: Options, days: "Chunk") -> None:
    """Reject a range that is too long for one request, and suggest --parallel for a long one."""
    from mixpanel_export._compat import check_one_request

    try:
        check_one_request(days)
    except DateRangeTooLargeError as error:
        advice = "request fewer days, because --limit needs a single request"
        if options.limit is None:
            advice = "add --parallel, or set MPX_PARALLEL=1 to always export in parallel"
        raise click.UsageError(f"{error.text(advice=False)}; {advice}") from error
    if days.length > 7 and options.limit is None and not options.quiet:
        say(f"Exporting {days.length} days with one request; --parallel sends several at a time.")
