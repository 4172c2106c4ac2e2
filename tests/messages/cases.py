"""How to provoke each error and warning of the package and of `mpx`, by name."""

from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx
from keyrings import InMemory, no_backend
from profile_cases import PROFILE_CASES
from profile_command_cases import PROFILE_COMMAND_CASES
from publish_cases import PUBLISH_CASES
from shell import mpx
from steps import (
    DEFAULT_ACCOUNT,
    WEEK,
    Place,
    added_account,
    arguments,
    broken_header,
    configured,
    damaged,
    environment,
    exists,
    failing_jq,
    fetching,
    flattened,
    flattened_meanwhile,
    forgotten,
    full_disk,
    gone_folder,
    homeless,
    in_use,
    inspected,
    moved_away,
    no_hour_to_check,
    old_file,
    opened_here,
    port_in_use,
    query_of,
    readable,
    readonly_folder,
    refused,
    seven_silent_days,
    shell,
    sql,
    steps,
    through_network,
    twice_at_once,
    unknown_name,
    untrusted,
    unused_zone,
    upgraded,
    with_keyring,
    without_altair,
    without_keyring,
    written_to,
)
from stream_cases import STREAM_CASES
from support import ACCOUNT, Body, answering, simulator
from sync_cases import SYNC_CASES
from verify_cases import VERIFY_CASES

from mixpanel_export import Timeouts, Workspace, split_date_range
from mixpanel_export._config.config_file import read_defaults
from mixpanel_export._config.system_keyring import read_secret, store_secret
from mixpanel_export._database.connection import connect
from mixpanel_export._local.accounts import add_account, remove_account
from mixpanel_export.credentials import Credentials, resolve_credentials
from mixpanel_export.simulator import Fault

