"""Secrets: strings that are masked in reprs, cleaned when read, and never repeated in messages about them."""

import re
import unicodedata

from mixpanel_export._config.environment import cleaned

_QUOTES = ("'", '"', "`", "\u2018", "\u2019", "\u201c", "\u201d")


class Masked(str):
    """A string whose repr is `'***'`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"

    def get_secret_value(self) -> str:
        """Return the plain string, as pydantic's `SecretStr` does."""
        return str(self)


def masked(secret: str) -> Masked:
    """Return *secret*, which may also be a pydantic `SecretStr`, as a masked string."""
    return Masked(secret.get_secret_value() if hasattr(secret, "get_secret_value") else secret)


def cleaned_secret(text: str) -> Masked:
    """Return a secret without invisible characters, and without whitespace, quotes or a byte order mark around it."""
    return Masked(without_invisible(cleaned(text)))


def without_invisible(text: str) -> str:
    """Return *text* without zero-width characters, which credentials never contain."""
    return "".join(character for character in text if unicodedata.category(character) != "Cf")


def text_problem(text: str) -> str | None:
    """Describe what looks wrong with a user name or a secret, without quoting it; None if it looks right."""
    if re.match(r"\$\{?\w+\}?$|%\w+%$", text):
        return "looks like a variable name, not a value"
    if re.search(r"\s", text):
        return "contains whitespace"
    if text.startswith(_QUOTES) or text.endswith(_QUOTES):
        return "begins or ends with a quotation mark"
    if not (text.isascii() and text.isprintable()):
        return "contains characters that Mixpanel does not use"
    return None
