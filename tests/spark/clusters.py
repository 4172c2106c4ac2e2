"""A standalone cluster of Spark on loopback, with two workers of one core each."""

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyspark
from spark_sessions import process_environment

HOME = Path(pyspark.__file__).parent
HOSTS = ("127.0.0.1", "127.0.0.2")  # a speculative copy of a task runs on another host only
_URL = re.compile(r"spark://[\w.]+:\d+")


@dataclass(frozen=True, slots=True)
class Cluster:
    """The processes of a cluster."""

    url: str
    """The address of the master."""
    workers: Sequence[int]
    """The process IDs of the workers."""

    def executors(self) -> list[int]:
        """Return the process IDs of the executors, at most one for each worker."""
        return [child for worker in self.workers for child in _children(worker)]

    def python_workers(self) -> list[int]:
        """Return the process IDs of the Python workers. Each executor has a daemon, whose forks they are."""
        daemons = [child for executor in self.executors() for child in _children(executor)]
        return [child for daemon in daemons for child in _children(daemon)]


@contextmanager
def cluster_in(folder: Path) -> Iterator[Cluster]:
    """Start a cluster that writes into *folder*, and end its processes."""
    with ExitStack() as stack:

        def start(name: str, host: str, *words: str) -> tuple[subprocess.Popen[bytes], Path]:
            settings = {
                "SPARK_HOME": str(HOME),
                "SPARK_DAEMON_MEMORY": "256m",
                "SPARK_LOCAL_IP": host,
                "SPARK_LOCAL_DIRS": str(folder / f"local-{host}"),
                "SPARK_MASTER_OPTS": "-Dspark.worker.timeout=600",
            }
            command = [
                str(HOME / "bin" / "spark-class"),
                f"org.apache.spark.deploy.{name.lower()}.{name}",
                *("--host", host, "--port", "0", "--webui-port", "0", *words),
            ]
            log = folder / f"{name}-{host}.log"
            environment = os.environ | process_environment(folder) | settings
            return stack.enter_context(_process(command, environment, log)), log

        master, log = start("Master", HOSTS[0])
        until(lambda: master.poll() is not None or _URL.search(log.read_text()))
        match = _URL.search(log.read_text())
        assert match, log.read_text()
        workers = [
            start("Worker", host, "--cores", "1", "--work-dir", str(folder / f"work-{host}"), match[0])[0]
            for host in HOSTS
        ]
        yield Cluster(match[0], [worker.pid for worker in workers])


def until(condition: Callable[[], object]) -> None:
    """Wait for *condition*. The timeout of the test is the only limit."""
    while not condition():
        time.sleep(0.1)


@contextmanager
def _process(
    command: Sequence[str], environment: Mapping[str, str], log: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            process.terminate()
            process.wait()


def _children(parent: int) -> list[int]:
    """Return the process IDs of the children of a process."""
    children = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = status.read_text("latin-1")
        except OSError:  # the process has ended
            continue
        _, _, fields = text.rpartition(") ")  # the name of the program may have spaces
        if int(fields.split()[1]) == parent:
            children.append(int(status.parent.name))
    return children
