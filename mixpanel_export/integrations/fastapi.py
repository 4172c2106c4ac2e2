'''FastAPI: an HTTP service that starts exports, reports their progress and cancels them.

Save this file as `service.py`:

```python
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import date
from typing import Any

from fastapi import FastAPI, HTTPException

from mixpanel_export import Progress, export_events


class Export:
    """An export in the background."""

    def __init__(self, first: date, last: date) -> None:
        self.progress = Progress()
        call = export_events(first, last, db="mixpanel.duckdb", mode="resume", on_progress=self.update)
        self.task = asyncio.create_task(call)

    def update(self, progress: Progress) -> None:
        self.progress = progress

    async def cancel(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])

    def state(self) -> dict[str, Any]:
        progress = asdict(self.progress)
        if not self.task.done():
            return {"state": "running", "progress": progress}
        if self.task.cancelled():
            return {"state": "cancelled", "progress": progress}
        if error := self.task.exception():
            return {"state": "failed", "progress": progress, "error": str(error)}
        return {"state": "finished", "progress": progress, "result": self.task.result().to_dict()}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.export = None
    yield
    if app.state.export:
        await app.state.export.cancel()


app = FastAPI(lifespan=lifespan)


@app.post("/export", status_code=202)
async def start(first: date, last: date) -> None:
    if app.state.export and not app.state.export.task.done():
        raise HTTPException(409, "an export is running")
    app.state.export = Export(first, last)


@app.get("/export")
async def show() -> dict[str, Any]:
    return app.state.export.state() if app.state.export else {"state": "none"}


@app.delete("/export", status_code=204)
async def cancel() -> None:
    if app.state.export:
        await app.state.export.cancel()
```

Run it in one process, because only one export can write into the file at a time:

```bash
uvicorn service:app --workers 1
curl -X POST 'http://127.0.0.1:8000/export?first=2024-01-01&last=2024-01-31'
curl http://127.0.0.1:8000/export
curl -X DELETE http://127.0.0.1:8000/export
```

A cancelled export, or a service that is stopped, keeps all complete batches, and the next export fetches the missing
days. The service has no authentication: add it before other machines can reach the service.
'''
