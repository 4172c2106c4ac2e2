"""After any history of exports, deletions and failures, a publication makes the data set equal to the table."""

from collections import Counter, defaultdict
from contextlib import suppress
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from changing_days import DAYS, Line, Server, run
from data_sets import Row, by_day, data_set, publish, table_rows
from examples import examples
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from mixpanel_export import PublishProgress, Workspace

LINES = st.lists(
    st.builds(
        Line,
        st.sampled_from(["a", "b"]),
        st.sampled_from([0, 24, 30, 71, 96, None]),  # few, so that days have events in common
        st.sampled_from(["d", "e"]),
        st.sampled_from(["i", "j", "", None]),
        st.sampled_from([1, 2, None]),
        st.sampled_from(["", "n"]),
    ),
    max_size=5,
)
DAY = st.sampled_from(DAYS)


class Publications(RuleBasedStateMachine):
    """A changing project is exported and published. Some publications fail, and some files are lost."""

    format = "parquet"
    needs_all_files = False
    """Whether readers fail while a file is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory(ignore_cleanup_errors=True)
        self.db = Path(self.folder.name, "test.duckdb")
        self.lake = Path(self.folder.name, "lake")
        self.server = Server()
        self.exported = False
        self.lost = False
        self.published: dict[str, Counter[Row]] = {}
        self.versions: dict[str, list[Counter[Row]]] = defaultdict(list)  # the rows that a day may have
        self.doubtful: set[str] | None = set()  # days whose files may be written again; None: all

    def teardown(self) -> None:
        self.folder.cleanup()

    @initialize(days=st.lists(LINES, min_size=len(DAYS), max_size=len(DAYS)))
    def begin(self, days: list[list[Line]]) -> None:
        self.server.days = dict(zip(DAYS, days, strict=True))

    @rule(day=DAY, lines=LINES)
    def events_come_and_go(self, day: date, lines: list[Line]) -> None:
        self.server.days[day] = lines

    @rule(
        mode=st.sampled_from(["append", "append", "replace"]),
        ends=st.one_of(st.tuples(DAY, DAY), DAY.map(lambda day: (day, day))),
        chunk_days=st.sampled_from([1, 1, 2]),
    )
    def export(self, mode: Literal["append", "replace"], ends: tuple[date, date], chunk_days: int) -> None:
        chosen = mode if self.exported else "create"
        run(self.server, self.db, min(ends), max(ends), mode=chosen, chunk_days=chunk_days, allow_empty=True)
        self.exported = True

    @precondition(lambda self: self.exported)
    @rule(person=st.sampled_from(["d", "e"]))
    def forget(self, person: str) -> None:
        with Workspace(path=self.db) as workspace:
            workspace.forget(person)

    @precondition(lambda self: self.published)
    @rule(data=st.data())
    def a_file_is_lost(self, data: st.DataObject) -> None:
        day = data.draw(st.sampled_from(sorted(self.published)))
        for file in self.lake.glob(f"date={day}/*.parquet"):
            file.unlink()
            self.lost = True
        if self.doubtful is not None:
            self.doubtful.add(day)

    @precondition(lambda self: self.exported)
    @rule(days=st.integers(0, 3))
    def a_publication_fails(self, days: int) -> None:
        """It fails after it has written some days, unless it has less to do."""

        def fail(progress: PublishProgress) -> None:
            if progress.days_done == days:
                raise RuntimeError

        self._record()
        with suppress(RuntimeError):
            publish(self.db, self.lake, format=self.format, on_progress=fail)
        self.doubtful = None
        if not (self.lost and self.needs_all_files):
            for day, rows in by_day(self.rows()).items():
                assert rows in self.versions[day]

    @precondition(lambda self: self.exported)
    @rule(verify=st.booleans())
    def publish(self, verify: bool) -> None:
        self._record()
        result = publish(self.db, self.lake, format=self.format, verify=verify)
        self.lost = False
        assert self.rows() == table_rows(self.db)
        assert result.different_days == (() if verify else None)
        new = by_day(table_rows(self.db))
        if self.doubtful is not None:
            changed = {day for day in new if new[day] != self.published.get(day)}
            assert set(result.written_days) == changed | (self.doubtful & new.keys())
            assert set(result.removed_days) == self.published.keys() - new.keys()
        self.published, self.doubtful = new, set()

    def rows(self) -> Counter[Row]:
        """Return the rows that readers of the data set see."""
        return data_set(self.lake)

    def _record(self) -> None:
        for day, rows in by_day(table_rows(self.db)).items():
            self.versions[day].append(rows)


Publications.TestCase.settings = settings(examples(core=2, full=200), stateful_step_count=12)
TestPublications = Publications.TestCase
