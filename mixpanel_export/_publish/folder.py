"""A data set in a folder on this machine. A file is replaced by renaming, so readers see the old or the new file."""

import errno
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory

from mixpanel_export._publish.plan import StoredFile


class Folder:
    """The files of a folder, without hidden files. A file is hidden if its name or a folder's name begins with `.` or `_`."""

    def __init__(self, root: Path, db: Path) -> None:
        self._root = root
        # Only one process at a time can publish from a database, so a folder with this name is never in use.
        owner = sha256(f"{platform.node()}:{db.resolve()}".encode()).hexdigest()[:16]
        self._staging = f".mpx-{owner}-"

    def files(self) -> dict[str, StoredFile]:
        """Return all files. A link to a folder counts as a file, because readers see the files in that folder."""
        files: dict[str, StoredFile] = {}
        for folder, folders, names in os.walk(self._root, onerror=_raise_unless_missing):
            folders[:] = [name for name in folders if not _is_hidden(name)]
            links = [name for name in folders if Path(folder, name).is_symlink()]
            for name in (*names, *links):
                if not _is_hidden(name):
                    path = Path(folder, name)
                    files[path.relative_to(self._root).as_posix()] = _stored(path)
        return files

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """Create the folder, and yield a hidden folder in it for files that are not complete yet.

        If a publication of the same database was killed, its staging folder is deleted.
        """
        self._root.mkdir(parents=True, exist_ok=True)
        for leftover in self._root.glob(f"{self._staging}*"):
            rmtree(leftover, ignore_errors=True)
        with TemporaryDirectory(dir=self._root, prefix=self._staging, ignore_cleanup_errors=True) as folder:
            yield Path(folder)

    def put(self, file: Path, name: str) -> StoredFile:
        """Move a complete *file* from the staging folder to *name*, and replace the old file."""
        target = self._root / name
        _sync(file)
        stored = _stored(file)  # before the move, because another database may replace the target at any time
        target.parent.mkdir(exist_ok=True)
        file.replace(target)
        return stored

    def delete(self, name: str) -> None:
        """Delete a file, and its folder if nothing else is in it."""
        path = self._root / name
        path.unlink(missing_ok=True)
        with suppress(OSError):  # the folder is not empty
            path.parent.rmdir()

    @contextmanager
    def reading(self, name: str) -> Iterator[Path]:
        """Yield the path of a file for reading."""
        yield self._root / name


def _raise_unless_missing(error: OSError) -> None:
    if error.errno != errno.ENOENT:
        raise error


def _is_hidden(name: str) -> bool:
    """Whether readers of data sets ignore a name."""
    return name.startswith((".", "_"))


def _stored(path: Path) -> StoredFile:
    status = path.stat()
    return StoredFile(status.st_size, str(status.st_mtime_ns))


def _sync(path: Path) -> None:
    """Write the file to the disk, so that a power failure after the move does not leave an empty file."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
