"""Signals: Ctrl-C and SIGTERM at every stage of `mpx export`, and signals whose handler raises inside `run_sync`."""

import asyncio
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from types import FrameType

import anyio
import anyio.lowlevel
import pytest
from examples import slow
from loops import CALL, WAYS, inside_asyncio, inside_trio, plainly
from shell import mpx, served
from support import held, query, simulator, truth

from mixpanel_export._concurrency import call_back
from mixpanel_export.simulator import Fault, Simulator
from mixpanel_export.sync import run_sync

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="a console of its own is needed to send Ctrl-C to a child"
)

# What is slow in a child: the statement that runs longer than any test stands where a commit takes its time.
LONG = """
import sys
from mixpanel_export._writer import table as _store
from mixpanel_export._writer import staging as _staging
from mixpanel_export.cli import main

def then(module, name, follow):
    usual = getattr(module, name)
    def longer(first, *rest, **named):
        returned = usual(first, *rest, **named)
        print("HERE", file=sys.stderr, flush=True)
        follow(first)
        return returned
    setattr(module, name, longer)

def endless(connection):
    connection.execute("SELECT count(*) FROM range(1_000_000_000_000) a(x) WHERE sin(x) > 2")

"""
IN_COMMIT = LONG + "then(_store, 'load_rejects', lambda connection: endless(connection))\nmain()"
IN_SWAP = LONG + "then(_store, 'delete_foreign_metadata', lambda connection: endless(connection))\nmain()"
IN_CLEANUP = (
    LONG + "from threading import Event\nthen(_staging.Staging, 'close', lambda _: Event().wait())\nmain()"
)
MAIN = "from mixpanel_export.cli import main; main()"
STAGES = {
    "first byte": (MAIN, Fault("stall_before_head"), {}, "attempt 1"),
    "download": (MAIN, Fault("stall"), {}, "attempt 1"),
    "retry": (MAIN, Fault("500"), {}, "next attempt in"),
    "refusal": (MAIN, Fault("429", retry_after=600), {}, "429"),
    "quota": (MAIN, None, {"MPX_PER_HOUR": "1"}, "committed"),
    "commit": (IN_COMMIT, None, {}, "HERE"),
    "swap": (IN_SWAP, None, {}, "HERE"),
}
DAYS = ["--from", "2024-03-01", "--to", "2024-03-09", "--parallel", "--chunk-days", "3"]


@pytest.fixture
def sim() -> Simulator:
    return simulator()


@pytest.fixture
def env(sim: Simulator, db: Path) -> Iterator[Mapping[str, str]]:
    with served(sim) as url:
        yield os.environ | {
            "MPX_API_URL": url,
            "MP_USERNAME": "demo.mp-service-account",
            "MP_SECRET": "demo-secret",
            "MP_PROJECT_ID": "12345",
            "MPX_DB": str(db),
            "MPX_PER_SECOND": "0",
            "MPX_PER_HOUR": "0",
        }


def words_of(mode: str) -> list[str]:
    return ["export", *DAYS, "--verbose", *([] if mode == "create" else [f"--{mode}"])]


@contextmanager
def started(code: str, words: list[str], env: Mapping[str, str]) -> Iterator["subprocess.Popen[str]"]:
    """Run *code* as a program in a separate process group, as a shell does."""
    command = [sys.executable, "-c", code, *words]
    with subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(word: str, process: "subprocess.Popen[str]") -> None:
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if word in line:
            return
    raise AssertionError("".join(said))


