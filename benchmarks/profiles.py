"""Measures `export_profiles`: wall time compared with a bare client, memory and CPU.

A page of 1,000 profiles takes 0.3 seconds, and five pages are requested at a time. The bare client requests the same pages,
five at a time, and discards them. Without any other cost, five pages would take 0.3 seconds. The server generates each page
when it is requested, which takes about 15 ms of CPU, so even the bare client takes longer. Profiles have about 300 bytes
after compression. There are a million of them at `--scale 1`, which are 1,000 pages.
"""

import gzip
import http.client
import json
import math
import threading
from base64 import b64encode
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import anyio
import duckdb
from _measure import (
    ACCOUNT,
    Cost,
    alternate,
    cost_of,
    in_own_process,
    new_folder,
    options,
    serve_prepared,
    spread,
)
from _report import Bar, markdown, publish

from mixpanel_export import export_profiles
from mixpanel_export.simulator import ProfileRules, Simulator

PAGE = 1000
SECONDS = 0.3
AT_A_TIME = 5
RANDOM_BYTES = 210

RATIO = Bar("profiles: wall ÷ a bare client that discards the pages", 1.2, at_most=True)
MEMORY = Bar("profiles: peak RSS at a million profiles", 450, at_most=True, unit="MB")


def page_count(profiles: int) -> int:
    """Return the number of pages with *profiles* profiles."""
    return max(1, math.ceil(profiles / PAGE))


def best_possible(profiles: int) -> float:
    """Return the seconds that an export takes if pages take nothing but `SECONDS`."""
    return SECONDS * (1 + math.ceil((page_count(profiles) - 1) / AT_A_TIME))


def discard(url: str, pages: int) -> None:
    """Request the pages, and discard them."""
    login = b64encode(f"{ACCOUNT.username}:{ACCOUNT.secret}".encode()).decode()
    headers = {
        "Authorization": f"Basic {login}",
        "Content-Type": "application/x-www-form-urlencoded",
        "Accept-Encoding": "gzip",
    }
    path = f"/api/query/engage?project_id={ACCOUNT.project_id}"
    thread = threading.local()

    def page(number: int, session: str = "") -> bytes:
        if not hasattr(thread, "connection"):
            thread.connection = http.client.HTTPConnection(urlsplit(url).netloc)
        form = {"page": number} | ({"session_id": session} if session else {})
        thread.connection.request("POST", path, urlencode(form), headers)
        response = thread.connection.getresponse()
        body: bytes = response.read()
        if response.status != http.client.OK:
            raise SystemExit(f"page {number} has status {response.status}")
        return body

    session = json.loads(gzip.decompress(page(0)))["session_id"]
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        for _ in pool.map(partial(page, session=session), range(1, pages)):
            pass


def checksum(rows: Iterable[tuple[str, str]]) -> tuple[int, int]:
    """Return the number of *rows* and a checksum, which does not depend on their order."""
    count = total = 0
    for distinct_id, properties in rows:
        digest = blake2b(f"{distinct_id}\0{properties}".encode(), digest_size=16).digest()
        count, total = count + 1, (total + int.from_bytes(digest)) % 2**128
    return count, total


def truth(simulator: Simulator) -> tuple[int, int]:
    """Return the checksum of the simulator's profiles."""
    return checksum((row.distinct_id, row.properties) for row in simulator.profile_rows())


def stored(db: Path) -> tuple[int, int]:
    """Return the checksum of the table."""
    with duckdb.connect(str(db), read_only=True) as connection:
        connection.execute("SET enable_progress_bar = false")
        rows = connection.execute("SELECT distinct_id, properties FROM profiles")
        return checksum(chain.from_iterable(iter(lambda: rows.fetchmany(10_000), [])))


def export(url: str, db: Path) -> None:
    """Export all profiles into a new file."""
    anyio.run(partial(export_profiles, db=db, credentials=ACCOUNT, api_url=url, per_hour=0))


def run(url: str, correct: tuple[int, int], within: Path | None) -> Cost:
    """Export into a new file, check it, and remove it."""
    with new_folder(within) as folder:
        db = folder / "profiles.duckdb"
        cost = cost_of(export, url, db)
        if (actual := in_own_process(stored, db)) != correct:
            raise SystemExit(f"rows and checksum are {actual}, and should be {correct}")
        return cost


def main() -> None:
    """Measure, and publish a table."""
    arguments = options("--scale", "--rounds", "--folder", "--results", description=__doc__, rounds=1)
    profiles = round(arguments.scale * 1_000_000)
    rules = ProfileRules(seconds_per_page=SECONDS, random_bytes=RANDOM_BYTES)
    settings = {"profiles": profiles, "profile_rules": rules, "queries_per_hour": 0}
    with serve_prepared(truth, **settings) as (url, correct):
        ways = (
            partial(run, url, correct, arguments.folder),
            partial(cost_of, discard, url, page_count(profiles)),
        )
        costs, bare = alternate(ways, arguments.rounds, lambda way: way())
    best = best_possible(profiles)
    row = [
        f"{profiles:,}",
        f"{best:.1f}",
        spread([cost.wall for cost in bare]),
        spread([cost.wall for cost in costs]),
        spread([cost.cpu for cost in costs]),
        spread([cost.peak / 1e6 for cost in costs], digits=0),
    ]
    table = markdown(
        ["profiles", "0.3 s for five pages, s", "bare client s", "wall s", "CPU s", "peak RSS MB"], [row]
    )
    bars = [
        (RATIO, [cost.wall / client.wall for cost, client in zip(costs, bare, strict=True)]),
        (MEMORY, [cost.peak / 1e6 for cost in costs]),
    ]
    publish("profiles", f"{profiles:,} profiles in pages of 0.3 s", arguments, [table], bars=bars)


if __name__ == "__main__":
    main()
