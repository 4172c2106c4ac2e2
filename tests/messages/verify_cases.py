"""How to provoke the errors of verifications."""

import gzip
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import httpx
from steps import DEFAULT_ACCOUNT, Place, configured, exists, shell, sql, steps
from support import ACCOUNT, NOW, Body, simulator

from mixpanel_export import verify_events
from mixpanel_export._quota.shared import Key, SharedQuota
from mixpanel_export._source import query_api


def verifying(**options: Any) -> Callable[[Place], Any]:
    """Return a case for the verification of nine days, with these options of `verify_events`."""
    defaults: dict[str, Any] = {
        "from_date": "2024-03-01",
        "to_date": "2024-03-09",
        "credentials": ACCOUNT,
        "api_url": "http://127.0.0.1",
        "retries": 0,
        "per_hour": 0,
        "transport": simulator().transport(),
        "now": lambda: NOW,
    }
    verify = partial(verify_events, **(defaults | options))
    return steps(exists, lambda place: anyio.run(partial(verify, place.db)))


def answered(body: bytes, **headers: str) -> Callable[[Place], Any]:
    """Return a case for an answer of the Query API with status 200."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=Body([body]), headers=headers))
    return verifying(transport=transport)


def too_large(place: Place) -> Any:
    """Read an answer that is larger than any."""
    place.monkeypatch.setattr(query_api, "_MAX_BODY", 5)  # 64 MB would take long
    return answered(b'{"data": {}}')(place)


def spent(place: Place) -> Any:
    """Wait for the quota, unless the warning about it is an error."""
    assert SharedQuota(Key("127.0.0.1", "12345", "query"), 0, 1).take_slot().ticket
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return verifying(per_hour=1)(place)


def changed(statements: str, **options: Any) -> Callable[[Place], Any]:
    """Return a case for a file that is changed by hand."""
    verify = partial(
        verify_events,
        credentials=ACCOUNT,
        from_date="2024-03-01",
        to_date="2024-03-09",
        now=lambda: NOW,
        **options,
    )
    return steps(exists, sql(statements), lambda place: anyio.run(partial(verify, place.db)))


VERIFY_CASES: dict[str, Callable[[Place], Any]] = {
    "verify_events: a tolerance over 1": verifying(tolerance=2.0),
    "verify_events: a name instead of a list": verifying(ignore="Page View"),
    "verify_events: negative retries": verifying(retries=-1),
    "verify_events: no such zone": verifying(reporting_timezone="Mars/Olympus"),
    "verify_events: days that the table does not have": verifying(
        from_date="2024-04-01", to_date="2024-04-30"
    ),
    "verify_events: no such table": verifying(table="nothing"),
    "verify_events: a table of one's own": changed("CREATE TABLE mine (a INTEGER)", table="mine"),
    "verify_events: a table with a filter": changed(
        'UPDATE _export_batches SET "where" = \'properties["a"] == 1\''
    ),
    "verify_events: a table of another project": changed(
        "UPDATE _export_batches SET project = '7'; UPDATE _export_targets SET project = '7'"
    ),
    "verify_events: a table without days": changed(
        "DELETE FROM _export_batches; DELETE FROM _export_targets"
    ),
    "verify_events: rows that cannot be read": changed(
        "ALTER TABLE _export_duplicates RENAME COLUMN batch TO other"
    ),
    "verify_events: an answer that is cut": answered(b'{"data": {"seri'),
    "verify_events: an answer without text": answered(b""),
    "verify_events: an error with status 200": answered(b'{"error": "Internal server error"}'),
    "verify_events: refused credentials with status 200": answered(b"Unable to authenticate request"),
    "verify_events: an answer of another form": answered(b'{"data": {"values": 3}}'),
    "verify_events: an answer that is cut within gzip": answered(
        gzip.compress(b'{"data": {}}', mtime=0)[:-9], content_encoding="gzip"
    ),
    "verify_events: an answer that is too large": too_large,
    "verify_events: a spent quota": spent,
    "mpx verify: a share over 1": steps(
        configured(DEFAULT_ACCOUNT), exists, shell("verify", "--tolerance", "150%")
    ),
}
