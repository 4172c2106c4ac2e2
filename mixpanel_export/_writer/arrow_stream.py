"""Streams Arrow arrays from a Python iterator to DuckDB.

nanoarrow can stream only arrays that already exist. Here, each array is requested when a DuckDB thread needs it, so a
statement can read more data than fits into memory. The structures are defined by Arrow's C data and C stream
interfaces (arrow.apache.org/docs/format/CStreamInterface.html).
"""

import ctypes
import errno
from collections.abc import Iterable, Iterator
from typing import Any

_POINTER = ctypes.sizeof(ctypes.c_void_p)
_SCHEMA_SIZE, _SCHEMA_RELEASE = 9 * _POINTER, 7 * _POINTER
_ARRAY_SIZE, _ARRAY_RELEASE = 5 * 8 + 5 * _POINTER, 5 * 8 + 3 * _POINTER
_GetNext = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_GetError = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
_Release = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

_capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_capsule_pointer.restype, _capsule_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


class _Stream(ctypes.Structure):
    _fields_ = (
        ("get_schema", _GetNext),
        ("get_next", _GetNext),
        ("get_last_error", _GetError),
        ("release", _Release),
        ("private_data", ctypes.c_void_p),
    )


class ArrowSource:
    """A table that DuckDB can read, with a fixed schema and replaceable rows. The table must outlive its readers."""

    def __init__(self, schema: Any) -> None:
        self._schema = schema
        self._arrays: Iterator[Any] = iter(())
        self._error: BaseException | None = None
        self._callbacks = (
            _GetNext(self._get_schema),
            _GetNext(self._get_next),
            _GetError(lambda _: None),
            _Release(self._release),
        )
        self._streams: list[_Stream] = []

    def set_arrays(self, arrays: Iterable[Any]) -> None:
        """Set the rows that the next statement reads. Each array is requested once and released after use."""
        self._arrays = iter(arrays)
        self._error = None
        self._streams.clear()

    def raise_error(self) -> None:
        """Raise the error that interrupted the arrays, if any. DuckDB itself reports this error without its type."""
        if self._error is not None:
            raise self._error

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Return a stream of the remaining rows. *requested_schema* is ignored, as the protocol allows."""
        stream = _Stream(*self._callbacks, None)
        self._streams.append(stream)  # keeps it alive, because the capsule does not
        return _new_capsule(ctypes.addressof(stream), b"arrow_array_stream", None)

    def _get_schema(self, _: int, out: int) -> int:
        _move(self._schema.__arrow_c_schema__(), b"arrow_schema", out, _SCHEMA_SIZE, _SCHEMA_RELEASE)
        return 0

    def _get_next(self, _: int, out: int) -> int:
        try:
            array = next(self._arrays, None)
        except BaseException as error:  # noqa: BLE001 - no exception may cross DuckDB's frames; `raise_error` raises it
            self._error = error
            return errno.EIO
        if array is None:
            ctypes.memset(
                out, 0, _ARRAY_SIZE
            )  # an array without a release callback marks the end of the stream
        else:
            _, capsule = array.__arrow_c_array__()
            _move(capsule, b"arrow_array", out, _ARRAY_SIZE, _ARRAY_RELEASE)
        return 0

    def _release(self, stream: int) -> None:
        _Stream.from_address(stream).release = _Release()


def _move(capsule: object, name: bytes, target: int, size: int, release: int) -> None:
    """Move a structure out of its capsule, together with its release callback."""
    source = _capsule_pointer(capsule, name)
    ctypes.memmove(target, source, size)
    ctypes.c_void_p.from_address(source + release).value = None
