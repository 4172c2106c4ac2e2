"""The configuration file is changed by one account at a time, in one step, and nothing else in it changes."""

import os
import tomllib
import traceback
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_export._local import accounts as _accounts
from mixpanel_export._local.accounts import add_account, remove_account, set_default
from mixpanel_export.credentials import Credentials, resolve_credentials
from mixpanel_export.errors import AccountExistsError, AccountNotFoundError, ConfigError

SECRET = "s3cr3t-V4lue"
NEW = Credentials("svc.new", SECRET, "9", "eu", "Europe/Berlin")
WRITTEN = {
    "username": "svc.new",
    "secret": SECRET,
    "project_id": "9",
    "region": "eu",
    "project_timezone": "Europe/Berlin",
}
CONFIG = """\
# shared by the whole team's tools
version = 2
default = "main"  # who exports at night

[accounts.main]
username = "svc.main" # ask Ada
secret = "old-secret"
project_id = "7"
region = "in"
note = "ours"

# staging, see the wiki
[accounts.staging]
username = "svc.staging"
secret = "other-secret"
project_id = "8"

# not ours
[reports]
every = ["day", "week"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(CONFIG, encoding="utf-8")
    path.chmod(0o600)
    return path


def config_in(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def shown_inside(error: BaseException) -> str:
    """Return the traceback with local variables, without those of the test."""
    assert error.__traceback__ is not None
    inner = error.__traceback__.tb_next
    shown = traceback.TracebackException(type(error), error, inner, capture_locals=True)
    return "".join(shown.format())


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_the_first_account_is_the_default(tmp_path: Path) -> None:
    """A missing file is created with the account as its default, and a second account does not change the default."""
    path = tmp_path / "new" / "config.toml"
    assert add_account(path, "first", NEW)
    assert not add_account(path, "second", Credentials("svc.2", "x", "1"))
    assert config_in(path) == {
        "default": "first",
        "accounts": {
            "first": WRITTEN,
            "second": {"username": "svc.2", "secret": "x", "project_id": "1", "region": "us"},
        },
    }
    assert resolve_credentials(environ={}, config_path=path) == NEW


@pytest.mark.skipif(os.name != "posix", reason="only POSIX has these bits")
def test_nobody_else_ever_may_read_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the owner can ever read the folder and the file, from their creation on, whatever the umask."""
    seen: list[int] = []
    fsync = os.fsync

    def watched(handle: int) -> None:
        seen.append(os.fstat(handle).st_mode & 0o777)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watched)
    path = tmp_path / "new" / "config.toml"
    before = os.umask(0)
    try:
        add_account(path, "first", NEW)
        path.chmod(0o644)
        add_account(path, "second", NEW)
    finally:
        os.umask(before)
    assert seen == [0o600, 0o600]
    assert (mode_of(path.parent), mode_of(path)) == (0o700, 0o600)


def test_adding_leaves_every_line_as_it_was(file: Path) -> None:
    """Comments, order and the contents of other programs are preserved."""
    assert not add_account(file, "new", NEW)
    lines = file.read_text(encoding="utf-8").splitlines()
    rest = iter(lines)
    assert all(line in rest for line in CONFIG.splitlines())
    assert config_in(file)["accounts"]["new"] == WRITTEN
    assert config_in(file)["default"] == "main"


def test_an_account_is_overwritten_only_on_request(file: Path) -> None:
    """An existing name is an error, and the file is unchanged; when replaced, the account keeps unknown entries."""
    with pytest.raises(AccountExistsError, match=r"'main'.*choose another name") as caught:
        add_account(file, "main", NEW)
    assert caught.value.account_name == "main"
    assert file.read_text(encoding="utf-8") == CONFIG
    assert add_account(file, "main", NEW, replace=True)
    assert config_in(file)["accounts"]["main"] == {**WRITTEN, "note": "ours"}
    assert '"svc.new" # ask Ada' in file.read_text(encoding="utf-8")


def test_replacing_forgets_a_zone_that_is_not_given(file: Path) -> None:
    """The zone belongs to the project, so another project's zone is not kept."""
    add_account(file, "main", NEW, replace=True)
    add_account(file, "main", Credentials("svc", "x", "1"), replace=True)
    assert "project_timezone" not in config_in(file)["accounts"]["main"]


def test_the_default_changes_on_request(file: Path) -> None:
    """The new account with `default`, or any existing one, becomes the default; the comment beside it stays."""
    assert add_account(file, "new", NEW, default=True)
    assert config_in(file)["default"] == "new"
    set_default(file, "staging")
    assert 'default = "staging"  # who exports at night\n' in file.read_text(encoding="utf-8")


def test_removing_takes_the_account_and_nothing_else(file: Path) -> None:
    """The rest of the file is unchanged; the comment above the next account stays there."""
    assert not remove_account(file, "staging")
    removed = '[accounts.staging]\nusername = "svc.staging"\nsecret = "other-secret"\nproject_id = "8"\n'
    assert file.read_text(encoding="utf-8") == CONFIG.replace(removed, "")


def test_removing_the_default_says_so(file: Path) -> None:
    """Then there is no default, and the comment of the next account is still above it."""
    assert remove_account(file, "main")
    assert "default" not in config_in(file)
    text = file.read_text(encoding="utf-8")
    assert "# staging, see the wiki\n[accounts.staging]\n" in text
    assert "old-secret" not in text


