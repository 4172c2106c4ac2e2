"""Reads environment variables and the home directory.

A variable that is empty, or has only whitespace, is treated as unset.
"""

import os
import sys
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Mapping
from pathlib import Path

from mixpanel_export.errors import ConfigError

if sys.platform != "win32":
    import pwd

# Forms of a byte order mark: decoded, decoded with the wrong encoding, or passed on by a shell as undecodable bytes.
_MARKS = ("\ufeff", "\xef\xbb\xbf", "\xff\xfe", "\xfe\xff", "\udcff\udcfe", "\udcfe\udcff")
_ZERO_WIDTH = "\u200b\u200c\u200d\u2060\ufeff"
_QUOTES = {"'": "'", '"': '"', "\u201c": "\u201d", "\u2018": "\u2019"}


def variable(name: str, environ: Mapping[str, str] | None = None) -> str | None:
    """Return the value of an environment variable, cleaned by `cleaned`; None if it is unset or empty."""
    return cleaned((os.environ if environ is None else environ).get(name, "")) or None


def cleaned(text: str) -> str:
    """Return *text* without characters that tools add to a value.

    These are whitespace, a byte order mark (PowerShell), invisible characters (web pages), and one pair of quotes
    (`docker --env-file`).
    """
    for mark in _MARKS:
        text = text.removeprefix(mark)
    text = _stripped(text)
    if len(text) > 1 and _QUOTES.get(text[0]) == text[-1]:
        text = _stripped(text[1:-1])
    return text


def decoded(content: bytes) -> str:
    """Decode text from a file or a pipe. It is in UTF-8, or in UTF-16 with a byte order mark, as PowerShell writes it.

    Raises:
        UnicodeDecodeError: The text has another encoding.
    """
    return content.decode("utf-16" if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig")


def _stripped(text: str) -> str:
    before = None
    while text != before:
        before, text = text, text.strip().strip(_ZERO_WIDTH)
    return text


def home() -> Path | None:
    """Return the user's home directory; None if `HOME` is unset or empty and the system does not know the user.

    Windows does not use `HOME`.
    """
    if sys.platform != "win32" and os.environ.get("HOME") == "":
        return _home_in_passwd()
    try:
        return Path.home()
    except RuntimeError:
        return None


if sys.platform != "win32":

    def _home_in_passwd() -> Path | None:
        try:
            return Path(pwd.getpwuid(os.getuid()).pw_dir)
        except KeyError:
            return None


def expanded(path: str | Path) -> Path:
    """Return *path* with a leading `~` or `~user` replaced by the corresponding home directory.

    As in a shell, `~user` is not replaced if the user is unknown.

    Raises:
        ConfigError: *path* begins with `~` and there is no home directory.
    """
    path = Path(path)
    first, *rest = path.parts or ("",)
    if first == "~":
        folder = home()
        if folder is None:
            raise ConfigError(
                f"there is no home directory for {path}", advice="set HOME, or use a path without ~"
            )
        return Path(folder, *rest)
    return Path(os.path.expanduser(first), *rest) if first.startswith("~") else path  # noqa: PTH111 - keeps the name of an unknown user
