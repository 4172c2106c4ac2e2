"""One request over a real socket, the server's response, and an authority that signs its certificate."""

import gzip
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import date
from pathlib import Path
from typing import NoReturn

import httpx
import pytest
import trustme
from support import ACCOUNT, Body

from mixpanel_export._model import Chunk, Selection
from mixpanel_export._source.client import new_client
from mixpanel_export._source.parameters import RequestParameters, Timeouts
from mixpanel_export._source.request import fetch
from mixpanel_export.errors import NetworkError

CHUNK = Chunk(date(2024, 3, 1), date(2024, 3, 1))


SECRET = f"{ACCOUNT.secret!s:s}"


ALL = Selection("12345")


LINE = b'{"event":"e","properties":{}}\n'


LINES = b'{"event":"e","properties":{"text":"%s"}}\n' % (b"x" * (1 << 20)) * 17


STORED = gzip.compress(LINES, 0)  # more than the 16 MiB that the client allows to be under way


PROXIES = [f"{name}_PROXY" for name in ("HTTP", "HTTPS", "ALL", "NO")]


PATIENT = Timeouts(first_byte=30, idle=30)


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """A certificate authority that only clients configured for it trust."""
    return trustme.CA()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, authority: trustme.CA, tmp_path: Path) -> None:
    """No proxy, and the authority trusted."""
    for name in [*PROXIES, "SSL_CERT_FILE", "SSL_CERT_DIR"]:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))


@pytest.fixture(params=[False, True], ids=["http1", "http2"])
def http2(request: pytest.FixtureRequest) -> bool:
    """Whether HTTP/2 is offered to the server."""
    return bool(request.param)


async def admit() -> None:
    """Admit a request immediately."""


def seen(_size: int) -> None:
    """Count no bytes."""


async def never() -> NoReturn:
    raise AssertionError("a request was let go")


async def fetched(
    url: str,
    client: httpx.AsyncClient,
    *,
    admit: Callable[[], Awaitable[None]] = admit,
    chunk: Chunk = CHUNK,
    timeouts: Timeouts = PATIENT,
) -> bytes:
    """Return the lines of one attempt."""
    parameters = RequestParameters(url, ACCOUNT, ALL, timeouts=timeouts)
    async with aclosing(fetch(client, parameters, chunk, admit=admit, on_bytes=seen)) as blocks:
        return b"".join([piece async for lines in blocks for piece in lines])


async def refused(url: str, http2: bool, timeouts: Timeouts = PATIENT) -> str:
    """Return the error of an attempt that finds no connection: no request is sent, and no secret is shown."""
    async with new_client(url, http2=http2) as client:
        with pytest.raises(NetworkError) as caught:
            await fetched(url, client, admit=never, timeouts=timeouts)
    said = str(caught.value) + repr(caught.value.to_dict())
    assert SECRET not in said
    assert "proxy-password" not in said
    assert "2024-03-01" in said
    return str(caught.value)


def whole(body: bytes = STORED) -> httpx.MockTransport:
    """Return a transport whose every response is *body*, in one piece, with the encoding gzip."""

    def handle(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-encoding": "gzip"}, stream=Body([body]))

    return httpx.MockTransport(handle)


def short() -> httpx.MockTransport:
    """Return a transport whose every response is `LINE`."""
    return whole(gzip.compress(LINE))
