"""Writes files safely: replaces a file by renaming, or writes in place if renaming is impossible.

Only regular files are written; devices, named pipes, sockets and directories are rejected. An existing file keeps its
owner, its mode and the symbolic links to it.
"""

import errno
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

if sys.platform != "win32":
    import fcntl

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}
# `Path` turns `s3://bucket/x` into `s3:/bucket/x`; a single letter is a Windows drive.
_ADDRESS = re.compile(r"(?:^|/)([a-z][a-z0-9+.-]+):/", re.IGNORECASE)


def kind_of(path: Path) -> str | None:
    """Return the kind of file at *path*, such as `a directory`; None for a regular file, or if there is no file.

    Raises:
        OSError: The path cannot be examined.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "a special file")


def remote_address(path: Path) -> str | None:
    """Return the scheme of an address such as `s3://bucket/file` that was passed as a path; None for a local path."""
    match = _ADDRESS.search(path.as_posix())
    return match[1] if match and not path.parent.is_dir() else None


def file_to_write(path: Path) -> Path:
    """Return *path* with its symbolic links resolved. The file need not exist.

    Raises:
        OSError: *path* is not a regular file, or not a path on this machine; `strerror` says which.
    """
    problem = None
    if path == Path("-"):
        problem = "it is standard output, not a file"
    elif scheme := remote_address(path):
        problem = f"it is an address ({scheme}), not a file on this machine"
    elif kind := kind_of(path):
        problem = f"it is {kind}, not a regular file"
    if problem:
        raise OSError(errno.EINVAL, problem, str(path))
    return path.resolve()


def delete(path: Path) -> bool:
    """Delete a file if it exists. Return False if the system does not allow the deletion.

    Windows does not allow it while a program, such as a virus scanner, has the file open.
    """
    try:
        path.unlink(missing_ok=True)
    except PermissionError:
        return False
    return True


@contextmanager
def replacing(path: Path, *, private: bool = False) -> Iterator[Path]:
    """Yield the path of a new file. When the block ends without an error, the new file replaces *path*.

    The new file is renamed, so that a reader of *path* sees either the old contents or the new contents. Renaming is
    impossible if *path* is a mount point, or if this user may not change its folder or its owner. In that case, the new
    contents are copied into the old file.

    If *private* is true, only the owner can ever read the new file. If that is impossible, an error is raised.

    Raises:
        OSError: *path* is not a regular file, or cannot be written.
    """
    file = file_to_write(path)
    with _folder_beside(file) as folder:
        new = Path(folder, "new")
        if private:
            new.touch(0o600)
        yield new
        _install(new, file, private=private)


def _folder_beside(file: Path) -> "TemporaryDirectory[str]":
    """Return a temporary folder beside *file*; elsewhere if this user can write the file, but not its folder."""
    try:
        return TemporaryDirectory(dir=file.parent, prefix=".mpx-", ignore_cleanup_errors=True)
    except OSError:
        if not file.exists():
            raise
        return TemporaryDirectory(prefix="mpx-", ignore_cleanup_errors=True)


def _install(new: Path, file: Path, *, private: bool) -> None:
    try:
        if file.exists():
            _take_over(new, file)
        if private:
            new.chmod(new.stat().st_mode & 0o600)
        new.replace(file)
    except OSError:
        if not file.exists():
            raise
        if private and file.stat().st_mode & 0o077:
            file.chmod(file.stat().st_mode & 0o600)
        new.chmod(0o600)  # the old file's mode may forbid reading
        with new.open("rb") as content:
            _overwrite(file, content)


def _take_over(new: Path, file: Path) -> None:
    """Give *new* the owner, mode and access control lists of *file*."""
    before, now = file.stat(), new.stat()
    if sys.platform != "win32" and (before.st_uid, before.st_gid) != (now.st_uid, now.st_gid):
        os.chown(new, before.st_uid, before.st_gid)
    shutil.copystat(file, new)
    os.utime(new)


def _overwrite(file: Path, content: BinaryIO) -> None:
    size = os.fstat(content.fileno()).st_size
    with file.open("r+b") as target:
        _reserve(target, size)
        shutil.copyfileobj(content, target)
        target.truncate()
        target.flush()
        os.fsync(target.fileno())


def _reserve(file: BinaryIO, size: int) -> None:
    """Reserve disk space for *size* bytes before any old byte is overwritten."""
    before = os.fstat(file.fileno()).st_size
    if size <= before or not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(file.fileno(), before, size - before)
    except OSError as error:
        if error.errno in _NO_SPACE:  # other errors mean that this file system cannot reserve space
            file.truncate(before)
            raise


def fill(path: Path, content: bytes) -> bool:
    """Write *content* into an empty file, in place. Return False if the file is in use or not empty.

    The file is locked the way DuckDB locks it, so nothing is written into a database that is in use.
    """
    with path.open("r+b") as file:
        if sys.platform != "win32":
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                return False
        if os.fstat(file.fileno()).st_size:
            return False
        try:
            file.write(content)
            file.flush()
        except OSError:
            file.truncate(0)
            raise
        os.fsync(file.fileno())
    return True