@pytest.mark.parametrize(
    "stage,number",
    [
        ("swap", signal.SIGINT),
        ("download", signal.SIGTERM),
        *slow((stage, signal.SIGINT) for stage in STAGES if stage != "swap"),
        *slow(
            [("download", signal.SIGHUP), *(("commit", number) for number in (signal.SIGTERM, signal.SIGHUP))]
        ),
    ],
)
def test_a_signal_ends_every_stage_in_good_order(
    stage: str, number: signal.Signals, sim: Simulator, env: Mapping[str, str], db: Path
) -> None:
    """The exit code is that of a shell, the last line says how to continue, no staging is left, and that command works."""
    code, fault, settings, sign = STAGES[stage]
    if stage == "swap":
        assert mpx("export", *DAYS, "-q", env=env).exit_code == 0
    sim.faults = [fault] if fault else []
    with started(code, words_of("replace" if stage == "swap" else "create"), {**env, **settings}) as process:
        wait_for(sign, process)
        os.killpg(process.pid, number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "Traceback" not in said
    last = said.splitlines()[-1]
    assert last.startswith("Interrupted; complete batches are kept. To continue: mpx export ")
    assert [path for path in db.parent.iterdir() if path.name.startswith(f".{db.name}")] == []
    assert not query(db, "SELECT batch FROM _export_batches WHERE status = 'failed'")
    if stage == "swap":
        assert held(db) == truth(sim)
    sim.faults = []
    assert mpx(*shlex.split(last.partition("To continue: ")[2])[1:], env=env).exit_code == 0
    assert held(db) == truth(sim)


@pytest.mark.parametrize("number", [*slow([signal.SIGINT]), signal.SIGTERM])
def test_a_second_signal_ends_the_program_at_once(
    number: signal.Signals, sim: Simulator, env: Mapping[str, str], db: Path
) -> None:
    """The signal arrives during a clean-up that never ends; the next export removes what is left."""
    sim.faults = [Fault("stall")]
    with started(IN_CLEANUP, words_of("create"), env) as process:
        wait_for("attempt 1", process)
        process.send_signal(number)
        wait_for("HERE", process)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 128 + number
    sim.faults = []
    assert mpx("export", *DAYS, "--resume", "-q", env=env).exit_code == 0
    assert [path for path in db.parent.iterdir() if path.name.startswith(f".{db.name}")] == []
    assert held(db) == truth(sim)


SCRIPT = (
    CALL
    + """
import signal
from mixpanel_export import Workspace

def fetch():
    with Workspace(path=sys.argv[2]) as workspace:
        print("ready", flush=True)
        workspace.fetch_events(from_date="2024-03-01", to_date="2024-03-09", parallel=True, chunk_days=1, resume=True)

try:
    call_by(sys.argv[1], fetch)
except KeyboardInterrupt:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print("interrupted", flush=True)
"""
)


@pytest.mark.parametrize("way", [*WAYS[:1], *slow(WAYS[1:])])
def test_a_script_that_is_interrupted_twice_ends(
    way: str, sim: Simulator, env: Mapping[str, str], db: Path
) -> None:
    """Whenever the signals arrive, the script ends, leaves no staging, and the next run completes the table."""
    draw = random.Random(way)
    sim.faults = [Fault("stall", after=4)]
    with started(SCRIPT, [way, str(db)], env) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(draw.uniform(0, 0.4))  # any moment will do
        process.send_signal(signal.SIGINT)
        time.sleep(draw.uniform(0, 0.1))
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert [path for path in db.parent.iterdir() if path.name.startswith(f".{db.name}")] == []
    sim.faults = []
    assert mpx("export", *DAYS, "--resume", "-q", env=env).exit_code == 0
    assert held(db) == truth(sim)


# run_sync alone


Handler = Callable[[int, FrameType | None], object]
Handling = Callable[[signal.Signals, Handler], None]


@pytest.fixture
def handling() -> Iterator[Handling]:
    """Install handlers of signals for a test; Ctrl-C has Python's own."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def handle(number: signal.Signals, handler: Handler) -> None:
        signal.signal(number, handler)

    yield handle
    for number, handler in before.items():
        signal.signal(number, handler)


class Endless:
    """A call that never ends and cleans up in steps; a signal arrives before it waits and at each step."""

    def __init__(self, number: signal.Signals) -> None:
        self._number = number
        self.ended = False

    async def __call__(self) -> None:
        try:
            signal.raise_signal(self._number)
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                for _ in range(3):
                    await anyio.to_thread.run_sync(signal.raise_signal, self._number)
                    await anyio.lowlevel.checkpoint()
            self.ended = True


def test_a_signal_lets_the_call_clean_up_however_often_it_comes(handling: Handling) -> None:
    """Python's own Ctrl-C is raised when the call has ended, not earlier."""
    call = Endless(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run_sync(call)
    assert call.ended


def test_what_a_handler_raises_leaves(handling: Handling) -> None:
    """A program that exits on SIGTERM exits with its own code, after the clean-up."""

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(100 + number)

    handling(signal.SIGTERM, leave)
    call = Endless(signal.SIGTERM)
    with pytest.raises(SystemExit) as ending:
        run_sync(call)
    assert ending.value.code == 100 + signal.SIGTERM
    assert call.ended


@pytest.mark.parametrize("where", [plainly, inside_asyncio, inside_trio])
def test_a_handler_that_raises_nothing_changes_nothing(
    where: Callable[[Callable[[], object]], object], handling: Handling
) -> None:
    """The handler is called, and the call continues and returns its value."""
    came: list[int] = []
    handling(signal.SIGTERM, lambda number, _: came.append(number))

    async def call() -> str:
        signal.raise_signal(signal.SIGTERM)
        await anyio.lowlevel.checkpoint()
        return "value"

    assert where(lambda: run_sync(call)) == "value"
    assert came == [signal.SIGTERM]


@pytest.mark.parametrize("where", [plainly, inside_asyncio, inside_trio])
def test_handlers_are_put_back(where: Callable[[Callable[[], object]], object], handling: Handling) -> None:
    """After a call, each signal has its previous handler."""

    def call() -> bool:
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        run_sync(anyio.sleep, 0)
        return before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    assert where(call) is True


def test_a_signal_before_the_loop_runs_cancels_the_call(
    handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call is cancelled at its first wait."""
    run, begun = anyio.run, []

    def late(*arguments: object) -> object:
        signal.raise_signal(signal.SIGINT)
        return run(*arguments)  # type: ignore[arg-type]

    async def call() -> None:
        begun.append(True)
        await anyio.sleep_forever()

    monkeypatch.setattr(anyio, "run", late)
    with pytest.raises(KeyboardInterrupt):
        run_sync(call)
    assert begun == [True]


def test_a_callback_is_broken_off(handling: Handling) -> None:
    """Ctrl-C in a callback that blocks is raised there, as in any code, and reaches the caller."""
    went_on: list[bool] = []

    def block(_: object) -> None:
        signal.raise_signal(signal.SIGINT)
        went_on.append(True)

    async def call() -> None:
        await anyio.lowlevel.checkpoint()
        call_back(block, None)

    with pytest.raises(KeyboardInterrupt):
        run_sync(call)
    assert went_on == []


def test_inside_a_loop_a_second_signal_leaves_a_call_that_blocks(handling: Handling) -> None:
    """The thread cannot be stopped, so the caller continues, and the thread ends later."""
    left, ended = Event(), Event()

    async def blocking() -> None:
        for _ in range(2):  # and no more, as nothing would catch a third
            signal.raise_signal(signal.SIGINT)
            left.wait(2)
        left.wait(30)
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()

    async def main() -> None:
        try:
            run_sync(blocking)
        finally:
            left.set()

    loop = asyncio.new_event_loop()
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(main())
    finally:
        loop.close()
    assert ended.wait(30)
