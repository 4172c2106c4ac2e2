"""What the benchmarks decide and keep: bars, tables, the order of runs, proofs, days on disk. Nothing is timed."""

import argparse
from datetime import date
from pathlib import Path

import _days
import bars
import cpu
import duckdb
import engine
import exactness
import growth
import memory
import pytest
import startup
from _measure import Proof, alternating, as_many, in_own_process, serving
from _report import Bar, Reached, bars_table, markdown, publish, published

from mixpanel_export.simulator import Simulator, Truth

ROOT = Path(__file__).resolve().parents[2]
FIRST, LAST = date(2024, 1, 1), date(2024, 1, 3)
LEAST, MOST = Bar("least", 1.0, at_most=False), Bar("most", 1.1, at_most=True)


@pytest.mark.parametrize(
    "bar, value, met",
    [(LEAST, 1.0, True), (LEAST, 0.999, False), (MOST, 1.1, True), (MOST, 1.101, False), (MOST, 0.1, True)],
)
def test_a_bar_is_met_up_to_its_limit_and_no_further(bar: Bar, value: float, *, met: bool) -> None:
    """A bar is met on its own side of the limit, and at the limit."""
    assert bar.met(value) is met


def test_the_median_decides_and_not_as_it_is_shown() -> None:
    """The median of the rounds is compared before it is rounded, whatever the best and the worst were."""
    table = bars_table([Reached(MOST, (0.9, 1.0, 1.2)), Reached(LEAST, (0.5, 0.996, 1.6))])
    _, _, met, missed = table.splitlines()
    assert met == "| most | ≤ 1.1 | 1.00 (0.90 to 1.20) | met | 1 |"
    assert missed == "| least | ≥ 1 | 1.00 (0.50 to 1.60) | **missed** | 1 |"


def test_a_table_has_a_column_of_text_and_figures_to_the_right() -> None:
    """Markdown aligns all columns but the first to the right."""
    assert markdown(["", "s"], [["a", "1"]]) == "|  | s |\n| --- | ---: |\n| a | 1 |"


def test_ways_take_turns_and_the_warm_up_does_not_count() -> None:
    """Every round runs each way once, every other one backwards, and the first round is not returned."""
    order: list[str] = []

    def run(way: str) -> int:
        order.append(way)
        return len(order)

    assert alternating("AB", 2, run) == [[4, 5], [3, 6]]
    assert "".join(order) == "ABBAAB"


def test_what_is_published_can_be_read_again(tmp_path: Path) -> None:
    """The values behind a table of bars are kept beside it; a benchmark that never ran has none."""
    given = argparse.Namespace(results=tmp_path, scale=0.5, about="here, now")
    publish("name", "Title", given, ["| a |"], reached=[(MOST, [1.0, 2.0])])
    assert published("name", tmp_path) == [Reached(MOST, (1.0, 2.0), 0.5)]
    assert published("other", tmp_path) == []
    text = (tmp_path / "name.md").read_text("utf-8")
    assert text.startswith("# Title\n\nhere, now\n\n| a |\n\n")
    assert "**missed**" in text


def test_the_first_table_is_checked_and_the_others_are_compared_with_it(tmp_path: Path) -> None:
    """A proof takes neither a first table that is wrong nor a later one that is not the same."""
    right, other = tmp_path / "right.duckdb", tmp_path / "other.duckdb"
    for db, name in ((right, "a"), (other, "b")):
        with duckdb.connect(str(db)) as connection:
            connection.execute(f"""
                CREATE TABLE events AS SELECT '{name}' AS event_name, NULL::TIMESTAMP AS event_time,
                    'd' AS distinct_id, 'i' AS insert_id, '{{}}'::JSON AS properties""")
    with pytest.raises(SystemExit, match="there are 1 rows, and should be 2"):
        Proof("x", as_many(2)).of(right)
    proof = Proof("x", as_many(1))
    proof.of(right)
    with pytest.raises(SystemExit, match="the first time"):
        proof.of(other)


def test_days_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read from disk is what was made, and for the same profile only; days that leak are refused."""
    monkeypatch.setattr(_days, "DATA", tmp_path)
    first, second, other = (Simulator(events_per_day=number) for number in (50, 50, 60))
    made = _days.truths(FIRST, LAST, first)
    files = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.pickle")}
    assert _days.truths(FIRST, LAST, second) == made
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.pickle")} == files
    assert sum(made.values(), Truth()) == first.truth(FIRST, LAST)
    assert _days.truths(FIRST, LAST, other) != made
    assert second._source.cache.get(LAST) == first._source.cache.get(LAST)
    with pytest.raises(ValueError, match="no truth of their own"):
        _days.truths(FIRST, LAST, Simulator(leaks=0.1))


def test_every_benchmark_has_its_script_and_its_turn() -> None:
    """`nox -s bench` runs the scripts whose bars are put side by side, each is described, and each can be imported."""
    session, readme = ((ROOT / name).read_text("utf-8") for name in ("noxfile.py", "benchmarks/README.md"))
    for script in bars.SCRIPTS:
        assert (ROOT / "benchmarks" / f"{script}.py").is_file()
        assert f'"{script}"' in session
        assert f"## `{script}.py`" in readme
    assert {module.__name__ for module in (engine, growth, memory, startup)} < set(bars.SCRIPTS)


@pytest.mark.parametrize(
    "functions, kind",
    [
        ("ZSTD_compressBlock duckdb::ZSTDStorage::Compress duckdb::DataTable::LocalAppend python", "zstd"),
        ("yyjson_read_opts duckdb::ExpressionExecutor::Execute python", "reading JSON"),
        ("clear_page_([kernel.kallsyms]) duckdb::FSSTStorage::StringAnalyze duckdb::RowGroup", "compressing"),
        ("memcpy duckdb::RowGroup::Append duckdb::DataTable::LocalAppend python", "appending"),
        ("duckdb::Binder::Bind _PyEval_EvalFrameDefault (libpython3.11.so)", "everything else"),
        ("isal_inflate _PyEval_EvalFrameDefault", "inflating"),
        ("_PyEval_EvalFrameDefault (libpython3.11.so) _start", "Python"),
    ],
)
def test_a_sample_counts_for_what_it_was_done_for(functions: str, kind: str) -> None:
    """The work that a stack shows first in the list of kinds is what its sample counts for."""
    assert cpu.kind_of(functions.replace(" ", "\n")).startswith(kind)


def test_the_cost_of_commits_is_looked_at_where_they_are(tmp_path: Path) -> None:
    """What the exactness benchmark watches is what an export calls."""
    with serving(str) as (url, _):
        done = in_own_process(exactness.export, url, (FIRST, LAST), tmp_path / "x.duckdb", {})
    assert done.result.total_rows
    assert all([done.commits, done.probes, done.looked_at])
