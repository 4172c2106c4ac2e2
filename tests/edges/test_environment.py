"""The environment: variables that are set but empty, and credentials with extra characters that tools add."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from examples import slow
from hypothesis import given
from hypothesis import strategies as st
from shell import mpx, one_error
from support import held, truth

from mixpanel_export.credentials import read_accounts, resolve_credentials
from mixpanel_export.simulator import Fault, Simulator

DAYS = ("--from", "2024-03-01", "--to", "2024-03-03")
OPTIONAL = (
    "MP_ACCOUNT", "MP_CONFIG_PATH", "MP_REGION", "MPX_DB", "MPX_MEMORY_LIMIT", "MPX_PROCESS_MEMORY", "MPX_PER_HOUR", "MPX_PER_SECOND",
    "MPX_PROJECT_TIMEZONE", "MPX_STATE_DIR", "MPX_THREADS", "NO_COLOR", "SSL_CERT_FILE", "SSL_CERT_DIR", "HTTPS_PROXY",
    "ALL_PROXY", "NO_PROXY", "TMPDIR", "COLUMNS", "XDG_STATE_HOME",
)  # fmt: skip
SECRET = "0123456789abcdefghijklmnopqrstuv"
ENVIRON = {
    "MP_USERNAME": "svc.ab12cd.mp-service-account",
    "MP_SECRET": SECRET,
    "MP_PROJECT_ID": "12345",
    "MP_REGION": "eu",
}


@pytest.mark.parametrize("empty", ["", " "])
def test_variables_that_are_empty_are_not_set(
    empty: str, env: Mapping[str, str], sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all variables empty, an export and its settings are the same as without them."""
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    ours = [name for name in OPTIONAL if empty == "" or name.startswith("MP")]
    bare = {"HOME": str(home), **dict.fromkeys(ours, empty)}
    for words in (
        ["export", *DAYS],
        ["status"],
        ["query", "SELECT 1"],
        ["quota"],
        ["doctor"],
        ["accounts", "list"],
    ):
        result = mpx(*words, env=bare)
        assert result.exit_code == 0, result.stderr
    assert held(tmp_path / "mixpanel.duckdb") == truth(sim, last="2024-03-03")


@pytest.mark.parametrize("name", ["MP_USERNAME", "MP_SECRET"])
def test_credentials_that_are_empty_are_not_there(name: str) -> None:
    """An empty user name is ignored, so the secret is a project secret; without a secret, there is an error."""
    if name == "MP_SECRET":
        with pytest.raises(Exception, match="no secret"):
            resolve_credentials(environ={**ENVIRON, name: ""})
    else:
        with pytest.warns(UserWarning, match="project secret"):
            assert resolve_credentials(environ={**ENVIRON, name: ""}).is_legacy


AROUND = {
    "double quotes": '"{}"',
    "single quotes": "'{}'",
    "typographic quotes": "\u201c{}\u201d",
    "a mark": "\ufeff{}",
    "a mark and a newline": "\ufeff{}\r\n",
    "zero width": "\u200b{}\u200b",
    "no-break space": "\xa0{}\xa0",
    "a mark of UTF-16 whose zeros the shell dropped": "\udcff\udcfe{}\r",
    "the same read as Latin-1": "\xff\xfe{}\r",
    "a mark of UTF-8 read as Latin-1": "\xef\xbb\xbf{}",
    "quotes and spaces": ' "{}" \n',
}


@pytest.mark.parametrize("around", AROUND)
def test_what_tools_put_around_a_value_is_no_part_of_it(around: str, tmp_path: Path) -> None:
    """The value is cleaned in each variable and in each entry of the configuration file."""
    environ = {name: AROUND[around].format(value) for name, value in ENVIRON.items()}
    assert resolve_credentials(environ=environ) == resolve_credentials(environ=ENVIRON)
    if "\udcff" not in AROUND[around]:
        file = tmp_path / "config.toml"
        secret = (
            AROUND[around]
            .format(SECRET)
            .replace("\\", "\\\\")
            .replace('"', '\\"')
            .replace("\r", "\\r")
            .replace("\n", "\\n")
        )
        file.write_text(f'default = "a"\n[accounts.a]\nsecret = "{secret}"\n', encoding="utf-8")
        assert read_accounts(file)[1]["a"]["secret"] == SECRET


