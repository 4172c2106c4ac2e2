"""Finds the byte offsets of lines, event names and properties in whole lines. Nothing is parsed or copied.

numpy finds the offsets, and Arrow's layout lets DuckDB read the text in place. A *regular* line has the form that
Mixpanel uses, `{"event":"…","properties":{…}}`. DuckDB checks whether the name and the properties are valid.
"""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]
Offsets = NDArray[np.int32]

BEGIN, BETWEEN = '{"event":"', '","properties":'
"""The text before the event name, and the text between the name and the properties, as Mixpanel writes them."""

_MIN_LINE = len(f"{BEGIN}{BETWEEN}{{}}}}\n")
_PIECE = 1 << 20
_USUAL_NAME = 512  # bytes; Mixpanel's limit is 255 characters
_QUOTE, _BACKSLASH, _BRACE, _SPACE, _RETURN, _NEWLINE = b'"\\} \r\n'
# For each byte value, the number of bytes by which the search for the end of a string advances. A quote or a control byte
# ends the search; a backslash skips the next byte.
_STEPS = np.ones(256, dtype=np.int32)
_STEPS[:_SPACE], _STEPS[_QUOTE], _STEPS[_BACKSLASH] = 0, 0, 2
# The same search for a single string, used if it is longer than `_USUAL_NAME`.
_STRING = re.compile(rb'[^"\\\x00-\x1f]*+(?:\\.[^"\\\x00-\x1f]*+)*+', re.DOTALL)


@dataclass(frozen=True, slots=True, eq=False)
class LineIndex:
    """The offsets of lines, and of the parts of regular lines."""

    ends: Offsets
    """Where each line ends, after its newline."""
    regular: Offsets
    """The line numbers of the regular lines, counted from 0."""
    marks: Offsets
    """Where the four parts of each regular line start: the name, the text after it, the properties, and the rest."""

    @property
    def lines(self) -> int:
        """The number of lines, including blank ones."""
        return len(self.ends)

    @property
    def properties(self) -> Offsets:
        """Where the properties of each regular line start and end."""
        return self.marks[:, 2:].copy()

    @property
    def longest(self) -> int:
        """The size of the longest line, in bytes."""
        return int(np.diff(self.ends, prepend=0).max(initial=0))

    @property
    def spans(self) -> Offsets:
        """Where each regular line starts and ends."""
        return np.stack((self.marks[:, 0] - len(BEGIN), self.ends[self.regular]), axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class IndexedText:
    """Whole lines with their index. `numbers` has the line numbers of the regular lines within the chunk."""

    text: bytes | memoryview
    index: LineIndex
    numbers: Numbers

    def line(self, number: int) -> bytes:
        """Return the line with this number in the text, including its newline."""
        return bytes(self.text[self.index.ends[number - 1] if number else 0 : self.index.ends[number]])

    def irregular(self) -> list[int]:
        """Return the numbers of the lines in the text that are neither regular nor blank."""
        if len(self.index.regular) == self.index.lines:
            return []
        numbers = np.setdiff1d(np.arange(self.index.lines), self.index.regular, assume_unique=True)
        return [number for number in numbers.tolist() if not self.line(number).isspace()]


def index_lines(text: bytes | memoryview) -> LineIndex:
    """Return the offsets in *text*, which consists of whole lines that end with a newline."""
    bytes_ = np.frombuffer(text, dtype=np.uint8)
    ends = _newlines(bytes_) + 1
    starts = np.concatenate((np.zeros(1, dtype=np.int32), ends[:-1]))
    candidates = np.flatnonzero(ends - starts >= _MIN_LINE).astype(np.int32)
    starts, last = starts[candidates], ends[candidates] - 2
    last -= bytes_[last] == _RETURN
    names = starts + len(BEGIN)
    quotes = _ends_of_strings(text, names, last)
    properties = quotes + len(BETWEEN)
    marks = np.stack((names, quotes, properties, last), axis=1)
    regular = (quotes > 0) & (properties < last) & (bytes_[last] == _BRACE)
    regular[regular] = _equal(text, starts[regular], BEGIN) & _equal(text, quotes[regular], f"{BETWEEN}{{")
    return LineIndex(ends, candidates[regular], marks[regular])


def _equal(text: bytes | memoryview, at: Offsets, expected: str) -> NDArray[np.bool_]:
    """Return, for each offset, whether *expected* is there. The text must be long enough after every offset."""
    size = len(expected)
    windows: NDArray[np.bytes_] = np.ndarray(max(0, len(text) - size + 1), f"S{size}", text, strides=1)
    equal: NDArray[np.bool_] = windows[at] == expected.encode()
    return equal


def _newlines(bytes_: NDArray[np.uint8]) -> Offsets:
    """Return where the newlines are. The bytes are searched in pieces, so that the flags fit into the CPU's cache."""
    pieces = [
        np.flatnonzero(bytes_[start : start + _PIECE] == _NEWLINE).astype(np.int32) + np.int32(start)
        for start in range(0, len(bytes_), _PIECE)
    ]
    return np.concatenate([np.empty(0, dtype=np.int32), *pieces])


def _ends_of_strings(text: bytes | memoryview, starts: Offsets, lasts: Offsets) -> Offsets:
    """Return the offsets of the closing quotes of the JSON strings that start at *starts*.

    A string without a closing quote before its offset in *lasts* yields 0 or a later offset.
    """
    bytes_ = np.frombuffer(text, dtype=np.uint8)
    at = starts.copy()
    for _ in range(_USUAL_NAME):
        # A backslash before the last newline would lead past the end of the text; `clip` reads the newline again.
        steps = _STEPS.take(bytes_.take(at, mode="clip"))
        if not steps.any():
            break
        at += steps
    else:
        for number in np.flatnonzero(at < lasts).tolist():
            string = _STRING.match(text, int(at[number]), int(lasts[number]))
            at[number] = string.end() if string else 0
    return np.where(bytes_.take(at, mode="clip") == _QUOTE, at, 0)
