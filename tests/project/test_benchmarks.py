"""Bars, tables, the order of runs, checks and stored days of the benchmarks. Nothing is timed."""

import argparse
from datetime import date
from pathlib import Path

import _days
import bars
import cpu
import duckdb
import empty
import engine
import exactness
import growth
import memory
import pytest
import startup
from _measure import Proof, alternate, has_rows, in_own_process, serve_prepared
from _report import Bar, BarResult, bars_table, load_results, markdown, publish

from mixpanel_export.simulator import Simulator, Truth

ROOT = Path(__file__).resolve().parents[2]
FIRST, LAST = date(2024, 1, 1), date(2024, 1, 3)
LEAST, MOST = Bar("least", 1.0, at_most=False), Bar("most", 1.1, at_most=True)


@pytest.mark.parametrize(
    "bar, value, met",
    [(LEAST, 1.0, True), (LEAST, 0.999, False), (MOST, 1.1, True), (MOST, 1.101, False), (MOST, 0.1, True)],
)
def test_a_bar_is_met_up_to_its_limit(bar: Bar, value: float, *, met: bool) -> None:
    """A value on the limit meets the bar, as do values on one side of it."""
    assert bar.met(value) is met


def test_the_unrounded_median_decides() -> None:
    """The medians of the rounds are compared before rounding, whatever the extremes."""
    table = bars_table([BarResult(MOST, (0.9, 1.0, 1.2)), BarResult(LEAST, (0.5, 0.996, 1.6))])
    _, _, met, missed = table.splitlines()
    assert met == "| most | ≤ 1.1 | 1.00 (0.90 to 1.20) | met | 1 |"
    assert missed == "| least | ≥ 1 | 1.00 (0.50 to 1.60) | **missed** | 1 |"


def test_a_table_aligns_figures_to_the_right() -> None:
    """Markdown aligns every column but the first to the right."""
    assert markdown(["", "s"], [["a", "1"]]) == "|  | s |\n| --- | ---: |\n| a | 1 |"


def test_the_order_alternates_and_the_warm_up_is_discarded() -> None:
    """Every round runs each way once, every second round in reverse, and the first round is not returned."""
    order: list[str] = []

    def run(way: str) -> int:
        order.append(way)
        return len(order)

    assert alternate("AB", 2, run) == [[4, 5], [3, 6]]
    assert "".join(order) == "ABBAAB"


def test_published_results_can_be_loaded(tmp_path: Path) -> None:
    """The values of the bars are stored with the table; a benchmark that has never run has none."""
    arguments = argparse.Namespace(results=tmp_path, scale=0.5, about="here, now")
    publish("name", "Title", arguments, ["| a |"], bars=[(MOST, [1.0, 2.0])])
    assert load_results("name", tmp_path) == [BarResult(MOST, (1.0, 2.0), 0.5)]
    assert load_results("other", tmp_path) == []
    text = (tmp_path / "name.md").read_text("utf-8")
    assert text.startswith("# Title\n\nhere, now\n\n| a |\n\n")
    assert "**missed**" in text


def test_the_first_table_is_checked_and_the_others_must_be_equal(tmp_path: Path) -> None:
    """A proof rejects a wrong first table, and a later table that differs from the first one."""
    first, other = tmp_path / "first.duckdb", tmp_path / "other.duckdb"
    for db, name in ((first, "a"), (other, "b")):
        with duckdb.connect(str(db)) as connection:
            connection.execute(f"""
                CREATE TABLE events AS SELECT '{name}' AS event_name, NULL::TIMESTAMP AS event_time,
                    'd' AS distinct_id, 'i' AS insert_id, '{{}}'::JSON AS properties""")
    with pytest.raises(SystemExit, match="there are 1 rows, and should be 2"):
        Proof("x", has_rows(2)).of(first)
    proof = Proof("x", has_rows(1))
    proof.of(first)
    with pytest.raises(SystemExit, match="in the first run"):
        proof.of(other)


def test_days_are_generated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Days read from disk equal the generated ones, for the same profile only; leaking days are refused."""
    # The folder is a constant of the benchmarks, as no run has another one.
    monkeypatch.setattr(_days, "DATA", tmp_path)
    first, second, other = (Simulator(events_per_day=number) for number in (50, 50, 60))
    generated = _days.truths(FIRST, LAST, first)
    files = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.pickle")}
    assert _days.truths(FIRST, LAST, second) == generated
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.pickle")} == files
    assert sum(generated.values(), Truth()) == first.truth(FIRST, LAST)
    assert _days.truths(FIRST, LAST, other) != generated
    assert second._source.cache.get(LAST) == first._source.cache.get(LAST)
    with pytest.raises(ValueError, match="no separate truths"):
        _days.truths(FIRST, LAST, Simulator(leaks=0.1))


def test_every_benchmark_is_run_and_described() -> None:
    """Each script with bars exists, is run by `nox -s bench`, and has a section in the README."""
    session, readme = ((ROOT / name).read_text("utf-8") for name in ("noxfile.py", "benchmarks/README.md"))
    for script in bars.SCRIPTS:
        assert (ROOT / "benchmarks" / f"{script}.py").is_file()
        assert f'"{script}"' in session
        assert f"## `{script}.py`" in readme
    assert {module.__name__ for module in (empty, engine, growth, memory, startup)} < set(bars.SCRIPTS)


@pytest.mark.parametrize(
    "functions, kind",
    [
        (
            "ZSTD_compressBlock duckdb::ZSTDStorage::Compress duckdb::DataTable::LocalAppend python",
            "compressing `properties` with zstd",
        ),
        ("yyjson_read_opts duckdb::ExpressionExecutor::Execute python", "reading and writing JSON"),
        (
            "clear_page_([kernel.kallsyms]) duckdb::FSSTStorage::StringAnalyze duckdb::RowGroup",
            "compressing other columns",
        ),
        ("memcpy duckdb::RowGroup::Append duckdb::DataTable::LocalAppend python", "appending"),
        ("duckdb::Binder::Bind _PyEval_EvalFrameDefault (libpython3.11.so)", "everything else"),
        ("isal_inflate _PyEval_EvalFrameDefault", "inflating"),
        ("_PyEval_EvalFrameDefault (libpython3.11.so) _start", "Python"),
    ],
)
def test_a_sample_counts_for_one_kind_of_work(functions: str, kind: str) -> None:
    """A sample counts for the first kind of work whose pattern occurs in its stack."""
    assert cpu.kind_of(functions.replace(" ", "\n")).startswith(kind)


def test_the_timed_functions_are_called(tmp_path: Path) -> None:
    """An export calls the functions that the exactness benchmark times."""
    with serve_prepared(str) as (url, _):
        observed = in_own_process(exactness.export, url, (FIRST, LAST), tmp_path / "x.duckdb", {})
    assert observed.result.total_rows
    assert all([observed.commits, observed.probes, observed.compared])
