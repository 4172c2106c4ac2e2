"""The data source in a real Spark. `nox -s spark` installs what this needs, and runs it; other runs do not collect it."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from shell import served
from spark_sessions import AWKWARD, FIRST, LAST, SECRET, contains_secret, content, files, read, spark_session
from support import COLUMNS, export, query, simulator

from mixpanel_export import run_sync
from mixpanel_export._publish.publish import publish_table
from mixpanel_export._quota.limits import Quota
from mixpanel_export.integrations.spark import deduplicated
from mixpanel_export.integrations.spark.partitions import start_times
from mixpanel_export.simulator import Fault

pytestmark = pytest.mark.timeout(1200)

CONTROL = "control-string-91c2"
TYPES = [
    ("event_name", "string"),
    ("event_time", "timestamp_ntz"),
    ("distinct_id", "string"),
    ("insert_id", "string"),
    ("properties", "string"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder for all that Spark writes."""
    return tmp_path_factory.mktemp("spark")


@pytest.fixture(scope="module")
def spark(folder: Path) -> Iterator[SparkSession]:
    """A session with two cores, in which a task may fail three times. Its processes have the credentials."""
    (folder / "log").mkdir()
    log = folder / "log4j2.properties"
    log.write_text(
        f"rootLogger.level = debug\nrootLogger.appenderRef.file.ref = file\nappender.file.type = File\n"
        f"appender.file.name = file\nappender.file.fileName = {folder}/log/spark.log\n"
        "appender.file.layout.type = PatternLayout\n"
    )
    options = {
        "spark.eventLog.enabled": "true",
        "spark.eventLog.compress": "false",
        "spark.eventLog.dir": (folder / "log").as_uri(),
        "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={log}",
    }
    with spark_session("local[2,4]", folder, **options) as session:
        yield session


def test_a_dataframe_is_exact_after_faults_and_task_retries(spark: SparkSession) -> None:
    """The rows, without duplicates across partitions, equal the truth; tasks that failed leave nothing."""
    faults = [
        Fault("reset", first=FIRST, last=FIRST, times=2),
        Fault("terminated_early", first=LAST, times=1),
    ]
    sim = simulator(**AWKWARD, faults=faults)
    with served(sim) as url:
        events = read(spark, url)
        assert events.dtypes == TYPES
        assert content(deduplicated(events)) == sim.truth(FIRST, LAST).checksum
    assert len(sim.requests) > 3


def test_a_partition_that_cannot_be_proven_fails_the_job(spark: SparkSession, folder: Path) -> None:
    """Nothing is written, and the error of the days is in Spark's error."""
    sim = simulator(secret=SECRET, faults=[Fault("terminated_early", first=LAST, last=LAST)])
    with served(sim) as url, pytest.raises(PySparkException, match="2024-03-07 to 2024-03-09"):
        read(spark, url).write.parquet(str(folder / "failed"))
    assert not list((folder / "failed").glob("*.parquet"))


def test_only_names_are_pushed_down(spark: SparkSession) -> None:
    """With Spark's setting, only the events of the filter are requested; the rows are the same without it."""
    sim = simulator(**AWKWARD)
    counts = set()
    with served(sim) as url:
        for setting in ("false", "true"):
            spark.conf.set("spark.sql.python.filterPushdown.enabled", setting)
            events = read(spark, url).where("event_name = 'Page View' and event_time >= '2024-03-04'")
            counts.add(content(deduplicated(events)))
            pushed = ["event" in request.params for request in sim.requests[-3:]]
            assert pushed == [setting == "true"] * 3
    spark.conf.set("spark.sql.python.filterPushdown.enabled", "false")
    assert len(counts) == 1


def test_kept_days_are_requested_once(spark: SparkSession, folder: Path) -> None:
    """With `keep`, a second action sends no request, and a wider range only those for the new days."""
    sim = simulator(**AWKWARD)
    with served(sim) as url:
        keep = folder / "keep"
        first = content(read(spark, url, keep=keep, to_date="2024-03-06"))
        requests = len(sim.requests)
        assert content(read(spark, url, keep=keep, to_date="2024-03-06")) == first
        assert len(sim.requests) == requests
        assert content(deduplicated(read(spark, url, keep=keep))) == sim.truth(FIRST, LAST).checksum
        assert {request.first for request in sim.requests[requests:]} == {date(2024, 3, 7)}


