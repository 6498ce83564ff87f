"""The throw-away broker and pytest's fixtures that the library gives to its users."""

from __future__ import annotations

import importlib.util
import os
import re
import select
import signal
import subprocess
import sys
import tempfile

import pytest

import riverrun
import riverrun.blocking
import riverrun.testing
from riverrun.testing import throwaway

pytest_plugins = ["pytester"]


@pytest.fixture
def own_tmp(tmp_path, monkeypatch):
    """Where temporary folders are made, so that what is left there can be seen."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def server_info(address):
    with riverrun.blocking.Client(address, connect_timeout_s=0.3) as client:
        return client.server_info()


def test_a_broker_serves_in_the_block_and_nothing_of_it_is_left_behind(own_tmp, monkeypatch):
    monkeypatch.setenv("RIVERRUN_LISTEN", "nonsense")
    with riverrun.testing.broker({"topic_defaults.partitions": "5"}) as address:
        assert re.fullmatch(r"127\.0\.0\.1:\d+", address)
        assert [*own_tmp.iterdir()]
        with riverrun.blocking.Client(address) as client:
            assert client.admin().create_topic("t").partitions == 5
    assert not [*own_tmp.iterdir()]
    with pytest.raises(riverrun.NoBrokerError):
        server_info(address)


def test_a_broker_that_does_not_start_shows_what_it_said(own_tmp):
    with (
        pytest.raises(riverrun.testing.BrokerNotStartedError, match=r"broker_id.*none") as caught,
        riverrun.testing.broker({"broker_id": "none"}),
    ):
        pass
    assert "exit code 2" in str(caught.value)
    assert not [*own_tmp.iterdir()]


def test_a_broker_that_is_not_ready_in_time_is_given_up(own_tmp):
    with (
        pytest.raises(riverrun.FatalError, match=r"within 0.01 s \(start_timeout_s\)"),
        riverrun.testing.broker(start_timeout_s=0.01),
    ):
        pass
    assert not [*own_tmp.iterdir()]


def test_without_the_server_extra_it_says_what_to_install(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "rocksdict" else found(name)
    )
    with (
        pytest.raises(riverrun.FatalError, match=r"rocksdict.*pip install '\.\[server\]'"),
        riverrun.testing.broker(),
    ):
        pass


def test_a_broker_that_does_not_end_is_killed(own_tmp, monkeypatch):
    monkeypatch.setattr(throwaway, "_STOP_TIMEOUT_S", 0.2)
    started = []
    start = throwaway._start
    monkeypatch.setattr(
        throwaway, "_start", lambda *given: started.append(start(*given)) or started[0]
    )
    with riverrun.testing.broker():
        os.kill(started[0].pid, signal.SIGSTOP)
    assert started[0].returncode == -signal.SIGKILL
    assert not [*own_tmp.iterdir()]


def test_a_broker_ends_with_a_test_run_that_is_killed(tmp_path):
    program = """
import riverrun.testing, threading
from riverrun.testing import throwaway
start = throwaway._start
def told(*given):
    process = start(*given)
    print(process.pid, flush=True)
    return process
throwaway._start = told
with riverrun.testing.broker() as address:
    print("ready", flush=True)
    threading.Event().wait(60)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    pid = int(process.stdout.readline())
    assert process.stdout.readline() == "ready\n"
    end = os.pidfd_open(pid)
    process.kill()
    process.wait()
    process.stdout.close()
    ended, _, _ = select.select([end], [], [], 20)
    os.close(end)
    assert ended, "the broker outlived the run that started it"


def test_the_fixtures_give_a_broker_for_all_tests_and_a_topic_for_each(pytester):
    pytester.makepyfile(
        """
        import riverrun.blocking

        seen = set()

        def check(riverrun_broker, riverrun_topic):
            with riverrun.blocking.Client(riverrun_broker) as client, client.producer() as producer:
                assert producer.send(riverrun_topic, b"v").offset == 0
            seen.add((riverrun_broker, riverrun_topic))

        def test_first(riverrun_broker, riverrun_topic):
            check(riverrun_broker, riverrun_topic)

        def test_second(riverrun_broker, riverrun_topic):
            check(riverrun_broker, riverrun_topic)
            assert len({broker for broker, _ in seen}) == 1
            assert {topic[:-8] for _, topic in seen} == {"test-first-", "test-second-"}
        """
    )
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function")
    done = pytester.runpytest_subprocess("-W", "error", "-p", "no:randomly")
    done.assert_outcomes(passed=2)


def test_the_fixtures_cost_nothing_where_they_are_not_used():
    text = "import sys, riverrun.testing.pytest_plugin; print('grpc' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
