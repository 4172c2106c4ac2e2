"""A server that violates HTTP/2 is treated as a broken connection."""

import pytest
import sockets
import trustme
from servers import Http2, Misdeed, Server, serving
from sockets import LINE, fetched
from support import answering

from mixpanel_export._source.client import new_client
from mixpanel_export.errors import NetworkError

authority = sockets.authority
environment = sockets.environment
http2 = sockets.http2
pytestmark = pytest.mark.anyio


async def reset(connection: Http2, number: int) -> None:
    connection.state.send_headers(number, [(":status", "200")])
    connection.state.send_data(number, b'{"event":')
    connection.state.reset_stream(number, error_code=2)


async def reset_at_once(connection: Http2, number: int) -> None:
    connection.state.reset_stream(number, error_code=7)


async def go_away(connection: Http2, number: int) -> None:
    connection.state.send_headers(number, [(":status", "200")])
    await connection.flush()
    connection.state.close_connection(error_code=11, last_stream_id=number)


async def go_away_at_once(connection: Http2, number: int) -> None:
    connection.state.close_connection(error_code=11, last_stream_id=0)
    await connection.flush()
    await connection.stream.aclose()


async def close(connection: Http2, number: int) -> None:
    connection.state.send_headers(number, [(":status", "200")])
    connection.state.send_data(number, LINE)
    await connection.flush()
    await connection.stream.aclose()


async def less_than_announced(connection: Http2, number: int) -> None:
    connection.state.send_headers(number, [(":status", "200"), ("content-length", "100")])
    connection.state.send_data(number, LINE, end_stream=True)


async def rubbish_at_once(connection: Http2, number: int) -> None:
    await connection.stream.send(b"\x00\x00\x00\x06" + b"\x00" * 5)  # a PING without its eight bytes


async def rubbish(connection: Http2, number: int) -> None:
    connection.state.send_headers(number, [(":status", "200")])
    await connection.flush()
    await rubbish_at_once(connection, number)


@pytest.mark.parametrize(
    "misdeed",
    [
        reset,
        reset_at_once,
        go_away,
        go_away_at_once,
        close,
        less_than_announced,
        rubbish,
        rubbish_at_once,
    ],
    ids=lambda misdeed: misdeed.__name__,
)
async def test_what_goes_wrong_within_http2_may_pass(authority: trustme.CA, misdeed: Misdeed) -> None:
    """A server that violates HTTP/2 is treated as a broken connection, and the attempt is repeated."""
    server = Server(answering(lambda _: b""), misdeed=misdeed)
    async with serving(authority, server), new_client(server.url, http2=True) as client:
        with pytest.raises(NetworkError, match=r"2024-03-01: the connection to localhost broke \(.+\)"):
            await fetched(server.url, client)
        server.misdeed = None
        assert await fetched(server.url, client) == b""
