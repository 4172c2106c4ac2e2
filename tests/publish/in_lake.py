"""Object stores and Delta tables. `nox -s lake` installs what this needs, and runs it; other runs do not collect it."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import obstore
import polars as pl
import pyarrow.dataset as pads
import pytest
from azure import ACCOUNT, CONTAINER, KEY, azure_server
from changing_days import FIRST
from data_sets import Row, by_day, data_set, publish, table_rows
from deltalake import DeltaTable
from examples import examples
from hypothesis import settings
from object_stores import BUCKET, Server, s3_server
from obstore.store import from_url
from support import export, query, simulator
from test_publish_histories import Publications
from test_publish_profiles import ProfilePublications, export_profiles_of, profile_rows

from mixpanel_export import ArgumentError, ConfigError, PublishError, PublishProgress, Workspace, run_sync

pytestmark = pytest.mark.timeout(1200)
LAST = "2024-03-06"


@pytest.fixture
def exported(db: Path) -> Path:
    """A database with six days, and a row without a time."""
    run_sync(export, simulator(odd=0.05), db, str(FIRST), LAST, chunk_days=1)
    query(db, "UPDATE events SET event_time = NULL WHERE event_time = (SELECT max(event_time) FROM events)")
    return db


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server with a bucket, whose credentials are in the environment."""
    for name, value in {"ACCESS_KEY_ID": "id", "SECRET_ACCESS_KEY": "key", "REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    with s3_server() as server:
        yield server


def options(endpoint: str) -> dict[str, Any]:
    """Return the options of a publication to the server."""
    return {"endpoint": endpoint, "allow_http": True}


def downloaded(endpoint: str, prefix: str, folder: Path) -> Path:
    """Download all objects of a data set into a new folder."""
    store = from_url(f"s3://{BUCKET}/{prefix}", endpoint=endpoint, client_options={"allow_http": True})
    folder.mkdir()
    for page in obstore.list(store):
        for meta in page:
            path = folder / meta["path"]
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_bytes(bytes(obstore.get(store, meta["path"]).bytes()))
    return folder


def delta_rows(table: DeltaTable | str) -> Counter[Row]:
    """Return the rows of a Delta table, as polars reads them."""
    return Counter(pl.read_delta(table).rows())


@pytest.mark.parametrize("format_name", ["parquet", "delta"])
def test_a_bucket_equals_the_table(exported: Path, server: Server, tmp_path: Path, format_name: str) -> None:
    """A publication to S3 writes changed days only, also while a fifth of the requests fails."""
    endpoint = server.endpoint
    url = f"s3://{BUCKET}/lake/events"
    server.fail(0.2)
    first = published(exported, url, format=format_name, **options(endpoint))
    query(exported, f"DELETE FROM events WHERE event_time::DATE = '{FIRST}'")
    query(exported, "DELETE FROM events WHERE event_time = (SELECT max(event_time) FROM events)")
    published(exported, url, **options(endpoint))
    assert server.fail(0.0)
    last = publish(exported, url, verify=True, **options(endpoint))
    assert (last.written_days, last.different_days, last.days) == ((), (), first.days - 1)
    folder = downloaded(endpoint, "lake/events", tmp_path / "copy")
    rows = data_set(folder) if format_name == "parquet" else delta_rows(str(folder))
    assert rows == table_rows(exported)


def published(db: Path, url: str, **more: Any) -> Any:
    """Publish until it succeeds; a commit whose response was lost looks like that of another publication."""
    for _ in range(20):
        try:
            return publish(db, url, **more)
        except PublishError:
            continue
    raise AssertionError


@pytest.mark.parametrize("format_name", ["parquet", "delta"])
def test_profiles_in_a_bucket_equal_the_table(
    db: Path, server: Server, tmp_path: Path, format_name: str
) -> None:
    """A changed table is one new object, an unchanged one is none, and a forgotten person leaves the bucket."""
    url = f"s3://{BUCKET}/lake/profiles"
    more = options(server.endpoint)
    export_profiles_of(db)
    publish(db, url, "profiles", format=format_name, **more)
    export_profiles_of(db, "replace")
    assert publish(db, url, **more).written_days == ()
    with Workspace(path=db) as workspace:
        workspace.forget(query(db, "SELECT min(distinct_id) FROM profiles")[0][0])
    result = publish(db, url, verify=True, prune_after=0, **more)
    assert (result.written_days, result.different_days) == (("all",), ())
    folder = downloaded(server.endpoint, "lake/profiles", tmp_path / "copy")
    assert len(list(folder.glob("*.parquet"))) == 1
    frame = pl.read_parquet(next(folder.glob("*.parquet"))).with_columns(pl.col("properties").cast(pl.String))
    assert Counter(frame.rows()) == profile_rows(db, "profiles")


def test_large_files_are_uploaded_in_parts(db: Path, server: Server) -> None:
    """A file of several parts arrives whole, although requests fail."""
    endpoint = server.endpoint
    run_sync(export, simulator(events_per_day=30), db, str(FIRST), str(FIRST))
    query(
        db,
        "UPDATE events SET properties = json_object('x', (SELECT string_agg(hash(i, events.rowid), '') FROM range(100_000) r(i)))",
    )
    server.fail(0.2)
    result = published(db, f"s3://{BUCKET}/large", verify=True, **options(endpoint))
    assert result.verified
    assert result.bytes_written > 16 << 20


def test_a_failed_upload_leaves_the_old_file(exported: Path, server: Server, tmp_path: Path) -> None:
    """If a publication is interrupted, each object is the old or the new one."""
    endpoint = server.endpoint
    publish(exported, f"s3://{BUCKET}/x", **options(endpoint))
    old = by_day(table_rows(exported))
    query(exported, "UPDATE events SET event_name = 'new'; UPDATE _export_batches SET revision = 9")
    new = by_day(table_rows(exported))

    def fail(progress: PublishProgress) -> None:
        if progress.days_done == 2:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        publish(exported, f"s3://{BUCKET}/x", on_progress=fail, **options(endpoint))
    rows = by_day(data_set(downloaded(endpoint, "x", tmp_path / "copy")))
    assert rows.keys() == old.keys()
    assert all(rows[day] in (old[day], new[day]) for day in rows)
    assert not list(exported.parent.glob(".*publish*"))


def test_a_container_of_azure_equals_the_table(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second publication leaves the files of unchanged days, and files that are read back equal the table."""
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)
    url = f"az://{CONTAINER}/lake/events"
    with azure_server() as endpoint:
        publish(exported, url, **options(endpoint))
        query(exported, f"DELETE FROM events WHERE event_time::DATE = '{FIRST}'")
        query(exported, f"DELETE FROM events WHERE event_time >= '{LAST} 12:00'")
        result = publish(exported, url, verify=True, **options(endpoint))
    assert (result.written_days, result.removed_days) == ((LAST,), (str(FIRST),))
    assert result.verified


@pytest.mark.parametrize("format_name", ["parquet", "delta"])
def test_an_endpoint_for_google_is_used(
    exported: Path, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format_name: str
) -> None:
    """A publication to Google Cloud Storage asks this server, which has no such bucket."""
    account = {"disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
    (tmp_path / "account.json").write_text(json.dumps(account), encoding="utf-8")
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(tmp_path / "account.json"))
    with pytest.raises(PublishError, match="NoSuchBucket"):
        publish(exported, "gs://no-bucket/x", format=format_name, **options(server.endpoint))


def test_wrong_buckets_and_servers_are_errors(exported: Path, server: Server) -> None:
    """The error has the server's reason. HTTP must be allowed."""
    endpoint = server.endpoint
    with pytest.raises(PublishError, match="NoSuchBucket"):
        publish(exported, "s3://no-bucket/x", **options(endpoint))
    with pytest.raises(ArgumentError, match="endpoint"):
        publish(exported, f"s3://{BUCKET}/x", endpoint=endpoint)
    with pytest.raises(PublishError, match="az://"):
        publish(exported, "az://container/x", **options(endpoint))


def test_a_delta_table_changes_at_once(exported: Path, tmp_path: Path) -> None:
    """A reader sees one version: the old rows until the commit. A new schema is one commit, too. Old files are pruned."""
    lake = str(tmp_path / "lake")
    publish(exported, lake, format="delta", flat=True)
    columns = "SELECT * EXCLUDE (export_batch), event_time::DATE FROM events_flat"
    assert delta_rows(lake) == Counter(query(exported, columns))
    old = DeltaTable(lake)
    query(
        exported,
        f"UPDATE events SET properties = '{{\"a b\": 1, \"date\": true}}' WHERE event_time::DATE = '{LAST}'",
    )
    query(exported, "UPDATE _export_batches SET revision = 5")
    publish(exported, lake)
    assert delta_rows(lake) == Counter(query(exported, columns))
    assert {"a_b", "date_2"} <= set(pl.read_delta(lake).columns)
    assert old.version() < DeltaTable(lake).version()
    query(exported, f"DELETE FROM events WHERE event_time::DATE = '{FIRST}'")
    publish(exported, lake, prune_after=0)
    assert delta_rows(lake) == Counter(query(exported, columns))
    files = {path.relative_to(lake).as_posix() for path in Path(lake).glob("*/*.parquet")}
    assert files == {uri.rpartition("/lake/")[2] for uri in DeltaTable(lake).file_uris()}


def test_of_two_publishers_one_fails(exported: Path, tmp_path: Path) -> None:
    """If another database commits during a publication, the publication fails, and the table is that of the other."""
    lake, other = str(tmp_path / "lake"), tmp_path / "other.duckdb"
    run_sync(export, simulator(), other, str(FIRST), str(FIRST))
    publish(exported, lake, format="delta")
    with pytest.raises(PublishError, match="another database"):
        publish(other, lake, format="delta")
    query(exported, "UPDATE _export_batches SET revision = 5; UPDATE events SET event_name = 'x'")

    def interfere(progress: PublishProgress) -> None:
        if progress.days_done == 1:
            publish(other, lake, format="delta", overwrite=True)

    with pytest.raises(PublishError, match="at the same time"):
        publish(exported, lake, on_progress=interfere)
    assert delta_rows(lake) == table_rows(other)
    with pytest.raises(PublishError, match="another database"):
        publish(exported, lake)
    publish(exported, lake, overwrite=True)
    assert delta_rows(lake) == table_rows(exported)


def test_a_delta_table_keeps_its_partitions(exported: Path, tmp_path: Path) -> None:
    """Profiles, which have no days, do not replace events, even if the files are deleted. The table stays readable."""
    lake, people = tmp_path / "lake", tmp_path / "people.duckdb"
    publish(exported, lake, format="delta")
    export_profiles_of(people)
    with pytest.raises(PublishError, match="partitioned by date"):
        publish(people, lake, "profiles", format="delta", overwrite=True)
    assert delta_rows(str(lake)) == table_rows(exported)
    for file in lake.glob("*/*.parquet"):
        file.unlink()
    with pytest.raises(PublishError, match="partitioned by date"):
        publish(people, lake, "profiles", format="delta")
    publish(exported, lake)
    assert delta_rows(str(lake)) == table_rows(exported)


def test_other_readers_see_the_same_rows(exported: Path, tmp_path: Path) -> None:
    """polars, pyarrow and DuckDB read a folder alike, with a date for each partition."""
    lake = tmp_path / "lake"
    publish(exported, lake)
    expected = table_rows(exported)
    frame = pl.read_parquet(lake / "*" / "*.parquet", hive_partitioning=True)
    frame = frame.with_columns(pl.col("properties").cast(pl.String))  # polars does not know the JSON type
    assert Counter(frame.rows()) == expected
    table = pads.dataset(lake, partitioning="hive").to_table()
    table = table.set_column(5, "date", table["date"].cast("date32"))
    assert Counter(zip(*(column.to_pylist() for column in table.columns), strict=True)) == expected
    with duckdb.connect() as connection:
        ((kind,),) = connection.execute(f"SELECT DISTINCT typeof(date) FROM '{lake}/*/*.parquet'").fetchall()
    assert kind == "DATE"


def test_missing_packages_are_errors(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, the error has the command that installs it, and a folder works."""
    import sys  # noqa: PLC0415

    monkeypatch.setitem(sys.modules, "deltalake", None)
    with pytest.raises(ConfigError, match="deltalake"):
        publish(exported, tmp_path / "lake", format="delta")
    publish(exported, tmp_path / "lake")


class DeltaPublications(Publications):
    """The same histories, published as a Delta table."""

    format = "delta"
    needs_all_files = True

    def rows(self) -> Counter[Row]:
        return delta_rows(str(self.lake)) if (self.lake / "_delta_log").exists() else Counter()


class DeltaProfiles(ProfilePublications):
    """Histories of profiles, published as a Delta table."""

    format = "delta"
    needs_all_files = True

    def rows(self, lake: Path) -> Counter[Row]:
        return delta_rows(str(lake)) if (lake / "_delta_log").exists() else Counter()


DeltaProfiles.TestCase.settings = settings(examples(core=3, full=200), stateful_step_count=12)
TestDeltaProfiles = DeltaProfiles.TestCase
DeltaPublications.TestCase.settings = settings(examples(core=4, full=200), stateful_step_count=12)
TestDelta = DeltaPublications.TestCase
