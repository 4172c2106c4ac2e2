"""Keyrings for tests: one in memory, and none."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keyring
from keyring.backend import KeyringBackend
from keyring.backends import fail


class InMemory(KeyringBackend):
    """A keyring that exists only during the test."""

    priority = 1

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.secrets: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.secrets.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.secrets[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.secrets[service, username]


def no_backend() -> Any:
    """Return what keyring uses on a system without a keyring."""
    return fail.Keyring()  # type: ignore[no-untyped-call]


@contextmanager
def used(backend: KeyringBackend) -> Iterator[None]:
    """Within the block, *backend* is the keyring of the system."""
    before = keyring.get_keyring()
    keyring.set_keyring(backend)
    try:
        yield
    finally:
        keyring.set_keyring(before)
