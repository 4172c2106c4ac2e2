"""A real notebook: a kernel whose loop is running, progress bars, tables, and interrupts."""

import asyncio
import json
import re
import socket
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import nbformat
import pytest
from anyio.from_thread import start_blocking_portal
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from support import held, simulator, truth

from mixpanel_export.simulator import Fault, Simulator

# What carries the messages of kernels says so of Windows' usual event loop, and helps itself.
pytestmark = pytest.mark.filterwarnings("ignore:Proactor event loop does not implement:RuntimeWarning")

STALLED = date(2024, 3, 4)
KEPT = 8  # of the nine days, each a batch
BEGIN = """
import asyncio, socket, threading, warnings
from mixpanel_export import Workspace, export_events
warnings.simplefilter("always")
asyncio.get_running_loop()
days = dict(from_date="2024-03-01", to_date="2024-03-09")
def tell(progress):
    global helper
    helper = threading.current_thread()
    if progress.batches_done == 8:
        socket.create_connection(("127.0.0.1", PORT)).close()
ws = Workspace(path="notebook.duckdb")
"""
INTERRUPTED = "ws.fetch_events(**days, parallel=True, on_progress=tell)"
LEFT = """
print(ws.sql_scalar("SELECT count(DISTINCT export_batch) FROM events"))
print(helper is threading.main_thread(), helper in threading.enumerate())
"""
RESUMED = "ws.fetch_events(**days, parallel=True, resume=True)"
QUERIED = """ws.sql_rows("SELECT count(*) AS events, NULL AS nothing, '<b>' AS markup FROM events")"""
AWAITED = 'await export_events("2024-03-01", "2024-03-02", db="awaited.duckdb")'
END = "ws.close()"
CELLS = [BEGIN, INTERRUPTED, LEFT, RESUMED, QUERIED, AWAITED, END]


@dataclass(frozen=True)
class Executed:
    """The notebook after its cells, their files, and the truth."""

    notebook: Any
    folder: Path
    sim: Simulator

    def outputs(self, source: str) -> list[Any]:
        """Return what is below the cell."""
        (cell,) = [cell for cell in self.notebook.cells if cell.source == source]
        return list(cell.outputs)

    def bars(self, source: str) -> list[dict[str, Any]]:
        """Return the state of each widget within the bars that the cell drew, from top left to bottom right."""
        states = self.notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]

        def state(model: str) -> dict[str, Any]:
            return dict(states[model.removeprefix("IPY_MODEL_")]["state"])

        shown = [output.data for output in self.outputs(source) if output.output_type == "display_data"]
        bars = [state(data["application/vnd.jupyter.widget-view+json"]["model_id"]) for data in shown]
        parts = [state(part) for bar in bars for part in bar["children"]]
        return [part | {"style": state(part["style"])} for part in parts]

    def table(self, source: str) -> str:
        """Return the HTML that the cell's value is shown as."""
        (html,) = [
            output.data["text/html"]
            for output in self.outputs(source)
            if output.output_type == "execute_result"
        ]
        return str(html)


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Executed:
    """A notebook that waits for a stalled day until its kernel is interrupted, and then continues."""
    folder = tmp_path_factory.mktemp("notebook")
    sim = simulator(faults=[Fault("stall", first=STALLED, last=STALLED)])
    told = socket.create_server(("127.0.0.1", 0))
    told.settimeout(60)

    async def interrupt(kernel: AsyncKernelManager) -> None:
        (await asyncio.to_thread(told.accept))[0].close()
        await kernel.interrupt_kernel()

    def mended() -> None:
        sim.faults = []

    with closing(told), _surroundings(folder, sim):
        begin = BEGIN.replace("PORT", str(told.getsockname()[1]))
        notebook = _notebook([begin, *CELLS[1:]])
        asyncio.run(_execute(notebook, folder, interrupt, mended))
        notebook.cells[0].source = BEGIN
    return Executed(notebook, folder, sim)


@contextmanager
def _surroundings(folder: Path, sim: Simulator) -> Iterator[None]:
    """Serve *sim*, and set the environment for exports from it in notebooks."""
    with (
        pytest.MonkeyPatch.context() as patch,
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(sim.serve()) as url,
    ):
        settings = {
            "MPX_API_URL": url,
            "MP_USERNAME": "demo.mp-service-account",
            "MP_SECRET": "demo-secret",
            "MP_PROJECT_ID": "12345",
            "MPX_PER_SECOND": "0",
            "MPX_PER_HOUR": "0",
            "MPX_STATE_DIR": str(folder / "state"),
        }
        # Nothing of the user's own notebooks is read or changed.
        for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"):
            settings[name] = str(folder / "jupyter")
        for name in ("MP_REGION", "MPX_PROJECT_TIMEZONE", "NO_COLOR"):
            patch.delenv(name, raising=False)
        for name, value in settings.items():
            patch.setenv(name, value)
        yield


