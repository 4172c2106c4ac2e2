"""The data source on a cluster whose processes are killed. Only `nox -s spark` runs these tests."""

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from clusters import Cluster, cluster_in, until
from pyspark.sql import SparkSession
from shell import served
from spark_sessions import AWKWARD, FIRST, LAST, contains_secret, content, files, read, spark_session
from support import simulator

from mixpanel_export.integrations.spark import deduplicated
from mixpanel_export.simulator import Fault

pytestmark = pytest.mark.timeout(1200)

OPTIONS = {
    "spark.driver.host": "127.0.0.1",
    "spark.cores.max": "2",
    "spark.executor.cores": "1",
    "spark.executor.memory": "512m",
    "spark.network.timeout": "600s",
    # The first job waits for both executors.
    "spark.scheduler.minRegisteredResourcesRatio": "1",
    "spark.scheduler.maxRegisteredResourcesWaitingTime": "600s",
    "spark.speculation": "true",
    "spark.speculation.interval": "100ms",
    "spark.speculation.quantile": "0.5",
    "spark.speculation.multiplier": "1.5",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder for all that Spark writes."""
    return tmp_path_factory.mktemp("cluster")


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster with two executors of one core each."""
    with cluster_in(folder) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def spark(cluster: Cluster, folder: Path) -> Iterator[SparkSession]:
    """A session on the cluster, with speculative execution."""
    with spark_session(cluster.url, folder, **OPTIONS) as session:
        yield session


def test_two_workers_read_the_truth(spark: SparkSession, cluster: Cluster) -> None:
    """Executors on two machines together return exactly the events."""
    sim = simulator(**AWKWARD)
    with served(sim) as url:
        assert content(deduplicated(read(spark, url, chunk_days=1))) == sim.truth(FIRST, LAST).checksum
    assert len(cluster.executors()) == 2


@pytest.mark.parametrize("processes", [Cluster.executors, Cluster.python_workers])
def test_processes_that_are_killed_while_they_fetch_change_nothing(
    processes: Callable[[Cluster], list[int]], spark: SparkSession, cluster: Cluster, folder: Path
) -> None:
    """Spark runs the lost tasks again, also those that had ended, and the table that it writes equals the truth."""
    sim = simulator(**AWKWARD, faults=[Fault("stall", after=4, times=2)])
    table = str(folder / processes.__name__)
    with ThreadPoolExecutor(1) as pool, served(sim) as url:
        events = deduplicated(read(spark, url, chunk_days=1))
        job = pool.submit(events.write.parquet, table)
        until(
            lambda: sum(request.fault == "stall" and request.bytes_sent > 0 for request in sim.requests) == 2
        )
        assert temporary_folders(folder)
        for process in processes(cluster):
            os.kill(process, signal.SIGKILL)
        job.result()
    assert content(spark.read.parquet(table)) == sim.truth(FIRST, LAST).checksum


def test_a_speculative_copy_changes_nothing(spark: SparkSession) -> None:
    """A task that hangs runs a second time, on the other executor, and its events are in the result once."""
    # Days with rejects would be requested twice.
    sim = simulator(**AWKWARD | {"rejects": 0.0}, faults=[Fault("stall", first=FIRST, last=FIRST, times=1)])
    spark.sparkContext.setJobGroup("speculation", "")
    with served(sim) as url:
        assert content(deduplicated(read(spark, url, chunk_days=1))) == sim.truth(FIRST, LAST).checksum
    assert [request.finished for request in sim.requests if request.first == FIRST] == [False, True]
    tracker = spark.sparkContext.statusTracker()
    stages = [
        tracker.getStageInfo(stage)
        for job in tracker.getJobIdsForGroup("speculation")
        for stage in tracker.getJobInfo(job).stageIds
    ]
    assert not sum(stage.numFailedTasks for stage in stages if stage)


def test_the_files_of_an_application_are_deleted_and_have_no_secret(
    spark: SparkSession, folder: Path
) -> None:
    """The end of an application deletes temporary files, also of killed tasks. The logs that stay lack the secret."""
    spark.stop()
    until(lambda: not temporary_folders(folder))
    written = files(folder)
    assert any(path.name == "stderr" for path in written)
    assert not [path for path, data in written.items() if contains_secret(data)]


def temporary_folders(folder: Path) -> list[str]:
    """Return the names of the folders for responses."""
    return [name for _, names, _ in os.walk(folder) for name in names if name.startswith("mpx-")]
