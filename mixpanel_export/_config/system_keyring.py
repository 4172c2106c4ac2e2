"""Reads and stores secrets in the system's keyring, under the user name of the service account.

This requires the `keyring` extra.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from mixpanel_export._config.extras import check_extra
from mixpanel_export._config.masking import Masked
from mixpanel_export.errors import ConfigError

_SERVICE = "mixpanel_export"


def read_secret(username: str) -> Masked:
    """Return the secret of a service account. Raises `ConfigError` if the keyring has none or cannot be used."""
    with _one_line_errors():
        import keyring  # noqa: PLC0415 - an extra

        secret = keyring.get_password(_SERVICE, username)
    if not secret:
        raise ConfigError(
            f"the keyring has no secret for {username}",
            advice="add the account again with --replace --keyring",
        )
    return Masked(secret)


def store_secret(username: str, secret: str) -> None:
    """Store the secret of a service account. Raises `ConfigError` if the keyring cannot be used."""
    with _one_line_errors():
        import keyring  # noqa: PLC0415 - an extra

        keyring.set_password(_SERVICE, username, str(secret))


def delete_secret(username: str) -> None:
    """Delete the secret of a service account, if there is one. Raises `ConfigError` if the keyring cannot be used."""
    with _one_line_errors():
        import keyring  # noqa: PLC0415 - an extra

        if keyring.get_password(_SERVICE, username) is not None:
            keyring.delete_password(_SERVICE, username)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    check_extra("the system's keyring", "keyring", ["keyring"])
    from keyring.errors import KeyringError  # noqa: PLC0415 - an extra

    try:
        yield
    except KeyringError as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(
            f"the system's keyring cannot be used ({text})", advice="add the account without --keyring"
        ) from None