CASES: dict[str, Callable[[Place], Any]] = {
    # Arguments
    "a day that does not exist": arguments(first="2024-02-30"),
    "a day in another format": arguments(first="1.3.2024"),
    "a day with a time of day": arguments(first=datetime(2024, 3, 1, 12, tzinfo=UTC)),
    "a day before the calendar": arguments(first="-999999w"),
    "days in the wrong order": arguments(first="2024-03-02", last="2024-03-01"),
    "a day before the first year": arguments(first="-999999d"),
    "a day of split_date_range in another format": lambda _: split_date_range("1.3.2024", "2024-03-02"),
    "days of split_date_range in the wrong order": lambda _: split_date_range("2024-03-02", "2024-03-01"),
    "no days per chunk": lambda _: split_date_range("2024-03-01", "2024-03-02", 0),
    "a range that has not begun": arguments(first="2030-03-01", last="2030-03-02"),
    "no such mode": arguments(mode="merge"),
    "a table of the ledger": arguments(table="_export_batches"),
    "no workers": arguments(max_workers=0),
    "more workers than Mixpanel allows": arguments(max_workers=150),
    "more workers than the quota serves": arguments(max_workers=50),
    "a chunk without days": arguments(chunk_days=0),
    "an empty expression": arguments(where=""),
    "a limit that is too high": arguments(limit=100_001),
    "negative retries": arguments(retries=-1),
    "a negative wait": arguments(max_wait=-1),
    "a negative quota": arguments(per_hour=-1),
    "no event": arguments(events=[]),
    "more events than fit into a request": arguments(events=[f"event {number}" for number in range(9_999)]),
    "a long expression": arguments(where='"x"' * 30_000),
    "an expression that is no text": arguments(where="\ud800"),
    "one event as text": arguments(events="Sign Up"),
    "an event that is no text": arguments(events=["\ud800"]),
    "no such time zone": arguments(project_timezone="Mars"),
    "fetch_events: a batch that is too small": fetching(batch_size=1),
    "fetch_events: no workers": fetching(max_workers=0),
    "fetch_events: a chunk that is too long": fetching(parallel=True, chunk_days=101),
    "fetch_events: a limit for each of several requests": fetching(parallel=True, limit=5),
    "fetch_events: two modes": fetching(append=True, resume=True),
    "fetch_events: too many days": fetching(to_date="2024-12-31"),
    # Credentials and settings
    "no credentials": lambda _: resolve_credentials(),
    "no such account": steps(configured(), lambda _: resolve_credentials("other")),
    "no default account": steps(configured(), lambda _: resolve_credentials()),
    "a configuration file that is a directory": steps(
        lambda place: place.config.mkdir(), lambda _: resolve_credentials()
    ),
    "a configuration file that cannot be read": steps(
        lambda place: place.config.symlink_to("/proc/self/mem"),  # an input error even for root
        lambda _: resolve_credentials(),
    ),
    "defaults that are no table": steps(
        configured("defaults = 3"), lambda place: read_defaults(place.config)
    ),
    "an unknown default": steps(
        configured("[defaults]\nparalel = true"), lambda place: read_defaults(place.config)
    ),
    "a default mode that is none": steps(
        configured('[defaults]\nmode = "replace"'), lambda place: read_defaults(place.config)
    ),
    "a configuration file that is no TOML": steps(configured("x = "), lambda _: resolve_credentials()),
    "a configuration file that is a folder": steps(
        lambda place: place.config.mkdir(), lambda _: resolve_credentials()
    ),
    "a configuration file that others can read": readable,
    "a user name without a secret": lambda _: resolve_credentials(environ={"MP_USERNAME": "u"}),
    "a secret without a project": lambda _: resolve_credentials(
        environ={"MP_USERNAME": "u", "MP_SECRET": "s"}
    ),
    "a project secret": lambda _: resolve_credentials(environ={"MP_SECRET": "s"}),
    "a time zone for another account": unused_zone,
    "an empty secret": lambda _: Credentials("u", "", "1"),
    "no project": lambda _: Credentials("u", "s", ""),
    "a colon": lambda _: Credentials("u:v", "s", "1"),
    "a secret that is no text": lambda _: Credentials("u", "\udcff", "1"),
    "an account and variables of another project": steps(
        steps(configured(), environment(MP_SECRET="s", MP_PROJECT_ID="777")),
        lambda _: resolve_credentials("main"),
    ),
    "a project that is a path": lambda _: Credentials("u", "s", "../1"),
    "no such region": lambda _: Credentials("u", "s", "1", "mars"),
    "no such zone": lambda _: Credentials("u", "s", "1", "us", "Mars"),
    "an API URL that is none": arguments(api_url="https://[x"),
    "an API URL with a path": arguments(api_url="https://x/y"),
    "an API URL without encryption": arguments(api_url="http://x"),
    "no home for the configuration file": steps(homeless, lambda _: resolve_credentials()),
    "no home for ~": steps(homeless, lambda place: place.export(db="~/x.duckdb")),
    "no home for the default file": steps(homeless, lambda _: Workspace(credentials=ACCOUNT).db_path),
    "no project for the default file": lambda _: Workspace(credentials=Credentials(None, "s", "")).db_path,
    "a quota that is no number": steps(environment(MPX_PER_HOUR="x"), arguments(per_hour=None)),
    "a quota file that cannot be used": steps(
        configured(), lambda place: place.setenv("MPX_STATE_DIR", str(place.config)), arguments(per_hour=60)
    ),
    "threads that are no number": steps(environment(MPX_THREADS="x"), arguments()),
    "memory that is no size": steps(environment(MPX_MEMORY_LIMIT="x"), arguments()),
    "memory that is too small": steps(environment(MPX_MEMORY_LIMIT="1MB"), arguments()),
    "memory that is too small for the process": steps(environment(MPX_PROCESS_MEMORY="349MB"), arguments()),
    "an account that exists": steps(configured(), lambda place: add_account(place.config, "main", ACCOUNT)),
    "an account without a name": lambda place: add_account(place.config, " ", ACCOUNT),
    "an account to remove that does not exist": steps(
        configured(), lambda place: remove_account(place.config, "other")
    ),
    "accounts that are no tables": steps(
        configured("accounts = 3"), lambda place: add_account(place.config, "main", ACCOUNT)
    ),
    "a configuration file that cannot be written": lambda _: add_account(
        Path("/proc/config.toml"), "main", ACCOUNT
    ),
    # Mixpanel's answers
    "400": refused(400, '{"error": "unknown event"}'),
    "401": refused(401, ""),
    "402": refused(402, "no"),
    "403": refused(403, "no"),
    "404": refused(404, "no"),
    "a redirect": refused(302, ""),
    "400 for a day that has not begun": refused(400, '{"error": "to_date cannot be later than today"}'),
    "400 for days before the plan's history": refused(400, "Date range exceeds 90 days into the past"),
    "429": refused(429, "rate limit exceeded"),
    "429 for too many at a time": refused(429, "100 queries in progress"),
    "500": lambda place: place.failing(Fault("500")),
    "a failed batch of several": lambda place: place.failing(
        Fault("503", first=date(2024, 3, 9)), chunk_days=3
    ),
    "an answer without a body": lambda place: place.export(
        transport=answering(lambda _: b""), one_request=True
    ),
    "many answers without a body": seven_silent_days,
    "a stream of days without a body": lambda place: place.download(answering(lambda _: b"")),
    "401 with status 200": lambda place: place.failing(Fault("auth_text_200")),
    "a body that ends early": lambda place: place.failing(Fault("terminated_early")),
    "a body that is cut off": lambda place: place.failing(Fault("truncated_gzip")),
    "a body that is corrupt": lambda place: place.failing(Fault("corrupt_crc")),
    "a body in another encoding": lambda place: place.failing(
        transport=httpx.MockTransport(
            lambda _: httpx.Response(200, headers={"content-encoding": "br"}, stream=Body([b"x"]))
        )
    ),
    "a line that is too long": lambda place: place.failing(
        transport=answering(lambda _: b'{"event": "' + b"x" * (65 << 20)), last="2024-03-01"
    ),
    "no quota left": lambda place: place.failing(per_hour=1, chunk_days=3),
    "no quota left for a test": no_hour_to_check,
    # The connection
    "silence": lambda place: place.failing(Fault("stall"), timeouts=Timeouts(idle=0.1)),
    "a connection that breaks": lambda place: place.failing(Fault("reset")),
    "a connection in vain": lambda place: place.unreachable(httpx.ConnectError("refused")),
    "a connection that takes too long": lambda place: place.unreachable(httpx.ConnectTimeout("")),
    "a host without an address": lambda place: place.unreachable(unknown_name()),
    "a certificate that is not trusted": lambda place: place.unreachable(untrusted()),
    "a proxy that refuses": lambda place: place.unreachable(httpx.ProxyError("403 Forbidden")),
    "a request that cannot be sent": lambda place: place.unreachable(httpx.LocalProtocolError("bad header")),
    "certificates that cannot be read": steps(environment(SSL_CERT_FILE="none.pem"), through_network),
    "a proxy that is no URL": steps(environment(HTTPS_PROXY="http://x:port"), through_network),
    "a SOCKS proxy": steps(environment(HTTPS_PROXY="socks5://127.0.0.1:9"), through_network),
    # The database file
    "a database in memory": lambda place: place.export(db=":memory:"),
    "a database that is a folder": lambda place: place.export(db=place.folder),
    "a database on another machine": lambda place: place.export(db="s3://bucket/x.duckdb"),
    "a database with a question mark": lambda place: place.export(db=place.folder / "x?.duckdb"),
    "a database with too long a name": lambda place: place.export(db="x" * 300),
    "a database in a folder that is gone": gone_folder,
    "a database in no folder": lambda place: place.export(db=place.folder / "none" / "x.duckdb"),
    "a file that is no database": steps(lambda place: place.db.write_text("x" * 10_000), arguments()),
    "a file in use": in_use(arguments()),
    "a file open with other settings": opened_here(read_only=True),
    "a file open without access to files": opened_here("SET enable_external_access = false"),
    "a file open with a locked configuration": opened_here("SET lock_configuration = true"),
    "a file that is damaged": steps(exists, damaged, arguments(mode="resume")),
    "a file with a broken header": steps(broken_header, arguments()),
    "an address instead of a file": lambda _: connect(Path("-")),
    "a disk that is full": steps(full_disk, arguments()),
    "a folder that cannot be written": steps(readonly_folder, arguments()),
    "rows that DuckDB cannot write": steps(
        lambda place: place.export(last="2024-03-01", limit=1),
        sql("CREATE UNIQUE INDEX one ON events (event_name)"),
        arguments(first="2024-03-02", last="2024-03-02", mode="append"),
    ),
    "a file that is exported into": twice_at_once,
    "a file that is replaced": moved_away,
    "a workspace that is read-only": steps(
        exists, lambda place: place.workspace(read_only=True).drop("events")
    ),
    "a workspace in no folder": lambda _: Workspace(path="/proc/none/x.duckdb").connection,
    "a workspace at an empty path": lambda _: Workspace(path="").connection,
    "a workspace without a file": lambda place: Workspace.open(place.db),
    # Tables and the ledger
    "a table that exists": steps(exists, arguments()),
    "a table that exists in another format": steps(sql("CREATE TABLE events (x INTEGER)"), arguments()),
    "a table to append to that does not exist": arguments(mode="append"),
    "a view": steps(sql("CREATE VIEW events AS SELECT 1 AS x"), arguments(mode="resume")),
    "a table with other columns": steps(sql("CREATE TABLE events (x INTEGER)"), arguments(mode="append")),
    "a table with a column more": steps(
        exists, sql("ALTER TABLE events ADD COLUMN x INTEGER"), arguments(mode="append")
    ),
    "a table of mixpanel_data": steps(old_file, arguments(mode="append")),
    "days of mixpanel_data": steps(old_file, upgraded, arguments(mode="append")),
    "a ledger of a later release": steps(
        exists,
        sql("COMMENT ON TABLE _export_batches IS 'mixpanel_export ledger 99'"),
        arguments(mode="resume"),
    ),
    "days with a limit": steps(exists, arguments(mode="append", limit=5)),
    "days of another selection": steps(exists, arguments(mode="append", events=["Sign Up"])),
    "days of another time zone": steps(exists, arguments(mode="append", project_timezone="US/Pacific")),
    "rows that no batch has": steps(
        exists,
        sql("UPDATE events SET export_batch = 99 WHERE event_time < '2024-03-02'"),
        arguments(mode="resume"),
    ),
    "rows that were deleted": steps(exists, sql("DELETE FROM events"), arguments(mode="resume")),
    "a replacement without events": steps(exists, arguments(mode="replace", events=["none"])),
    "days that have not begun": lambda place: place.failing(
        first="2024-06-01", last="2024-06-05", chunk_days=1
    ),
    "times that look local": lambda place: place.export(simulator(timezone="US/Pacific")),
    # Reading
    "a query that is wrong": lambda place: place.workspace().sql_rows("SELECT none"),
    "no such table": steps(exists, lambda place: place.workspace().table_schema("none")),
    "a table without events": steps(
        sql("CREATE TABLE t (x INTEGER)"), lambda place: place.workspace().event_breakdown("t")
    ),
    "a table of the ledger to drop": steps(exists, lambda place: place.workspace().drop("_export_batches")),
    "a table of the user's to drop": steps(
        sql("CREATE TABLE t (x INTEGER)"), lambda place: place.workspace().drop("t")
    ),
    "a table that a view needs": steps(
        steps(
            exists, sql("CREATE TABLE t (x INTEGER PRIMARY KEY); CREATE TABLE u (x INTEGER REFERENCES t (x))")
        ),
        lambda place: place.workspace().drop("t", force=True),
    ),
    # Upgrades
    "an empty file to upgrade": steps(lambda place: place.db.touch(), upgraded),
    "a file to upgrade with a table that refers to another": steps(
        old_file, sql("CREATE TABLE r (id VARCHAR REFERENCES events (insert_id))"), upgraded
    ),
    "a file to upgrade with the new name taken": steps(
        old_file, sql("CREATE TABLE _export_upgrade_events (x INTEGER)"), upgraded
    ),
    # Persons to forget
    "a changed table to forget from": steps(
        exists, sql("ALTER TABLE events RENAME event_time TO moment"), forgotten("u")
    ),
    "nobody to forget": steps(exists, forgotten()),
    "an empty id to forget": steps(exists, forgotten("")),
    "an id to forget that is no text": steps(exists, forgotten("\ud800")),
    "a property that persons are not known by": steps(exists, forgotten("a", also=["email"])),
    "persons in a table that the ledger does not have": steps(exists, forgotten("a", table="none")),
    "persons in a file without a ledger": steps(lambda place: place.db.touch(), forgotten("a")),
    "persons in a ledger that another transaction changes": steps(exists, written_to('"rows" = 0')),
    "persons in a file that another transaction changes": steps(exists, written_to("error = 'x'")),
    # Flat tables
    "a table to flatten that is not there": steps(exists, flattened("none")),
    "a table to flatten with other columns": steps(exists, sql("CREATE TABLE t (x INTEGER)"), flattened("t")),
    "a table of the user in the place of a flat one": steps(
        exists, sql("CREATE TABLE mine (x INTEGER)"), flattened(into="mine")
    ),
    "a flat table of another table": steps(
        exists, lambda place: place.export(table="t"), flattened(), flattened("t", into="events_flat")
    ),
    "a flat table with an internal name": steps(exists, flattened(into="_mine")),
    "a flat table of other keys than before": steps(exists, flattened(only=["a"]), flattened(only=["b"])),
    "a flat table whose columns were changed": steps(
        exists, flattened(), sql('ALTER TABLE events_flat DROP COLUMN "$os"'), flattened()
    ),
    "one name in the place of several": steps(exists, flattened(only="a")),
    "no name at all": steps(exists, flattened(only=[])),
    "more keys than columns": steps(exists, flattened(only=[f"key {number}" for number in range(1001)])),
    "a flat table that another transaction changes": steps(exists, flattened_meanwhile),
    # The command line
    "mpx: no property": shell("flatten", "--only", ","),
    "mpx: three modes": shell("export", *WEEK, "--append", "--replace"),
    "mpx: a limit with --parallel": shell("export", *WEEK, "--parallel", "--limit", "5"),
    "mpx: workers without --parallel": shell("export", *WEEK, "--workers", "5"),
    "mpx: too many days": steps(
        configured(DEFAULT_ACCOUNT), shell("export", "--from", "2023-01-01", "--to", "2024-03-01")
    ),
    "mpx: too many days with a limit": steps(
        configured(DEFAULT_ACCOUNT),
        shell("export", "--from", "2023-01-01", "--to", "2024-03-01", "--limit", "5"),
    ),
    "mpx: two files": shell("status", "a.duckdb", "--db", "b.duckdb"),
    "mpx: no event": shell("export", *WEEK, "--events", ","),
    "mpx: events that are no JSON": shell("export", *WEEK, "--events", "[x"),
    "mpx: events that are no names": shell("export", *WEEK, "--events", "[1]"),
    "mpx: an empty event name": shell("export", *WEEK, "--events", "Page View,"),
    "mpx: no duration": shell("export", *WEEK, "--max-wait", "soon"),
    "mpx: no time at all": shell("export", *WEEK, "--idle-timeout", "0"),
    "mpx: no first day": steps(configured(DEFAULT_ACCOUNT), shell("export")),
    "mpx: a number of days beside a first day": steps(
        configured(DEFAULT_ACCOUNT), shell("export", *WEEK, "--days", "7")
    ),
    "mpx: a replacement without a first day": shell("export", "--replace"),
    "mpx: a replacement of some days by a script": steps(
        configured(DEFAULT_ACCOUNT),
        exists,
        lambda place: mpx("export", *WEEK[:3], "2024-03-01", "--replace", "--db", str(place.db)),
    ),
    "mpx: a mistyped event": steps(
        configured(DEFAULT_ACCOUNT),
        exists,
        lambda place: mpx("export", "new", *WEEK, "-e", "SignUp", "--db", str(place.db)),
    ),
    "mpx: another selection than the table's": steps(
        configured(DEFAULT_ACCOUNT),
        exists,
        lambda place: mpx("export", *WEEK, "--append", "-e", "Sign Up", "--db", str(place.db)),
    ),
    "mpx: a mistyped table": steps(exists, lambda place: mpx("flatten", "evnts", "--db", str(place.db))),
    "mpx: a file in use": in_use(lambda place: mpx("status", str(place.db))),
    "mpx: a file in use for too long": in_use(lambda place: mpx("status", str(place.db), "--wait", "0.1s")),
    "mpx: a command without --wait and a file in use": in_use(lambda place: mpx("retry", str(place.db))),
    "mpx: no such file": shell("status", "none.duckdb"),
    "mpx status: a target that is no range": lambda place: mpx(
        "status", str(place.db), "--set-target", "2024"
    ),
    "mpx status: an empty file": steps(
        lambda place: place.db.touch(), lambda place: mpx("status", str(place.db))
    ),
    "mpx status: a target without a file": lambda place: mpx(
        "status", str(place.db), "--set-target", "2024-01-01..2024-01-02"
    ),
    "mpx status: a target without an export": steps(
        sql("CREATE TABLE mine (x INTEGER)"),
        lambda place: mpx("status", str(place.db), "--set-target", "2024-01-01..2024-01-02"),
    ),
    "mpx query: SQL that is no text": shell("query", "-", typed=b"\xff"),
    "mpx query: wrong SQL": steps(exists, lambda place: mpx("query", "SELEC", "--db", str(place.db))),
    "mpx query: SQL that writes": steps(
        exists, lambda place: mpx("query", "DROP TABLE events", "--db", str(place.db))
    ),
    "mpx query: a file that does not exist": steps(
        exists, lambda place: mpx("query", "FROM 'none.csv'", "--db", str(place.db))
    ),
    "mpx query: no SQL": shell("query", ""),
    "mpx query: two formats": shell("query", "SELECT 1", "--json", "--csv"),
    "mpx query: the database as Parquet file": steps(
        exists, lambda place: mpx("query", "SELECT 1", "--db", str(place.db), "--parquet", str(place.db))
    ),
    "mpx status: no such table": steps(exists, lambda place: mpx("status", str(place.db), "--table", "none")),
    "mpx report: no such table": steps(exists, lambda place: mpx("report", str(place.db), "--table", "none")),
    "mpx report: a browser without a file": steps(
        exists, lambda place: mpx("report", str(place.db), "--open", "--out", "-")
    ),
    "no packages for reports": steps(exists, without_altair),
    "mpx retry: no such table": steps(exists, lambda place: mpx("retry", str(place.db), "--table", "none")),
    "mpx retry: another project": steps(
        lambda place: place.failing(Fault("500")),
        steps(
            environment(MP_USERNAME="u", MP_SECRET="s", MP_PROJECT_ID="777"),
            lambda place: mpx("retry", str(place.db)),
        ),
    ),
    "mpx query: a value without a name": steps(exists, lambda place: query_of(place, "SELECT 1", "-p", "x")),
    "mpx query: a name without a value": steps(
        exists, lambda place: query_of(place, "SELECT $a", "-p", "b=1")
    ),
    "mpx query: no SQL at all": shell("query"),
    "mpx query: SQL and a file": shell("query", "SELECT 1", "--file", "x.sql"),
    "mpx mp: no first day": shell("mp", "fetch", "events"),
    "mpx mp: two modes": shell("mp", "fetch", "events", *WEEK, "--append", "--replace"),
    "mpx mp: --raw alone": shell("mp", "fetch", "events", *WEEK, "--raw"),
    "mpx mp: no SQL": shell("mp", "query", "sql"),
    "mpx mp: no table": shell("mp", "inspect", "schema"),
    "mpx mp: no file with SQL": shell("mp", "query", "sql", "--file", "none.sql"),
    "mpx mp: --jq with CSV": steps(exists, inspected("--jq", ".", "--format", "csv")),
    "mpx mp: --jq without jq": steps(steps(exists, environment(PATH="")), inspected("--jq", ".")),
    "mpx mp: --jq with a wrong expression": steps(steps(exists, failing_jq), inspected("--jq", "x")),
    "mpx mp: a command without counterpart": shell("mp", "query", "funnel", "123"),
    "mpx accounts add: no user name": shell("accounts", "add", "main"),
    "mpx accounts add: no name": shell("accounts", "add"),
    "mpx accounts add: a colon in the user name": shell("accounts", "add", "main", "--username", "u:v"),
    "mpx accounts add: a project that is no number": shell(
        "accounts", "add", "main", "--username", "u", "--project-id", "x"
    ),
    "mpx accounts add: no secret": shell("accounts", "add", "main", "--username", "u", "--project-id", "1"),
    "mpx accounts add: a secret that is no text": shell(
        "accounts", "add", "main", "--username", "u", "--project-id", "1", "--secret-stdin", typed=b"\xff"
    ),
    "no keyring": with_keyring(no_backend(), lambda _: store_secret("svc.1", "s")),
    "no package for the keyring": without_keyring,
    "a secret that the keyring lost": with_keyring(InMemory(), lambda _: read_secret("svc.1")),
    "mpx accounts add: a zone of a project in UTC": added_account(
        ACCOUNT.project_id, "--project-timezone", "Asia/Tokyo"
    ),
    "mpx accounts add: no access to the project": added_account("54321"),
    "mpx accounts remove: no terminal": steps(configured(), shell("accounts", "remove", "main")),
    "mpx accounts default: none": steps(configured(), shell("accounts", "default")),
    "mpx demo: another's table": steps(exists, lambda place: mpx("demo", "--db", str(place.db))),
    "mpx simulate: a port in use": port_in_use,
    "mpx simulate: no such time zone": shell("simulate", "--timezone", "Mars"),
    "mpx simulate: faults that are none": lambda place: (
        (place.folder / "faults.toml").write_text("x = 1"),
        mpx("simulate", "--faults", str(place.folder / "faults.toml")),
    )[1],
    **PROFILE_CASES,
    **PUBLISH_CASES,
    **STREAM_CASES,
    **SYNC_CASES,
    **PROFILE_COMMAND_CASES,
    **VERIFY_CASES,
}
