"""`MP_SECRET_FILE`: the secret in a file, as container platforms mount it."""

from pathlib import Path

import pytest

from mixpanel_export.credentials import resolve_credentials
from mixpanel_export.errors import ConfigError

ACCOUNT = {"MP_USERNAME": "svc.1", "MP_PROJECT_ID": "12345"}


@pytest.mark.parametrize(
    "content", [b"s3cret", b"s3cret\n", b"\xef\xbb\xbf s3cret \r\nrest", "s3cret\n".encode("utf-16")]
)
def test_the_first_line_is_the_secret(content: bytes, tmp_path: Path) -> None:
    """White space, a byte order mark and other lines are omitted."""
    file = tmp_path / "secret"
    file.write_bytes(content)
    credentials = resolve_credentials(environ=ACCOUNT | {"MP_SECRET_FILE": str(file)})
    assert credentials.auth == ("svc.1", "s3cret")
    assert "s3cret" not in repr(credentials)


def test_the_variable_comes_first(tmp_path: Path) -> None:
    """If `MP_SECRET` is set, the file is not read."""
    environ = ACCOUNT | {"MP_SECRET": "other", "MP_SECRET_FILE": str(tmp_path / "none")}
    assert resolve_credentials(environ=environ).secret == "other"


@pytest.mark.parametrize("content", [None, b"", b"\n s3cret", b"\xffs3cret"])
def test_a_file_without_a_secret_is_an_error(content: bytes | None, tmp_path: Path) -> None:
    """The error names the variable, and never the contents."""
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match="MP_SECRET_FILE") as caught:
        resolve_credentials(environ=ACCOUNT | {"MP_SECRET_FILE": str(file)})
    assert "s3cret" not in str(caught.value) + str(caught.value.__cause__)
