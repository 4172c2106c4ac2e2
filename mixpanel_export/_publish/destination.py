"""The destination of a publication: a folder, or a URL."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from mixpanel_export._config.environment import expanded
from mixpanel_export._database.machine import processors
from mixpanel_export._publish.data_set import DataSet, PlainFiles, Store
from mixpanel_export._publish.folder import Folder
from mixpanel_export._publish.layout import DELTA, FileFormat
from mixpanel_export._publish.object_store import check_installed, open_objects
from mixpanel_export._publish.parts import Parts
from mixpanel_export.errors import ArgumentError

_SCHEMES = ("s3", "gs", "az")
_ENDPOINTS = {"s3": "aws_endpoint", "gs": "google_base_url", "az": "azure_endpoint"}
_ADVICE = "use a folder, file://, s3://, gs:// or az://"
_URL = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)  # a single letter is a Windows drive
_UPLOADS = 8  # uploads at the same time


@dataclass(frozen=True, slots=True)
class Connection:
    """Settings for connecting to an object store, in addition to those in the environment."""

    endpoint: str | None = None
    allow_http: bool = False


def normalize(destination: str | Path) -> str:
    """Return the absolute path of a folder, without symbolic links, or the URL of an object store.

    Raises:
        ArgumentError: *destination* is neither a folder nor a URL with a known scheme.
        ConfigError: *destination* begins with `~`, and there is no home directory.
    """
    text = str(destination)
    if not text or text == "-":
        raise ArgumentError("destination", f"must be a folder or a URL, got {text!r}")
    if not _URL.match(text):
        return _folder(text)
    url = urlsplit(text)
    if url.scheme == "file":
        if url.netloc not in {"", "localhost"} or not url.path:
            raise ArgumentError("destination", f"must be a path on this machine, got {text}")
        return _folder(unquote(url.path))
    if url.scheme not in _SCHEMES:
        raise ArgumentError("destination", f"has an unknown scheme: {url.scheme}", advice=_ADVICE)
    return _url(url)


def is_url(destination: str) -> bool:
    """Whether a normalized destination is in an object store."""
    return destination.startswith(tuple(f"{scheme}://" for scheme in _SCHEMES))


def threads(destination: str) -> int:
    """Return how many threads write files at the same time."""
    return _UPLOADS if is_url(destination) else processors()


def open_data_set(
    destination: str,
    file_format: FileFormat,
    parts: Parts,
    store: Store,
    *,
    connection: Connection,
    prune_after: timedelta,
) -> DataSet:
    """Return the data set at a normalized destination.

    Raises:
        ConfigError: The `lake` extra is not installed.
        OSError: The Delta table cannot be read.
    """
    if file_format is not DELTA:
        return PlainFiles(store, file_format, parts)
    check_installed("deltalake", "a Delta table")
    from mixpanel_export._publish.delta import Delta  # noqa: PLC0415 - an extra

    return Delta(destination, store, parts, _options(destination, connection), prune_after)


def _options(destination: str, connection: Connection) -> dict[str, str]:
    """Return the options of `deltalake` for an object store, in addition to the environment."""
    if not is_url(destination):
        return {}
    options = {"allow_http": "true"} if connection.allow_http else {}
    if destination.startswith("s3:"):
        options["conditional_put"] = "etag"  # a commit must not replace another one
    if connection.endpoint:
        options[_ENDPOINTS[destination[:2]]] = connection.endpoint
    return options


def open_store(destination: str, db: Path, check: Callable[[], None], connection: Connection) -> Store:
    """Open the store that holds the files of a normalized destination. *check* is called during transfers, and raises an error to stop them.

    Raises:
        ArgumentError: The endpoint is not encrypted.
        ConfigError: The `lake` extra is not installed.
        OSError: The settings in the environment are wrong.
    """
    if not is_url(destination):
        return Folder(Path(destination), db)
    if (connection.endpoint or "").startswith("http:") and not connection.allow_http:
        raise ArgumentError(
            "endpoint", "is not encrypted", advice="use https://, or pass $allow_http for a server you trust"
        )
    return open_objects(
        destination, db, check, endpoint=connection.endpoint, allow_http=connection.allow_http
    )


def _folder(text: str) -> str:
    return str(expanded(text).absolute().resolve())


def _url(url: SplitResult) -> str:
    # The URL can contain a password, so the error must not repeat it.
    if "@" in url.netloc or url.query or url.fragment:
        raise ArgumentError(
            "destination",
            "must not have credentials, a query or a fragment",
            advice="set the credentials in the environment",
        )
    if not url.netloc:
        raise ArgumentError("destination", "must name a bucket or container, as in s3://bucket/events")
    path = "/".join(filter(None, url.path.split("/")))
    return f"{url.scheme}://{url.netloc}/{path}".rstrip("/")
