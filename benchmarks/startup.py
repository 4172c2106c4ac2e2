"""Measures the start-up time of commands, compared with `python -c "import httpx"`, an ordinary library.

The time of a command is from the start to the end of its process. For `mpx export` it is from the start of the process to
the arrival of the first request, which the server refuses. `--scale` has no effect.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import TYPE_CHECKING

from _measure import ACCOUNT, Cost, alternate, new_folder, options, spread
from _report import Bar, horizontal, markdown, publish

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LAUNCH = Path(__file__).parent / "_launch.py"
MPX = shutil.which("mpx", path=Path(sys.executable).parent) or "mpx"
DAYS = ("--from", "2024-01-01", "--to", "2024-01-07")
REFUSAL = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
REFUSED = 3  # exit code of an export with wrong credentials

HELP = Bar('startup: mpx --help ÷ python -c "import httpx", wall', 1.5, at_most=True)


@dataclass(frozen=True, slots=True)
class Command:
    """A command line, and its expected exit code. With *to_request*, its time ends when its request arrives."""

    name: str
    words: tuple[str, ...]
    code: int = 0
    to_request: bool = False

    def run(self, url: str, arrivals: "SimpleQueue[float]", within: Path | None) -> Cost:
        """Run the command in a new folder, which is removed.

        Raises:
            SystemExit: The exit code is wrong, or no request arrived.
        """
        with new_folder(within) as folder:
            launched = subprocess.run(
                [sys.executable, "-S", LAUNCH, *self.words],
                cwd=folder,
                env=_environment(url, folder),
                capture_output=True,
                check=True,
                text=True,
            )
        code, started, ended, cpu, peak = launched.stdout.split()
        if int(code) != self.code:
            raise SystemExit(f"{' '.join(self.words)} ended with exit code {code} instead of {self.code}")
        try:
            end = arrivals.get_nowait() if self.to_request else float(ended)
        except Empty:
            raise SystemExit(f"{' '.join(self.words)} made no request") from None
        return Cost(end - float(started), float(cpu), int(float(peak)))


COMMANDS = (
    Command('python -c "import httpx"', (sys.executable, "-c", "import httpx")),
    Command('python -c ""', (sys.executable, "-c", "")),
    Command('python -c "import mixpanel_export"', (sys.executable, "-c", "import mixpanel_export")),
    Command("mpx --help", (MPX, "--help")),
    Command("mpx export, to its first request", (MPX, "export", *DAYS), REFUSED, to_request=True),
)


def _environment(url: str, folder: Path) -> dict[str, str]:
    own = {
        "MPX_API_URL": url,
        "MPX_STATE_DIR": str(folder),
        "MP_USERNAME": ACCOUNT.username or "",
        "MP_SECRET": ACCOUNT.secret,
        "MP_PROJECT_ID": ACCOUNT.project_id,
    }
    return {name: value for name, value in os.environ.items() if not name.startswith(("MP_", "MPX_"))} | own


@contextmanager
def refusing_server() -> Iterator[tuple[str, "SimpleQueue[float]"]]:
    """Yield the URL of a server that refuses every request, and a queue of arrival times."""
    arrivals: SimpleQueue[float] = SimpleQueue()
    stopping = Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = Thread(target=_refuse, args=(server, arrivals, stopping))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}", arrivals
        finally:
            stopping.set()
            socket.create_connection(server.getsockname()).close()
            thread.join()


def _refuse(server: socket.socket, arrivals: "SimpleQueue[float]", stopping: Event) -> None:
    while not stopping.is_set():
        connection, _ = server.accept()
        with connection:
            if connection.recv(65536):
                arrivals.put(time.perf_counter())
                connection.sendall(REFUSAL)


def table(results: Sequence[Sequence[Cost]]) -> str:
    """Return the figures as a Markdown table: median (minimum to maximum)."""
    rows = [
        [
            f"`{command.name}`",
            spread([cost.wall for cost in costs], digits=3),
            spread([cost.cpu for cost in costs], digits=3),
            spread([cost.peak / 1e6 for cost in costs], digits=0),
            spread(_ratios(costs, results[0])),
        ]
        for command, costs in zip(COMMANDS, results, strict=True)
    ]
    return markdown(["", "wall s", "CPU s", "peak RSS MB", "wall ÷ import httpx"], rows)


def _ratios(costs: Sequence[Cost], others: Sequence[Cost]) -> list[float]:
    return [cost.wall / other.wall for cost, other in zip(costs, others, strict=True)]


def draw(results: Sequence[Sequence[Cost]], figure: "Figure") -> None:
    """Draw the time of each command."""
    horizontal(
        figure.subplots(),
        "wall: median, minimum and maximum",
        "milliseconds",
        [
            (command.name, [cost.wall * 1e3 for cost in costs])
            for command, costs in zip(COMMANDS, results, strict=True)
        ],
        digits=0,
    )


def main() -> None:
    """Measure, and publish a table and a plot."""
    arguments = options("--scale", "--rounds", "--folder", "--results", description=__doc__, rounds=15)
    with refusing_server() as (url, arrivals):
        results = alternate(
            COMMANDS, arguments.rounds, lambda command: command.run(url, arrivals, arguments.folder)
        )
    publish(
        "startup",
        "Start-up time",
        arguments,
        [table(results)],
        bars=[(HELP, _ratios(results[3], results[0]))],
        draw=partial(draw, results),
    )


if __name__ == "__main__":
    main()
