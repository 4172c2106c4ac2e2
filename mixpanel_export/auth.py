"""Credentials and the accounts in the configuration file, under mixpanel_data's module name.

There is no OAuth: accounts are service accounts, or legacy project secrets.
"""

from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from mixpanel_export._config.config_file import config_file
from mixpanel_export._local.accounts import add_account, remove_account, set_default
from mixpanel_export.credentials import (
    Credentials,
    account_not_found,
    read_accounts,
    resolve_credentials,
)

__all__ = ["AccountInfo", "AuthMethod", "ConfigManager", "Credentials"]


class AuthMethod(StrEnum):
    """mixpanel_data's two ways to authenticate. This package always uses `basic`."""

    basic = "basic"
    oauth = "oauth"


@dataclass(frozen=True, slots=True)
class AccountInfo:
    """An account in the configuration file, without its secret."""

    name: str
    username: str
    project_id: str
    region: str
    is_default: bool

    def to_dict(self) -> dict[str, object]:
        """Return the fields in order, ready for JSON."""
        return asdict(self)


class ConfigManager:
    """The accounts in the configuration file: *config_path*, else `MP_CONFIG_PATH`, else `~/.mp/config.toml`.

    All methods raise `ConfigError` if the file cannot be read or written.
    """

    def __init__(self, config_path: Path | None = None) -> None:
        self._path = config_path

    @property
    def config_path(self) -> Path:
        """The path of the file, which may not exist yet."""
        return self._path or config_file()

    def resolve_credentials(self, account: str | None = None) -> Credentials:
        """Return the credentials that an export would use; see `mixpanel_export.credentials.resolve_credentials`."""
        return resolve_credentials(account, config_path=self.config_path)

    def list_accounts(self) -> list[AccountInfo]:
        """Return the accounts, sorted by name."""
        default, accounts = read_accounts(self.config_path)
        return [
            AccountInfo(
                name,
                entry.get("username", ""),
                entry.get("project_id", ""),
                entry.get("region", "").lower() or "us",
                name == default,
            )
            for name, entry in sorted(accounts.items())
        ]

    def get_account(self, name: str) -> AccountInfo:
        """Return the account *name*. Raises `AccountNotFoundError`."""
        accounts = {account.name: account for account in self.list_accounts()}
        if name not in accounts:
            raise account_not_found(name, self.config_path, accounts)
        return accounts[name]

    def add_account(self, name: str, username: str, secret: str, project_id: str, region: str) -> None:
        """Add an account. The first account becomes the default. Raises `AccountExistsError`."""
        add_account(self.config_path, name, Credentials(username, secret, project_id, region))

    def remove_account(self, name: str) -> None:
        """Remove the account *name*. Raises `AccountNotFoundError`."""
        remove_account(self.config_path, name)

    def set_default(self, name: str) -> None:
        """Make the account *name* the default. Raises `AccountNotFoundError`."""
        set_default(self.config_path, name)
