"""FastAPI: with the real framework, an export starts, shows its progress, ends, and can be cancelled."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from pages import blocks
from shell import environment
from support import held, simulator, truth

from mixpanel_export.simulator import Fault, Simulator

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

DAYS = {"first": "2024-03-01", "last": "2024-03-09"}


@pytest.fixture
def anyio_backend() -> str:
    """The service uses asyncio."""
    return "asyncio"


@asynccontextmanager
async def service(
    sim: Simulator, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    """Run the page's service in *folder*, and yield a client."""
    (source,) = blocks("fastapi", "python")
    namespace: dict[str, Any] = {"__name__": "service"}
    exec(compile(source, "service.py", "exec"), namespace)  # noqa: S102 - the page
    app = namespace["app"]
    monkeypatch.chdir(folder)
    with environment(sim, folder, monkeypatch):
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://service") as client,
        ):
            yield client


async def state(client: httpx.AsyncClient, *, until: str) -> dict[str, Any]:
    """Ask for the state until it is *until*."""
    while True:
        answer: dict[str, Any] = (await client.get("/export")).json()
        if answer["state"] == until:
            return answer
        assert answer["state"] == "running", answer
        await anyio.sleep(0.05)


async def test_an_export_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it, there is none; afterwards, the file is exact, and the state has progress and result."""
    sim = simulator()
    async with service(sim, tmp_path, monkeypatch) as client:
        assert (await client.get("/export")).json() == {"state": "none"}
        assert (await client.post("/export", params=DAYS)).status_code == 202
        answer = await state(client, until="finished")
    assert held(tmp_path / "mixpanel.duckdb") == truth(sim)
    assert answer["progress"]["batches_done"] == answer["result"]["successful_batches"] > 0
    assert answer["progress"]["rows"] >= answer["result"]["total_rows"] > 0


@pytest.mark.parametrize("how", ["request", "end"])
async def test_an_export_is_cancelled(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a request or by the end of the service. Only one export runs at a time, and the next one completes the days."""
    sim = simulator(faults=[Fault("stall", times=1)])
    async with service(sim, tmp_path, monkeypatch) as client:
        await client.post("/export", params=DAYS)
        while not sim.requests:  # noqa: ASYNC110 - the simulator has no event for it
            await anyio.sleep(0.05)
        assert (await client.post("/export", params=DAYS)).status_code == 409
        if how == "request":
            assert (await client.delete("/export")).status_code == 204
            await state(client, until="cancelled")
    async with service(sim, tmp_path, monkeypatch) as client:
        await client.post("/export", params=DAYS)
        await state(client, until="finished")
    assert held(tmp_path / "mixpanel.duckdb") == truth(sim)


async def test_a_failed_export_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is that of the export."""
    async with service(simulator(secret="another"), tmp_path, monkeypatch) as client:
        await client.post("/export", params=DAYS)
        answer = await state(client, until="failed")
    assert "error" in answer
