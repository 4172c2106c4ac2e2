"""Blocks of lines, cut where the name and the properties of each event lie: nothing is parsed, no byte is copied.

numpy finds the places, and Arrow's layout lets DuckDB read the text where it is. A line that is cut has the outline
of an event in Mixpanel's own shape; whether its parts are what they should be, DuckDB says.
"""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]
Offsets = NDArray[np.int32]

BEGIN, BETWEEN = '{"event":"', '","properties":'
"""What stands before an event's name, and between it and the properties, in Mixpanel's own shape."""

_LEAST = len(f"{BEGIN}{BETWEEN}{{}}}}\n")
_SOME = 64 << 10
_USUAL_NAME = 512  # bytes; Mixpanel's limit is 255 characters
_QUOTE, _BACKSLASH, _BRACE, _SPACE, _RETURN, _NEWLINE = b'"\\} \r\n'
# How far the search for the end of a string goes on from each byte: a quote or a control byte, a newline among them, ends
# it, and what follows a backslash is passed over.
_STEPS = np.ones(256, dtype=np.int32)
_STEPS[:_SPACE], _STEPS[_QUOTE], _STEPS[_BACKSLASH] = 0, 0, 2
# The same way, for one string that is longer than names are.
_WAY = re.compile(rb'[^"\\\x00-\x1f]*+(?:\\.[^"\\\x00-\x1f]*+)*+', re.DOTALL)


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """Where a block of whole lines is to be cut.

    `ends` is where each line ends, its newline included. `outlined` are the numbers, from 0, of those that have the
    outline of an event, and `marks` has for each of them where five parts begin: what comes before the name, the
    name, what is between, the properties, and the rest.
    """

    ends: Offsets
    outlined: Offsets
    marks: Offsets

    @property
    def lines(self) -> int:
        """How many lines the block has, blank ones among them."""
        return len(self.ends)

    @property
    def places(self) -> "Places":
        """Where the properties of the outlined lines lie, and nothing else."""
        return Places(self.marks[:, 3:].copy(), self.size)

    def spans(self, places: Numbers) -> Offsets:
        """Return where some of the outlined lines begin and end, by their places among them."""
        return np.stack((self.marks[places, 0], self.ends[self.outlined[places]]), axis=1)

    @property
    def size(self) -> int:
        """The bytes of the block."""
        return int(self.ends[-1]) if len(self.ends) else 0


@dataclass(frozen=True, slots=True, eq=False)
class Lines:
    """A block of whole lines, its cut, and the numbers of its outlined lines in their chunk."""

    text: bytes | memoryview
    cut: Cut
    numbers: Numbers

    def line(self, number: int) -> bytes:
        """Return one line, by its number in the block, with its newline."""
        return bytes(self.text[self.cut.ends[number - 1] if number else 0 : self.cut.ends[number]])

    def others(self) -> list[int]:
        """Return the numbers in the block of the lines without that outline that are not blank."""
        if len(self.cut.outlined) == self.cut.lines:
            return []
        others = np.setdiff1d(np.arange(self.cut.lines), self.cut.outlined, assume_unique=True)
        return [number for number in others.tolist() if not self.line(number).isspace()]


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Where the properties of each outlined line begin and end in a block of so many bytes."""

    spans: Offsets
    size: int


@dataclass(frozen=True, slots=True, eq=False)
class Payload:
    """The properties of a block's outlined lines, where they lie in its text."""

    text: bytes | memoryview
    spans: Offsets


def cut(text: bytes | memoryview) -> Cut:
    """Find where to cut a block of whole lines, each ended by a newline."""
    bytes_ = np.frombuffer(text, dtype=np.uint8)
    ends = _newlines(bytes_) + 1
    starts = np.concatenate((np.zeros(1, dtype=np.int32), ends[:-1]))
    outlined = np.flatnonzero(ends - starts >= _LEAST).astype(np.int32)
    starts, last = starts[outlined], ends[outlined] - 2
    last -= bytes_[last] == _RETURN
    names = starts + len(BEGIN)
    quotes = _ends_of_strings(text, names, last)
    properties = quotes + len(BETWEEN)
    marks = np.stack((starts, names, quotes, properties, last), axis=1)
    whole = (quotes > 0) & (properties < last) & (bytes_[last] == _BRACE)
    return Cut(ends, outlined[whole], marks[whole])


def _newlines(bytes_: NDArray[np.uint8]) -> Offsets:
    """Return where the newlines are; some at a time, so that what is compared stays in the processor's cache."""
    found = [
        np.flatnonzero(bytes_[start : start + _SOME] == _NEWLINE).astype(np.int32) + np.int32(start)
        for start in range(0, len(bytes_), _SOME)
    ]
    return np.concatenate([np.empty(0, dtype=np.int32), *found])


def _ends_of_strings(text: bytes | memoryview, starts: Offsets, lasts: Offsets) -> Offsets:
    """Return where the JSON strings that begin at *starts* have their closing quotes.

    Where there is none before the place in *lasts*, it is 0 or a later one.
    """
    bytes_ = np.frombuffer(text, dtype=np.uint8)
    at = starts.copy()
    for _ in range(_USUAL_NAME):
        # A backslash before the last newline leads out of the block, to where that newline is seen again.
        steps = _STEPS.take(bytes_.take(at, mode="clip"))
        if not steps.any():
            break
        at += steps
    else:
        for number in np.flatnonzero(at < lasts).tolist():
            way = _WAY.match(text, int(at[number]), int(lasts[number]))
            at[number] = way.end() if way else 0
    return np.where(bytes_.take(at, mode="clip") == _QUOTE, at, 0)
