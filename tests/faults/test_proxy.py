"""The proxy fails as it is told."""

import threading
from collections.abc import Iterator
from http.client import BadStatusLine, HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from .proxy import Fault, Proxy, proxied

pytestmark = pytest.mark.fast


class Echo(BaseHTTPRequestHandler):
    """Answers with the body, and keeps it."""

    got: list[bytes]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.got.append(body)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def got() -> list[bytes]:
    """What the server got."""
    return []


@pytest.fixture
def proxy(got: list[bytes]) -> Iterator[Proxy]:
    """A proxy in front of a server that answers what it is sent."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("", (Echo,), {"got": got}))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    with proxied(f"http://127.0.0.1:{server.server_port}") as made:
        yield made
    server.shutdown()
    server.server_close()


def ask(proxy: Proxy, body: bytes = b"x", timeout: float = 60.0) -> tuple[int, bytes]:
    """Return status and content of an answer."""
    connection = HTTPConnection(urlsplit(proxy.uri).netloc, timeout=timeout)
    try:
        connection.request("POST", "/path", body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_requests_are_passed_on(proxy: Proxy, got: list[bytes]) -> None:
    assert ask(proxy) == (200, b"x")
    assert got == [b"x"]
    assert proxy.seen == ["POST /path passed"]


@pytest.mark.parametrize("status", [429, 500])
def test_a_status_is_answered_without_the_server(proxy: Proxy, got: list[bytes], status: int) -> None:
    proxy.fail(Fault(status))
    assert ask(proxy)[0] == status
    proxy.heal()
    assert ask(proxy, b"y") == (200, b"y")
    assert got == [b"y"]


@pytest.mark.parametrize(
    ("kind", "error", "done"),
    [("refused", ConnectionRefusedError, 0), ("closed", OSError, 0), ("lost", OSError, 1)],
)
def test_no_answer_comes(proxy: Proxy, got: list[bytes], kind: str, error: type[Exception], done: int) -> None:
    proxy.fail(Fault(kind))
    with pytest.raises((error, BadStatusLine)):
        ask(proxy)
    assert len(got) == done
    proxy.heal()
    assert ask(proxy) == (200, b"x")


def test_what_hangs_is_done_in_the_end_though_nobody_waits(proxy: Proxy, got: list[bytes]) -> None:
    proxy.fail(Fault("hanging"))
    with pytest.raises(TimeoutError):
        ask(proxy, b"late", timeout=0.1)
    assert got == []
    proxy.heal()
    ask(proxy)
    while len(got) < 2:
        pass
    assert sorted(got) == [b"late", b"x"]


def test_a_request_begins_a_fault_which_ends_in_time(proxy: Proxy) -> None:
    proxy.fail_at(Fault("hanging", 0.05), "POST /path b", 2)
    assert [ask(proxy, body)[1] for body in (b"b", b"a", b"b")] == [b"b", b"a", b"b"]
    assert proxy.seen == ["POST /path passed", "POST /path passed", "POST /path hanging"]
    assert proxy.began is not None


def test_an_answered_request_begins_a_fault_for_those_after_it(proxy: Proxy) -> None:
    proxy.fail_at(Fault(500), "z", answered=True)
    assert [ask(proxy, body)[0] for body in (b"b", b"z", b"b")] == [200, 200, 500]


def test_a_share_of_some_requests_fails(proxy: Proxy) -> None:
    proxy.fail(Fault(500, share=0.5, of="x"))
    assert {ask(proxy, b"y")[0] for _ in range(20)} == {200}
    assert 20 < [ask(proxy, b"x")[0] for _ in range(100)].count(500) < 80
