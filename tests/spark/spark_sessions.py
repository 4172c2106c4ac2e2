"""Sessions of Spark for the tests, reads with the data source, and what Spark writes."""

import os
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession

from mixpanel_export.integrations.spark import MixpanelEvents
from mixpanel_export.simulator import checksum

FIRST, LAST = date(2024, 3, 1), date(2024, 3, 9)
USERNAME, SECRET = "demo.mp-service-account", "spark-secret-7f3a"
AWKWARD = {"odd": 0.05, "awkward": 0.05, "leaks": 0.05, "rejects": 0.01, "secret": SECRET}


def process_environment(folder: Path) -> dict[str, str]:
    """Return the environment variables for a process of Spark. They hold the credentials."""
    return {
        "MP_USERNAME": USERNAME,
        "MP_SECRET": SECRET,
        "MP_PROJECT_ID": "12345",
        "MP_CONFIG_PATH": str(folder / "none.toml"),
        "MPX_PER_SECOND": "0",
        "MPX_PER_HOUR": "0",
        "MPX_STATE_DIR": str(folder / "state"),
        "PYSPARK_PYTHON": sys.executable,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "SPARK_LOCAL_IP": "127.0.0.1",
    }


@contextmanager
def spark_session(master: str, folder: Path, **options: str) -> Iterator[SparkSession]:
    """Start a session on *master* that writes into *folder*, and register the data source."""
    defaults = {
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.local.dir": str(folder / "local"),
    }
    with pytest.MonkeyPatch.context() as environment:
        for name, value in process_environment(folder).items():
            environment.setenv(name, value)
        session = SparkSession.builder.master(master).config(map=defaults | options).getOrCreate()
        try:
            session.dataSource.register(MixpanelEvents)
            yield session
        finally:
            session.stop()


def read(spark: SparkSession, url: str, **options: Any) -> DataFrame:
    """Return the events of all days. *options* are those of the data source."""
    defaults = {"from_date": FIRST, "to_date": LAST, "chunk_days": 3, "api_url": url, "retries": 0}
    reader = spark.read.format("mixpanel")
    for name, value in (defaults | options).items():
        reader = reader.option(name, str(value))
    return reader.load()


def content(events: DataFrame) -> int:
    """Return the checksum of all rows."""
    return checksum(tuple(row) for row in events.collect())


def files(folder: Path) -> dict[Path, bytes]:
    """Return the contents of all files in a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def contains_secret(data: bytes) -> bool:
    """Return whether the secret is in *data*, as it is or in the form of the header `Authorization`."""
    encoded = b64encode(f"{USERNAME}:{SECRET}".encode())
    return SECRET.encode() in data or encoded in data
