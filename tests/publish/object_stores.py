"""A server with the protocol of S3 on loopback, which can fail requests."""

import logging
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from random import Random
from socket import SHUT_RDWR
from threading import Lock
from typing import Any
from urllib.request import Request, urlopen

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

BUCKET = "bucket"
CONTROL = "/faults/"
SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Faults:
    """Passes requests on, and fails a share of them at random: status 503, or a reset before or after the work."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._lock = Lock()
        self._random = Random(0)
        self.share = 0.0
        self.failed = 0

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"].startswith(CONTROL):
            self.share = float(environ["PATH_INFO"].removeprefix(CONTROL))
            start("200 OK", [])
            return [str(self.failed).encode()]
        with self._lock:
            fails = self._random.random() < self.share
            kind = self._random.choice(["status", "before", "after"]) if fails else None
            self.failed += fails
        if kind == "status":
            start("503 Slow Down", [("Content-Type", "application/xml")])
            return [SLOW_DOWN]
        if kind == "before":
            environ["werkzeug.socket"].shutdown(SHUT_RDWR)
            return []
        answer = self._application(environ, start)
        if kind == "after":
            list(answer)
            environ["werkzeug.socket"].shutdown(SHUT_RDWR)
            return []
        return answer


class Server:
    """A server in another process: libraries that hold the interpreter's lock would otherwise block it."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    def fail(self, share: float) -> int:
        """Fail this share of the requests from now on. Return how many requests have failed so far."""
        with closing(urlopen(f"{self.endpoint}{CONTROL}{share}")) as answer:  # noqa: S310 - loopback
            return int(answer.read())


@contextmanager
def s3_server() -> Iterator[Server]:
    """Yield a server with an empty bucket."""
    with subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        endpoint = process.stdout.readline().strip()
        with closing(urlopen(Request(f"{endpoint}/{BUCKET}", method="PUT"))):  # noqa: S310 - loopback
            pass
        try:
            yield Server(endpoint)
        finally:
            process.kill()


def main() -> None:
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    faults = Faults(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, faults, threaded=True)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)  # noqa: T201
    server.serve_forever()


if __name__ == "__main__":
    main()