@pytest.mark.parametrize("change", [remove_account, set_default])
def test_an_account_that_is_not_there_is_named(change: Callable[[Path, str], object], file: Path) -> None:
    """The error lists the existing accounts, and the file is unchanged."""
    for path, name, available in (
        (file, "nobody", ["main", "staging"]),
        (file.with_name("none.toml"), "main", []),
    ):
        with pytest.raises(AccountNotFoundError) as caught:
            change(path, name)
        assert (caught.value.account_name, caught.value.available_accounts) == (name, available)
    assert file.read_text(encoding="utf-8") == CONFIG


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + CONFIG,
        CONFIG.replace("\n", "\r\n"),
        "[accounts]\nmain = {username = 'a', secret = 'b'}\n[accounts.other]\nusername = 'c'\n",
        "accounts.main.username = 'a'\n",
        "[accounts.main]\nusername = 'a'\n[between]\nx = 1\n[accounts.other]\nusername = 'b'",
        "[accounts.main]\nusername = 'a'\n[accounts.main.more]\nx = 1 # y\n# z\n[[list]]\ny = 2\n",
        "default = 'gone'\n[accounts]\nmain = 3\n[accounts.main2]\n",
    ],
)
def test_every_way_to_write_accounts_is_understood(text: str, file: Path) -> None:
    """With a byte order mark, other line ends, inline tables, dotted keys and tables in any order, all else stays."""
    file.write_text(text, encoding="utf-8", newline="")
    before = tomllib.loads(text.removeprefix("\ufeff"))
    add_account(file, "new", NEW)
    add_account(file, "main", NEW, replace=True)
    after = config_in(file)
    assert after["accounts"].pop("new") == WRITTEN
    main = after["accounts"].pop("main")
    assert WRITTEN.items() <= main.items()
    before["accounts"].pop("main")
    assert {**after, "default": 0} == {**before, "default": 0}
    remove_account(file, "main")
    assert "main" not in config_in(file)["accounts"]


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=6)


@st.composite
def configs(draw: st.DrawFn) -> tuple[str, list[str]]:
    """A file with comments between its tables, and the names of its accounts."""
    between = st.lists(st.sampled_from(["", "# a", "# b [accounts.x]", "   # c \u2028"]), max_size=3)

    def comments() -> str:
        return "".join(f"{line}\n" for line in draw(between))

    text = comments()
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    for number, name in enumerate(names):
        quoted = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
        text += f"[accounts.{quoted}]\nusername = 'u'\n# of this account\nsecret = 's'\n{comments()}"
        if draw(st.booleans()):
            text += f"[other{number}]\nkey = '''\n[accounts.x]\n'''\n{comments()}"
    return text, names


@given(configs(), st.data())
def test_whatever_else_is_in_the_file_stays(
    tmp_path_factory: pytest.TempPathFactory, config: tuple[str, list[str]], data: st.DataObject
) -> None:
    """For all files, adding an account and removing another keeps every other value, and each comment outside."""
    text, names = config
    file = tmp_path_factory.mktemp("any") / "config.toml"
    file.write_text(text, encoding="utf-8", newline="")
    expected = deepcopy(tomllib.loads(text))
    gone, new = data.draw(st.sampled_from(names)), data.draw(NAMES.filter(lambda name: name not in names))
    add_account(file, new, NEW)
    remove_account(file, gone)
    expected["accounts"].pop(gone)
    expected["accounts"][new] = WRITTEN
    assert config_in(file) == expected
    assert comments_in(file.read_text(encoding="utf-8")) == comments_in(text)


def comments_in(text: str) -> list[str]:
    """Return the comments between tables, sorted, because an account may move."""
    lines = (line.strip(" ") for line in text.split("\n"))
    return sorted(line for line in lines if line.startswith("#") and "of this account" not in line)


def test_a_link_stays_a_link(file: Path, tmp_path: Path) -> None:
    """The target of the link is changed, for example in a repository of settings."""
    link = tmp_path / "link.toml"
    link.symlink_to(file)
    add_account(link, "new", NEW)
    assert link.is_symlink()
    assert "new" in config_in(file)["accounts"]


def test_what_fails_half_way_leaves_the_old_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk is full when the new file is written, the old file stays, and the new one is removed."""

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match=r"cannot be written \(No space left on device\); check") as caught:
        add_account(file, "new", NEW)
    assert file.read_text(encoding="utf-8") == CONFIG
    assert list(file.parent.iterdir()) == [file]
    assert not any(secret in shown_inside(caught.value) for secret in (SECRET, "old-secret"))


@pytest.mark.parametrize(
    "text, error",
    [
        ("default = ", "TOML"),
        ("accounts = 3\n", "accounts.NAME"),
        ("accounts = {main = {secret = 'old-secret'}}\n", "accounts.NAME"),
    ],
)
def test_a_file_that_cannot_be_changed_is_left(text: str, error: str, file: Path) -> None:
    """The error names the file and the advice, and shows no secret."""
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=error) as caught:
        add_account(file, "new", NEW)
    assert str(file) in str(caught.value)
    assert file.read_text(encoding="utf-8") == text
    assert not any(secret in shown_inside(caught.value) for secret in (SECRET, "old-secret"))


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "\x1b[0m"])
def test_a_name_can_be_shown(name: str, file: Path) -> None:
    """Names that a terminal would not display are rejected."""
    with pytest.raises(ConfigError, match="not a valid account name"):
        add_account(file, name, NEW)
    assert _accounts.check_new(file, "a b", replace=False)[0] == "main"
