"""Prepares the process of `mpx`: its standard streams, its signal handlers and its environment variables.

This module imports little, so that the process is prepared before the other modules are imported.
"""

import io
import os
import signal
import sys
from types import FrameType

# Type checkers treat this as true. Importing `typing` would take longer than everything else here.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_INTERRUPTED = 128 + signal.SIGINT  # as shells report it
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # the last is Ctrl-Break on Windows


class Signals:
    """Handles signals. The first signal stops the command cleanly, and the second one kills it.

    A kill may interrupt a commit. The database file survives that, as it survives a power failure. While modules are
    still being imported, there is nothing to clean up, so the first signal ends the process immediately.
    """

    def __init__(self) -> None:
        self._importing = True
        self._stopping = False
        self._exit_code = _INTERRUPTED

    def listen(self) -> None:
        """Handle all signals except ignored ones. With `nohup`, or `&` in a shell, the process ignores some signals."""
        for name in _NAMES:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)

    def end_import(self) -> None:
        """Raise `KeyboardInterrupt` for the first signal from now on."""
        self._importing = False

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._stopping:
            os._exit(self._exit_code)
        self._stopping = True
        if number != signal.SIGINT:
            self._exit_code = 128 + number
        if self._importing:
            print_interrupted()
            os._exit(self._exit_code)
        raise KeyboardInterrupt

    def end(self) -> "NoReturn":
        """Exit without waiting for threads that the interrupted command may have left running."""
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                continue
        os._exit(self._exit_code)


def print_interrupted() -> None:
    """Write one line to standard error. This works in any state of the program."""
    try:
        os.write(2, b"Interrupted.\n")
    except OSError:
        return


def open_standard_streams() -> None:
    """Open standard streams that the caller closed, and ignore errors in writing to standard error.

    Otherwise, the next opened file, such as the database, would get the descriptor of a closed stream, and messages
    would be written into that file.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr = _Tolerant(sys.stderr.buffer, sys.stderr.encoding, line_buffering=True)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - open until the process ends
    # An export must not fail because the console's encoding lacks a character.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def discard_failed_output() -> None:
    """Discard output that cannot be written. Otherwise, Python would try again at exit, and would exit with 120."""
    try:
        sys.stdout.flush()
    except ValueError:  # closed
        return
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


class _Tolerant(io.TextIOWrapper):
    """A text stream that ignores failed writes.

    A write fails if the reader has exited, the terminal was closed, or the disk is full.
    """

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError:
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            return


def drop_empty_variables() -> None:
    """Unset `HOME` and the variables of tqdm if they are empty, because libraries would use the empty values."""
    for name in [name for name, value in os.environ.items() if not value]:
        if name == "HOME" or name.startswith("TQDM_"):
            del os.environ[name]