def test_a_published_data_set_equals_the_table(spark: SparkSession, tmp_path: Path) -> None:
    """Spark reads the folders of all days, NULL for the one of events without a time, and properties as text."""
    db, lake = tmp_path / "events.duckdb", tmp_path / "lake"
    run_sync(export, simulator(odd=0.05), db, FIRST, LAST)
    run_sync(publish_table, db, lake)
    events = spark.read.parquet(str(lake))
    assert events.dtypes == [*TYPES, ("date", "date")]
    rows = Counter(tuple(row) for row in events.collect())
    assert rows == Counter(query(db, f"SELECT {COLUMNS}, event_time::DATE FROM events"))
    assert any(row[-1] is None for row in rows)


def test_a_stream_reads_each_final_day_once(spark: SparkSession, folder: Path) -> None:
    """After a restart, the stream goes on with the next day; days that are not final wait."""
    today = datetime.now(UTC).date()
    first, middle, last = (today - timedelta(days=days) for days in (8, 5, 3))
    sim = simulator(secret=SECRET, now=lambda: datetime.now(UTC), leaks=0.0)
    table = str(folder / "stream")
    with served(sim) as url:
        for to_date in (middle, None, None):
            reader = (
                spark.readStream.format("mixpanel").option("from_date", str(first)).option("api_url", url)
            )
            if to_date:
                reader = reader.option("to_date", str(to_date))
            query = (
                reader.load()
                .writeStream.format("parquet")
                .option("checkpointLocation", str(folder / "checkpoint"))
                .trigger(availableNow=True)
                .start(table)
            )
            query.awaitTermination()
    assert content(spark.read.parquet(table)) == sim.truth(first, last).checksum
    requested = [(request.first, request.last) for request in sim.requests]
    assert len(requested) == len(set(requested))


@pytest.mark.parametrize(
    "options, text",
    [
        ({"secret": "x"}, "logs"),
        ({"no_such": "x"}, "no_such"),
        ({"to_date": "2024-02-01"}, "to_date"),
        ({"to_date": "2999-01-01"}, "future"),
        ({"chunk_days": "x"}, "chunk_days"),
        ({"events": "x"}, "events"),
        ({"dedupe": "x"}, "dedupe"),
        ({"chunk_days": 1, "per_hour": 6, "wait_for_quota": "false"}, "9 requests"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], text: str, spark: SparkSession) -> None:
    """The error is raised on the driver, and nothing is requested."""
    sim = simulator(secret=SECRET)
    with served(sim) as url, pytest.raises(PySparkException, match=text):
        read(spark, url, **options).collect()
    assert not sim.requests


def test_starts_stay_within_the_quota() -> None:
    """At most 3 requests start in a second, and 50 in an hour."""
    starts = start_times(120, Quota.resolved(3, 60))
    assert starts[:4] == [0.0, 0.0, 0.0, 1.0]
    assert [sum(hour * 3600 <= start < (hour + 1) * 3600 for start in starts) for hour in range(3)] == [
        50,
        50,
        20,
    ]
    assert start_times(5, Quota.resolved(0, 0)) == [0.0] * 5


def test_no_secret_is_in_anything_that_spark_writes(spark: SparkSession, folder: Path) -> None:
    """Plans, event logs, debug logs and checkpoints lack the secret; the search finds a control string in them."""
    sim = simulator(secret=SECRET)
    with served(sim) as url:
        read(spark, url).where(f"event_name <> '{CONTROL}'").collect()
        sim.faults = [Fault("401")]
        with pytest.raises(PySparkException, match="AuthenticationError"):
            read(spark, url).collect()
    spark.sparkContext._jsc.sc().listenerBus().waitUntilEmpty()
    written = files(folder)
    assert any(CONTROL.encode() in data for path, data in written.items() if "eventlog" in str(path))
    assert any(b"AuthenticationError" in data for path, data in written.items() if path.name == "spark.log")
    assert not [path for path, data in written.items() if contains_secret(data)]
