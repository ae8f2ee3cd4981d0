"""A proxy in front of a server, which fails while it runs, as a fault says."""

import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import Any
from urllib.parse import urlsplit

ANSWER = 65_536  # bytes that are kept of a body to look for a pattern


@dataclass(frozen=True)
class Fault:
    """What becomes of a `share` of the requests, for so many `seconds`, or None for until `heal`.

    `kind`: "refused" listens to none, "closed" closes without an answer, "hanging" waits for the end of the fault and
    then goes on, as a stopped process does, "lost" closes after the server has done it; a number is the status of the
    answer, and the server is not asked. `of`: only requests whose method, path and body it is found in.
    """

    kind: str | int
    seconds: float | None = None
    share: float = 1.0
    of: str = ""


class Proxy:
    """Passes requests on, until it is told to fail, at once or by a request.

    `seen` has the method and path of each request, and what became of it.
    """

    def __init__(self, server: str, seed: int = 0) -> None:
        self._server, self._random, self._change = urlsplit(server).netloc, Random(seed), threading.RLock()
        self._fault: Fault | None = None
        self._armed: tuple[Fault, re.Pattern[str], int, bool] | None = None
        self._over = threading.Event()
        self._timer: threading.Timer | None = None
        self.seen: list[str] = []
        self.began: float | None = None
        self._port = 0
        self._listen()
        self.uri = f"http://127.0.0.1:{self._port}"

    def fail(self, fault: Fault) -> None:
        """Fail from now on."""
        with self._change:
            self.heal()
            self._fault, self._over, self.began = fault, threading.Event(), time.time()
            if fault.kind == "refused":
                self._close()
            if fault.seconds is not None:
                self._timer = threading.Timer(fault.seconds, self.heal)
                self._timer.daemon = True
                self._timer.start()

    def fail_at(self, fault: Fault, pattern: str, number: int = 1, *, answered: bool = False) -> None:
        """Fail from the request on that is the first, or another `number`, in whose method, path and body this is.

        That request fails whatever the `share`, unless it is still `answered`.
        """
        self._armed = (fault, re.compile(pattern), number, answered)

    def heal(self) -> None:
        """Pass all on from now on."""
        with self._change:
            if self._timer is not None:
                self._timer.cancel()
            fault, self._fault, self._timer = self._fault, None, None
            if fault is not None and fault.kind == "refused":
                self._listen()
            self._over.set()

    def close(self) -> None:
        """End it."""
        with self._change:
            self._armed = None
            self.heal()
            self._close()

    def _listen(self) -> None:
        proxy = self

        class Handler(_Handler):
            def one(self) -> None:
                proxy._answer(self)

        self._http = _Server(("127.0.0.1", self._port), Handler)
        self._port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def _close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def _fate(self, request: str) -> tuple[Fault | None, threading.Event]:
        """Return what becomes of a request: a fault, which may begin with it, or None."""
        with self._change:
            if self._armed is not None and self._armed[1].search(request):
                fault, pattern, number, answered = self._armed
                self._armed = (fault, pattern, number - 1, answered) if number > 1 else None
                if self._armed is None:
                    self.fail(fault)
                    return None if answered else fault, self._over
            now = self._fault
            fails = now is not None and re.search(now.of, request) and self._random.random() < now.share
            return now if fails else None, self._over

    def _answer(self, handler: "_Handler") -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        first = f"{handler.command} {handler.path}"
        fault, over = self._fate(f"{first} {body[:ANSWER].decode(errors='replace')}")
        kind = fault.kind if fault is not None else "passed"
        self.seen.append(f"{first} {kind}")
        if isinstance(kind, int):
            handler.give(kind, {"Content-Type": "text/plain"}, b"broken on purpose")
        elif kind in ("refused", "closed"):
            handler.reset()
        else:
            if kind == "hanging":
                over.wait()
            try:
                status, headers, content = self._ask(handler, body)
            except (OSError, HTTPException):  # the server has gone
                handler.reset()
                return
            if kind == "lost":
                handler.reset()
            else:
                handler.give(status, headers, content)

    def _ask(self, handler: "_Handler", body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = HTTPConnection(self._server)
        headers = {name: value for name, value in handler.headers.items() if name.lower() not in OF_A_CONNECTION}
        connection.request(handler.command, handler.path, body or None, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        kept = {name: value for name, value in answer.getheaders() if name.lower() not in OF_A_CONNECTION}
        return answer.status, kept, content


OF_A_CONNECTION = {"host", "connection", "keep-alive", "content-length", "transfer-encoding", "date", "server"}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that has gone."""


class _Handler(BaseHTTPRequestHandler):
    """Serves one request a connection, so that none is left open when the server is away."""

    def one(self) -> None:
        raise NotImplementedError

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = lambda self: self.one()  # noqa: N815

    def give(self, status: int, headers: dict[str, str], content: bytes) -> None:
        with suppress(OSError):  # the client has gone
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Connection", "close")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

    def reset(self) -> None:
        """Close the connection at once, without an answer."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextmanager
def proxied(server: str, seed: int = 0) -> Iterator[Proxy]:
    """Return a proxy in front of the server at an address."""
    proxy = Proxy(server, seed)
    try:
        yield proxy
    finally:
        proxy.close()
