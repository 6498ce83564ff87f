"""Answers probes and scrapes on a port of their own, from threads, so that a stuck loop shows.

Plain HTTP/1.0 without keep-alive: each connection serves one GET and ends. There are only so many
connections at once, each lives for a short time, and whoever trickles bytes loses it to the next.
"""

from __future__ import annotations

import contextlib
import http.server
import socket
import socketserver
import sys
import threading
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from riverrun_server.ports.clock import Clock
from riverrun_server.rpc.listener import Address
from riverrun_server.runtime.health import Check, Health

MAX_CONNECTIONS: Final = 8
# A prober or scraper on the same network needs milliseconds; both times are for slow machines.
SILENCE_S: Final = 2.0
LIFETIME_S: Final = 5.0
_log = structlog.stdlib.get_logger(__name__)

_TEXT: Final = "text/plain; charset=utf-8"


class ProbeServer:
    """Serves /livez, /readyz and /metrics from `start` to `close`."""

    def __init__(
        self, bind: Address, health: Health, registry: CollectorRegistry, clock: Clock
    ) -> None:
        """Bind the port.

        Raises:
            OSError: the address is taken or not one of this machine's.
        """
        pages: dict[str, Callable[[], Page]] = {
            "/livez": lambda: _checks(health.live()),
            "/readyz": lambda: _checks(health.ready()),
            "/metrics": lambda: (HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(registry)),
        }
        self._server = _Server(bind, pages, clock)
        self.address = bind._replace(port=self._server.server_address[1])
        self._closing = False
        self._thread = threading.Thread(target=self._serve, name="http", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Stop answering, cut what is open and free the port."""
        self._closing = True
        # Wakes the thread at once, where serve_forever would have to poll for it all its life.
        _cut(self._server.socket)
        if self._thread.is_alive():
            self._thread.join()
        self._server.server_close()

    def _serve(self) -> None:
        while not self._closing:
            self._server.handle_request()


Page = tuple[HTTPStatus, str, bytes]


def _checks(checks: list[Check]) -> Page:
    """Return one line for each check, and 503 where one is not ok."""
    status = HTTPStatus.OK if all(c.ok for c in checks) else HTTPStatus.SERVICE_UNAVAILABLE
    lines = [f"{'ok  ' if check.ok else 'FAIL'} {check.name}: {check.text}\n" for check in checks]
    return status, _TEXT, "".join(lines).encode()


class _Handler(http.server.BaseHTTPRequestHandler):
    timeout = SILENCE_S  # type: ignore[mutable-override] # nobody assigns None to it
    server_version = "riverrun"
    sys_version = ""

    def do_GET(self) -> None:
        assert isinstance(self.server, _Server)
        pages = self.server.pages
        page = pages.get(self.path.partition("?")[0])
        if page is None:
            known = ", ".join(pages)
            self._answer(HTTPStatus.NOT_FOUND, _TEXT, f"there are {known}\n".encode())
        else:
            self._answer(*page())

    def do_HEAD(self) -> None:
        self.do_GET()

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - inherited name and types
        """Log nothing: a probe every second would drown the rest."""


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """A thread for each connection, as many as are allowed."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 16

    def __init__(self, bind: Address, pages: dict[str, Callable[[], Page]], clock: Clock) -> None:
        self.address_family, *_, where = socket.getaddrinfo(
            bind.host, bind.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        host, port = where[:2]
        self.pages = pages
        self._clock = clock
        self._open: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        super().__init__((str(host), int(port)), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for a connection, or close it at once where there are too many."""
        now = self._clock.monotonic()
        with self._lock:
            if len(self._open) >= MAX_CONNECTIONS:
                self._cut_old(now)
            if len(self._open) >= MAX_CONNECTIONS:
                _cut(request)
                request.close()
                return
            self._open[request] = now
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection that has been answered, or has failed."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Free the port and cut every connection."""
        super().server_close()
        with self._lock:
            for request in self._open:
                _cut(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - inherited
        """Log what a page failed of; a prober that hung up is no event."""
        if not isinstance(sys.exception(), OSError):
            _log.exception("http page failed")

    def _cut_old(self, now: float) -> None:
        for old in [each for each, since in self._open.items() if now - since > LIFETIME_S]:
            _cut(old)
            del self._open[old]


def _cut(connection: socket.socket) -> None:
    """End a connection in both directions; its thread notices by itself."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
