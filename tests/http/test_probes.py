"""Probes and scrapes: what they say, and that nobody can take them away from others."""

from __future__ import annotations

import contextlib
import http.client
import socket

import pytest
from prometheus_client import Counter

from riverrun_server.http import LIFETIME_S, MAX_CONNECTIONS, ProbeServer
from riverrun_server.observe.metrics import Metrics
from riverrun_server.rpc.listener import Address
from riverrun_server.runtime.health import Health, Life


class FakeClock:
    def __init__(self) -> None:
        self.now = 0.0

    def wall_ms(self) -> int:
        return 0

    def monotonic(self) -> float:
        return self.now


class Rig:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.health = Health(self.clock)
        self.metrics = Metrics(process=False)
        self.server = ProbeServer(
            Address("127.0.0.1", 0), self.health, self.metrics.registry, self.clock
        )

    def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        connection = http.client.HTTPConnection(*self.server.address, timeout=10)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def connect(self) -> socket.socket:
        return socket.create_connection(self.server.address, timeout=10)


@pytest.fixture
def rig():
    rig = Rig()
    rig.server.start()
    yield rig
    rig.server.close()


def test_a_broker_is_alive_before_it_is_ready(rig):
    rig.health.heart("loop", 10.0)
    assert rig.get("/livez")[0] == 200
    status, text = rig.get("/readyz")
    assert status == 503
    assert text.startswith("FAIL serving: the store is being opened\nok   loop:")
    rig.health.life = Life.SERVING
    assert rig.get("/readyz")[0] == 200
    rig.health.life = Life.DRAINING
    assert rig.get("/readyz")[0] == 503
    assert rig.get("/livez")[0] == 200


def test_a_loop_that_no_longer_answers_is_told_although_it_cannot_answer_itself(rig):
    rig.health.heart("loop", 10.0)
    rig.clock.now = 11.0
    status, text = rig.get("/livez")
    assert status == 503
    assert text == "FAIL loop: answered 11.0 s ago, 10 s are allowed\n"


def test_a_scrape_shows_the_registry(rig):
    rig.metrics.task_crashes.inc(3)
    status, text = rig.get("/metrics")
    assert status == 200
    assert "riverrun_task_crashes_total 3.0" in text


def test_another_path_names_those_there_are(rig):
    assert rig.get("/")[0] == 404
    assert rig.get("/../etc/passwd") == (404, "there are /livez, /readyz, /metrics\n")


def test_a_query_is_ignored_and_head_has_no_body(rig):
    assert rig.get("/livez?verbose")[0] == 200
    assert rig.get("/metrics", "HEAD") == (200, "")


def test_other_methods_are_refused(rig):
    assert rig.get("/livez", "POST")[0] == 501


def test_idle_connections_cannot_lock_a_prober_out(rig):
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(rig.connect()) for _ in range(MAX_CONNECTIONS)]
        one_too_many = stack.enter_context(rig.connect())
        assert one_too_many.recv(1) == b""
        rig.clock.now = LIFETIME_S + 0.1
        assert rig.get("/livez")[0] == 200
        assert [connection.recv(1) for connection in idle] == [b""] * MAX_CONNECTIONS


def test_a_page_that_fails_ends_its_connection_and_no_other(rig, capsys):
    def explode() -> float:
        raise ZeroDivisionError

    broken = Counter("broken", "Breaks.", registry=rig.metrics.registry)
    broken.collect = explode
    with pytest.raises(http.client.RemoteDisconnected):
        rig.get("/metrics")
    assert "http page failed" in capsys.readouterr().out
    assert rig.get("/livez")[0] == 200


def test_a_port_in_use_is_an_error_and_a_closed_one_is_free_again(rig):
    address = rig.server.address
    with pytest.raises(OSError, match="in use"):
        ProbeServer(address, rig.health, rig.metrics.registry, rig.clock)
    rig.server.close()
    ProbeServer(address, rig.health, rig.metrics.registry, rig.clock).close()