def _notebook(sources: Iterable[str]) -> Any:
    cells: list[dict[str, object]] = [
        {
            "cell_type": "code",
            "id": f"cell{place}",
            "metadata": {},
            "execution_count": None,
            "outputs": [],
            "source": source,
        }
        for place, source in enumerate(sources)
    ]
    text = json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells})
    return nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call] # it has no types


async def _execute(
    notebook: Any,
    folder: Path,
    interrupt: Callable[[AsyncKernelManager], Awaitable[None]] | None = None,
    mended: Callable[[], None] = lambda: None,
) -> None:
    """Run the cells in a kernel; *interrupt* it in the cell for that, after which the server is *mended*."""
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=60,
        allow_errors=True,
        resources={"metadata": {"path": str(folder)}},
    )
    async with client.async_setup_kernel():
        kernel = client.km
        assert isinstance(kernel, AsyncKernelManager)
        for place, cell in enumerate(notebook.cells):
            running = asyncio.ensure_future(client.async_execute_cell(cell, place))
            if interrupt and cell.source == INTERRUPTED:
                await interrupt(kernel)
                await running
                mended()
            await running
        client.set_widgets_metadata()


def test_an_interrupt_stops_the_export_as_ctrl_c_does(executed: Executed) -> None:
    """KeyboardInterrupt reaches the cell; complete batches are kept, and no thread continues."""
    (error,) = [output for output in executed.outputs(INTERRUPTED) if output.output_type == "error"]
    assert error.ename == "KeyboardInterrupt"
    assert "During handling" not in "".join(error.traceback)
    (left,) = executed.outputs(LEFT)
    assert left.text == f"{KEPT}\nFalse False\n"


def test_a_later_call_completes_what_was_interrupted(executed: Executed) -> None:
    """In the same kernel, with the same open workspace, it fetches the one missing day."""
    assert held(executed.folder / "notebook.duckdb") == truth(executed.sim)
    assert re.search(r"batches</th><td[^>]*>1 of 1</td>", executed.table(RESUMED))
    asked = [request.first for request in executed.sim.requests if request.last == request.first]
    assert asked.count(STALLED) == 2


def test_bars_are_widgets_that_end_as_the_export_did(executed: Executed) -> None:
    """There are two bars, for batches and bytes: green and full, or red if they were interrupted."""
    for source, style, text in ((INTERRUPTED, "danger", "8/9 batches"), (RESUMED, "success", "1/1 batches")):
        left, bar, right, _, wire, rows = executed.bars(source)
        assert text in left["value"].replace("\u2007", " ")
        assert (bar["bar_style"], bar["value"], bar["max"]) == (
            style,
            *map(float, text.split()[0].split("/")),
        )
        assert bar["style"]["bar_color"] == "green"
        assert "%" in right["value"]
        assert wire["bar_style"]
        assert re.search(r"[1-9]\d* rows, .*B at ", rows["value"].replace("\u2007", " "))


def test_values_are_shown_as_tables(executed: Executed) -> None:
    """Exports and rows are HTML below their cell, text stays text, and the table of a fetch names its table."""
    assert "<caption>exported</caption>" in executed.table(RESUMED)
    assert re.findall(r"<td[^>]*>(.*?)</td>", executed.table(QUERIED))[1:] == ["<em>NULL</em>", "&lt;b&gt;"]


def test_a_notebook_may_also_await(executed: Executed) -> None:
    """The async functions use the kernel's own loop."""
    assert "rows added" in executed.table(AWAITED)
    assert held(executed.folder / "awaited.duckdb") == truth(executed.sim, "2024-03-01", "2024-03-02")


def test_nothing_is_warned_of(executed: Executed) -> None:
    """Neither this package nor the progress bars write to standard error, and no other cell fails."""
    shown = [output for cell in executed.notebook.cells for output in cell.outputs]
    assert [output.text for output in shown if output.get("name") == "stderr"] == []
    assert sum(output.output_type == "error" for output in shown) == 1


@pytest.mark.slow
def test_a_notebook_without_widgets_exports_too(tmp_path: Path) -> None:
    """Its progress bar is a line of text; tqdm and DuckDB, which both use widgets, do not prevent the export."""
    blocked = "import sys\nsys.modules['ipywidgets'] = None\nfrom mixpanel_export import Workspace"
    days = "from_date='2024-03-01', to_date='2024-03-09'"
    fetched = f"Workspace(path='plain.duckdb').fetch_events({days}, parallel=True)"
    sim = simulator()
    notebook = _notebook([blocked, fetched])
    with _surroundings(tmp_path, sim):
        asyncio.run(_execute(notebook, tmp_path))
    *drawn, value = notebook.cells[1].outputs
    text = "".join(output.text for output in drawn)
    assert "9/9 batches" in text
    assert "\x1b[A" not in text
    assert "<caption>exported</caption>" in value.data["text/html"]
    assert held(tmp_path / "plain.duckdb") == truth(sim)
