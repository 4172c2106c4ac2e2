"""A data set in an object store: S3, Google Cloud Storage or Azure, or another server with the API of one of them.

A file becomes visible once its upload is complete. At that moment it replaces the old file. `obstore` retries requests and reads
credentials from the environment. It is imported on first use, because it is part of the `lake` extra.
"""

import errno
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from glob import escape
from importlib.util import find_spec
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from mixpanel_export._publish.plan import StoredFile
from mixpanel_export.errors import ConfigError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore

_PART = 8 << 20  # the size in bytes of each part of an upload; servers may reject other sizes
_PARTS = 2  # parts of one file that are sent concurrently
_TIMEOUT = "120s"  # for one request, which sends at most one part


class Objects:
    """The objects under a URL, except hidden ones. An object is hidden if a part of its path begins with `.` or `_`."""

    def __init__(self, store: "ObjectStore", db: Path, check: Callable[[], None]) -> None:
        self._store = store
        self._db = db.resolve()
        self._check = check  # raises an error if a transfer must stop

    def files(self) -> dict[str, StoredFile]:
        """Return all objects."""
        import obstore  # noqa: PLC0415 - an extra

        with _as_os_errors():
            return {
                meta["path"]: StoredFile(meta["size"], _stamp(meta["e_tag"]))
                for page in obstore.list(self._store)
                for meta in page
                if not any(part.startswith((".", "_")) for part in meta["path"].split("/"))
            }

    def staging(self) -> AbstractContextManager[Path]:
        """Yield a folder beside the database (see `staging_beside`)."""
        return staging_beside(self._db)

    def put(self, file: Path, name: str) -> StoredFile:
        """Upload a file to *name*, in parts if it is large."""
        import obstore  # noqa: PLC0415 - an extra

        size = file.stat().st_size
        with _as_os_errors():
            result = obstore.put(
                self._store, name, self._parts(file), chunk_size=_PART, max_concurrency=_PARTS
            )
        return StoredFile(size, _stamp(result["e_tag"]))

    def delete(self, name: str) -> None:
        """Delete an object, if it exists."""
        import obstore  # noqa: PLC0415 - an extra

        with _as_os_errors(), suppress(FileNotFoundError):
            obstore.delete(self._store, name)

    @contextmanager
    def reading(self, name: str) -> Iterator[Path]:
        """Download an object, and yield the path of the local file."""
        import obstore  # noqa: PLC0415 - an extra

        with TemporaryDirectory(prefix="mpx-", ignore_cleanup_errors=True) as folder:
            path = Path(folder, "object")
            with path.open("wb") as file, _as_os_errors():
                for part in obstore.get(self._store, name).stream(min_chunk_size=_PART):
                    self._check()
                    file.write(part)
            yield path

    def _parts(self, file: Path) -> Iterator[bytes]:
        with file.open("rb") as content:
            while part := content.read(_PART):
                self._check()
                yield part


@contextmanager
def staging_beside(db: Path) -> Iterator[Path]:
    """Yield a folder beside the database, with mode 0700. Folders that killed publications left behind are deleted first."""
    prefix = f".{db.name}.publish-"
    for leftover in db.parent.glob(f"{escape(prefix)}*"):
        rmtree(leftover, ignore_errors=True)
    with TemporaryDirectory(dir=db.parent, prefix=prefix, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def open_objects(
    url: str, db: Path, check: Callable[[], None], *, endpoint: str | None, allow_http: bool
) -> Objects:
    """Return the objects under *url*. *check* is called during transfers, and raises an error to stop them.

    Raises:
        ConfigError: The `lake` extra is not installed.
        OSError: The settings in the environment are invalid.
    """
    check_installed("obstore", url)
    from obstore.store import from_url  # noqa: PLC0415 - an extra

    client: ClientConfig = {"timeout": _TIMEOUT, **({"allow_http": True} if allow_http else {})}
    settings: dict[str, Any] = {_endpoint_key(url): endpoint} if endpoint else {}
    with _as_os_errors():
        return Objects(from_url(url, client_options=client, **settings), db, check)


def _stamp(tag: str | None) -> str:
    """Return an entity tag without quotation marks, because Azure's lists of objects have none."""
    return str(tag).strip('"')


def _endpoint_key(url: str) -> str:
    """Return the setting of `obstore` for the server."""
    return "base_url" if url.startswith("gs:") else "endpoint"


@contextmanager
def _as_os_errors() -> Iterator[None]:
    """Convert `obstore` errors to `OSError`, with a one-line reason."""
    from obstore.exceptions import (  # noqa: PLC0415 - an extra
        BaseError,
        PermissionDeniedError,
        UnauthenticatedError,
    )

    try:
        yield
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise PermissionError(errno.EACCES, reason_of(error)) from error
    except BaseError as error:
        raise OSError(errno.EIO, reason_of(error)) from error
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, reason_of(error)) from error


def reason_of(error: Exception) -> str:
    """Return the code and message from the server's XML, or else the end of the first line of *error*."""
    text = str(error)
    parts = [re.search(f"<{tag}>([^<]*)</{tag}>", text) for tag in ("Code", "Message")]
    if all(parts):
        return ": ".join(part[1].rstrip(".") for part in parts if part)
    return text.splitlines()[0].rpartition(" - ")[2]


def check_installed(package: str, purpose: str) -> None:
    """Check that *package*, which is part of the `lake` extra, is installed.

    Raises:
        ConfigError: The package is not installed.
    """
    if find_spec(package) is None:
        raise ConfigError(
            f"publishing to {purpose} requires the {package} package",
            advice="install it with pip install 'mpx-export[lake]'",
        )
