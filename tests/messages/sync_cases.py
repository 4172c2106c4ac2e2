"""How to provoke the errors of syncs, of their sections, and of the file with the secret."""

from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
from steps import DEFAULT_ACCOUNT, Place, configured, shell, steps
from support import ACCOUNT, NOW

from mixpanel_export import sync_events
from mixpanel_export.credentials import resolve_credentials


def syncing(**options: Any) -> Callable[[Place], Any]:
    """Return a case for wrong arguments of `sync_events`."""
    return lambda place: anyio.run(
        partial(sync_events, place.db, credentials=ACCOUNT, now=lambda: NOW, **options)
    )


def secret_file(content: bytes | None) -> Callable[[Place], Any]:
    """Return a case for `MP_SECRET_FILE`, which does not exist if *content* is None."""

    def case(place: Place) -> Any:
        file = place.folder / "secret"
        if content is not None:
            file.write_bytes(content)
        return resolve_credentials(environ={"MP_SECRET_FILE": str(file)})

    return case


def section(text: str, *words: str) -> Callable[[Place], Any]:
    """Return a case for `mpx sync` with this text in the configuration file."""
    return steps(configured(DEFAULT_ACCOUNT + text), shell("sync", *words))


SYNC_CASES: dict[str, Callable[[Place], Any]] = {
    "a file with the secret that does not exist": secret_file(None),
    "a file with the secret that is empty": secret_file(b"\n"),
    "a file with the secret that is no text": secret_file(b"\xff"),
    "sync_events: no first day": syncing(),
    "sync_events: a first day that is not over": syncing(since="2024-06-01"),
    "sync_events: a negative lookback": syncing(since="2024-05-01", lookback=-1),
    "sync_events: a negative budget": syncing(since="2024-05-01", budget=-1),
    "mpx sync: no first day": section(""),
    "mpx sync: sections that are no tables": steps(
        configured(f"sync = 1\n{DEFAULT_ACCOUNT}"), shell("sync", "--all")
    ),
    "mpx sync: an unknown key": section('\n[sync.main]\nevent = "a"\n', "main"),
    "mpx sync: events that are no list": section('\n[sync.main]\nevents = "a"\n', "main"),
    "mpx sync: no such section": section('\n[sync.main]\ndb = "a.duckdb"\n', "mian"),
    "mpx sync: no section at all": section("", "--all"),
    "mpx sync: names and all": section("\n[sync.main]\n", "main", "--all"),
    "mpx sync: a section and a file": section("\n[sync.main]\n", "main", "--db", "a.duckdb"),
    "mpx sync: two new sections": section("", "--init", "a", "b"),
    "mpx sync: no terminal for questions": section("", "--init"),
}