def test_characters_without_width_inside_a_secret_are_no_part_of_it() -> None:
    """Web pages insert such characters between letters."""
    environ = ENVIRON | {"MP_SECRET": "\u2060".join(SECRET)}
    assert resolve_credentials(environ=environ).secret == SECRET


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1))
def test_a_plain_secret_stays_as_it_is(secret: str) -> None:
    """For all secrets of visible ASCII that are not in quotes, every character is kept."""
    if len(secret) > 1 and secret[0] == secret[-1] and secret[0] in "'\"":
        return
    assert resolve_credentials(environ=ENVIRON | {"MP_SECRET": secret}).secret == secret


@pytest.mark.parametrize(
    "content",
    [
        f"{SECRET}\r\n".encode("utf-16"),
        b"\xfe\xff" + f"{SECRET}\n".encode("utf-16-be"),
        b"\xef\xbb\xbf" + SECRET.encode(),
        f'"{SECRET}"\n'.encode(),
        f"{SECRET}\nnot this line\n".encode(),
    ],
)
def test_a_secret_comes_from_standard_input_in_any_encoding(
    content: bytes, env: Mapping[str, str], tmp_path: Path
) -> None:
    """PowerShell and other programs write files in different encodings."""
    add = ("accounts", "add", "main", "--username", "u", "--project-id", "1", "--no-test", "--secret-stdin")
    assert mpx(*add, given=content).exit_code == 0
    assert read_accounts(tmp_path / "config.toml")[1]["main"]["secret"] == SECRET


SUSPICIOUS = {
    "$MP_SECRET": "variable name",
    "${SECRET}": "variable name",
    "%MP_SECRET%": "variable name",
    f"{SECRET[:9]} {SECRET[9:]}": "whitespace",
    f'"{SECRET}': "quotation mark",
    f"{SECRET}'": "quotation mark",
    f"{SECRET}\u00e9": "contains characters",
    f"{SECRET}\x07": "contains characters",
}


@pytest.mark.parametrize(
    "secret", ["$MP_SECRET", f'"{SECRET}', *slow([*SUSPICIOUS][1:4]), *slow([*SUSPICIOUS][5:])]
)
def test_a_refused_secret_that_looks_wrong_says_so(
    secret: str, env: Mapping[str, str], sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error about the rejection and `mpx doctor --offline` describe the problem without showing the secret."""
    monkeypatch.setenv("MP_SECRET", secret)
    sim.faults = [Fault("401")]
    refused = mpx("export", *DAYS)
    assert refused.exit_code == 3
    doctor = mpx("doctor", "--offline")
    for said in (one_error(refused), doctor.stdout):
        assert SUSPICIOUS[secret] in said
        assert secret not in said
    assert doctor.exit_code == 0


def test_a_secret_that_looks_right_is_not_doubted(env: Mapping[str, str], sim: Simulator) -> None:
    """Neither the error nor the doctor comments on it."""
    sim.faults = [Fault("401")]
    assert "looks" not in one_error(mpx("export", *DAYS))
    assert "the secret" not in mpx("doctor", "--offline").stdout


def test_a_user_name_that_looks_wrong_is_doubted_too(
    env: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The finding is a warning, not a problem."""
    monkeypatch.setenv("MP_USERNAME", "$MP_USER")
    assert "the user name looks like a variable name" in mpx("doctor", "--offline").stdout


def test_a_configuration_of_another_encoding_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PowerShell's `>` writes UTF-16."""
    file = tmp_path / "config.toml"
    file.write_bytes("[accounts.a]\nsecret = 's'\n".encode("utf-16"))
    monkeypatch.setenv("MP_CONFIG_PATH", os.fspath(file))
    assert "save it as UTF-8" in one_error(mpx("accounts", "list"))
