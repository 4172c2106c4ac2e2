"""dbt: the real program reads the sources, and the model has the events of each day."""

import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import anyio
import pytest
import yaml
from pages import blocks, page
from support import export, query, simulator
from tools import install, tools_folder

# dbt-core 1.12 downloads a part of itself from a host that is no package index.
PACKAGES = ["dbt-core>=1.11,<1.12", "dbt-duckdb>=1.11", "duckdb>=2.0"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the files of the page, and an exported file with flat tables."""
    names = re.findall(r"`([\w/]+\.(?:yml|sql))`:", page("dbt"))
    texts = [*blocks("dbt", "yaml"), *blocks("dbt", "sql")]
    for name, text in zip(names, texts, strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    sim = simulator(events_per_day=20)
    anyio.run(partial(export, sim, tmp_path / "mixpanel.duckdb", flatten=True))
    return tmp_path


def test_the_sources_are_in_the_file(project: Path) -> None:
    """The profile attaches the exported file read-only, under the name that the sources use."""
    profile, _, sources = (yaml.safe_load(text) for text in blocks("dbt", "yaml"))
    (attached,) = profile["mixpanel"]["outputs"]["main"]["attach"]
    (source,) = sources["sources"]
    assert attached == {"path": "mixpanel.duckdb", "alias": source["database"], "read_only": True}
    for table in source["tables"]:
        columns = {name for name, *_ in query(project / attached["path"], f"DESCRIBE {table['name']}")}
        assert {
            table["config"]["loaded_at_field"],
            *(column["name"] for column in table["columns"]),
        } <= columns


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_dbt_builds_the_model(
    project: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The model has the events of each day, and old events are stale."""
    folder = install(tools_folder(request, tmp_path_factory), "dbt", *PACKAGES)
    env = os.environ | {"PYTHONPATH": str(folder), "DBT_SEND_ANONYMOUS_USAGE_STATS": "false"}

    def dbt(*words: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-P", "-m", "dbt.cli.main", *words, "--profiles-dir", "."]
        return subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, check=False)

    built = dbt("build")
    assert built.returncode == 0, built.stdout + built.stderr
    expected = query(
        project / "mixpanel.duckdb",
        "SELECT event_time::DATE, event_name, count(*) FROM events WHERE event_time IS NOT NULL GROUP BY ALL ORDER BY ALL",
    )
    assert (
        query(project / "analytics.duckdb", "SELECT day, event_name, events FROM daily_events ORDER BY ALL")
        == expected
    )
    assert dbt("source", "freshness").returncode == 0
    (freshness,) = json.loads((project / "target" / "sources.json").read_text(encoding="utf-8"))["results"]
    assert freshness["status"] == "warn"
