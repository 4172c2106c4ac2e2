"""The destination of a publication: a folder, or a URL."""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mixpanel_export._config.environment import expanded
from mixpanel_export._publish.data_set import Store
from mixpanel_export._publish.folder import Folder
from mixpanel_export.errors import ArgumentError

_ADVICE = "use a folder, file://, s3://, gs:// or az://"
_URL = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)  # a single letter is a Windows drive


def normalized(destination: str | Path) -> str:
    """Return the absolute path of a folder, without symbolic links.

    Raises:
        ArgumentError: *destination* is neither a folder nor a URL with a known scheme.
        ConfigError: It begins with `~` and there is no home directory.
    """
    text = str(destination)
    if not text or text == "-":
        raise ArgumentError("destination", f"must be a folder or a URL, got {text!r}")
    if not _URL.match(text):
        return _folder(text)
    url = urlsplit(text)
    if url.scheme.lower() == "file":
        if url.netloc not in {"", "localhost"} or not url.path:
            raise ArgumentError("destination", f"must be a path on this machine, got {text}")
        return _folder(unquote(url.path))
    raise ArgumentError("destination", f"has the unknown scheme {url.scheme}", advice=_ADVICE)


def _folder(text: str) -> str:
    return str(expanded(text).absolute().resolve())


def open_store(destination: str) -> Store:
    """Return the files of a normalized destination."""
    return Folder(Path(destination))
