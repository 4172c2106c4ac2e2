"""Publications of profiles: one file, which equals the table after any history."""

from collections import Counter
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import duckdb
import pytest
from data_sets import Row, publish
from examples import examples
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from support import ACCOUNT, NOW, query, simulator

from mixpanel_export import PublishError, PublishProgress, PublishResult, Workspace, export_profiles, run_sync
from mixpanel_export.simulator import ProfileRules

Mode = Literal["create", "replace", "append"]


def export_profiles_of(db: Path, mode: Mode = "create", count: int = 25, revision: int = 0) -> None:
    """Export the profiles of a project. Revisions differ in some profiles."""
    sim = simulator(profiles=count, profile_rules=ProfileRules(page_size=10), queries_per_hour=0)
    sim.profile_revision = revision
    fetch = partial(export_profiles, credentials=ACCOUNT, api_url="http://127.0.0.1", now=lambda: NOW)
    run_sync(fetch, db=db, mode=mode, per_hour=0, allow_empty=True, transport=sim.transport())


def profile_rows(db: Path, table: str) -> Counter[Row]:
    """Return the rows that a data set of the table must have."""
    return Counter(query(db, f"SELECT * EXCLUDE (export_batch) FROM {table}"))


class ProfilePublications(RuleBasedStateMachine):
    """A changing project is exported and published. Some publications fail, and the file may be lost."""

    format = "parquet"
    needs_all_files = False
    """Whether readers fail while a file is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory(ignore_cleanup_errors=True)
        self.db = Path(self.folder.name, "test.duckdb")
        self.lakes = {table: Path(self.folder.name, table) for table in ("profiles", "profiles_flat")}
        self.exported = False
        self.lost: set[str] = set()
        self.published: dict[str, Counter[Row]] = {}
        self.versions: dict[str, list[Counter[Row]]] = {table: [Counter()] for table in self.lakes}
        self.doubtful: set[str] = set()  # data sets that may be written again

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule(mode=st.sampled_from(["append", "replace"]), count=st.integers(0, 30), revision=st.integers(0, 2))
    def export(self, mode: Mode, count: int, revision: int) -> None:
        export_profiles_of(self.db, mode if self.exported else "create", count, revision)
        self.exported = True

    @precondition(lambda self: self.exported)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        ids = [name for (name,) in query(self.db, "SELECT DISTINCT distinct_id FROM profiles ORDER BY 1")]
        with Workspace(path=self.db) as workspace:
            workspace.forget(data.draw(st.sampled_from([*ids, "nobody"])))

    @precondition(lambda self: self.published)
    @rule(data=st.data())
    def a_file_is_lost(self, data: st.DataObject) -> None:
        table = data.draw(st.sampled_from(sorted(self.published)))
        for file in self.lakes[table].glob("*.parquet"):
            file.unlink()
        self.lost.add(table)
        self.doubtful.add(table)

    @precondition(lambda self: self.exported)
    @rule(table=st.sampled_from(["profiles", "profiles_flat"]), files=st.integers(0, 1))
    def a_publication_fails(self, table: str, files: int) -> None:
        """It fails before or after it has written the file, unless there is nothing to do."""

        def fail(progress: PublishProgress) -> None:
            if progress.days_done == files:
                raise RuntimeError

        with suppress(RuntimeError):
            self._publish(table, on_progress=fail)
        self.doubtful.add(table)
        self.versions[table].append(profile_rows(self.db, table))
        if not (table in self.lost and self.needs_all_files):
            assert self.rows(self.lakes[table]) in self.versions[table]

    @precondition(lambda self: self.exported)
    @rule(table=st.sampled_from(["profiles", "profiles_flat"]), verify=st.booleans())
    def publish(self, table: str, verify: bool) -> None:
        result = self._publish(table, verify=verify)
        self.lost.discard(table)
        rows = profile_rows(self.db, table)
        assert self.rows(self.lakes[table]) == rows
        assert (result.by_day, result.days, result.rows) == (False, 1, rows.total())
        assert (result.removed_days, result.different_days) == ((), () if verify else None)
        if table not in self.doubtful and self.published.get(table) == rows and table == "profiles":
            assert result.written_days == ()
        self.doubtful.discard(table)
        self.published[table] = rows
        self.versions[table].append(rows)

    def rows(self, lake: Path) -> Counter[Row]:
        """Return the rows that readers of the data set see."""
        return file_rows(lake) if (lake / "data.parquet").exists() else Counter()

    def _publish(self, table: str, **options: Any) -> PublishResult:
        flat = table == "profiles_flat"
        return publish(self.db, self.lakes[table], "profiles", flat=flat, format=self.format, **options)


def file_rows(lake: Path) -> Counter[Row]:
    """Return the rows of the only file."""
    with duckdb.connect() as connection:
        return Counter(connection.execute(f"FROM read_parquet('{lake}/data.parquet')").fetchall())


ProfilePublications.TestCase.settings = settings(examples(core=2, full=200), stateful_step_count=12)
TestProfilePublications = ProfilePublications.TestCase


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    return tmp_path / "lake"


def test_a_planted_difference_is_found(db: Path, lake: Path) -> None:
    """`verify` finds a file whose rows differ from the table, although no export changed it. The next run writes it again."""
    export_profiles_of(db)
    publish(db, lake, "profiles")
    query(db, "UPDATE profiles SET last_seen = '2020-01-01' WHERE rowid = 3")
    assert publish(db, lake).written_days == ()
    assert publish(db, lake, verify=True).different_days == ("all",)
    result = publish(db, lake, verify=True)
    assert (result.written_days, result.different_days) == (("all",), ())


def test_an_unchanged_table_is_not_written_again(db: Path, lake: Path) -> None:
    """A new snapshot with the same profiles leaves the file. An empty table has a file with its columns."""
    export_profiles_of(db)
    assert publish(db, lake, "profiles").written_days == ("all",)
    before = (lake / "data.parquet").stat().st_mtime_ns
    export_profiles_of(db, "replace")
    assert publish(db, lake, verify=True).written_days == ()
    assert (lake / "data.parquet").stat().st_mtime_ns == before
    export_profiles_of(db, "replace", count=0)
    assert publish(db, lake, verify=True).verified
    assert [path.name for path in lake.iterdir()] == ["data.parquet"]
    assert file_rows(lake) == Counter()


def test_events_and_profiles_are_not_mixed(db: Path, lake: Path) -> None:
    """A data set of profiles does not become one of events, and a file of the user is not replaced."""
    export_profiles_of(db)
    lake.mkdir()
    (lake / "data.parquet").write_text("mine")
    with pytest.raises(PublishError):
        publish(db, lake, "profiles")
    assert (lake / "data.parquet").read_text() == "mine"
