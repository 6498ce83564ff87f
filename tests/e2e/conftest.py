"""Brokers for end-to-end tests, each ended whatever becomes of its test."""

from __future__ import annotations

import contextlib
import sys

import pytest

from tests.e2e.broker_process import BrokerProcess


@contextlib.contextmanager
def ended(process):
    """Leave no broker or etcd behind; what it printed is shown where a test fails."""
    try:
        yield process
    finally:
        process.stop()
        sys.stdout.write(process.logs())


@pytest.fixture
def broker_process(tmp_path):
    """A broker that the test starts, kills and restarts as it likes."""
    with ended(BrokerProcess(tmp_path)) as broker:
        yield broker


@pytest.fixture
def broker(broker_process):
    """A running broker of the test's own."""
    broker_process.start()
    return broker_process


@pytest.fixture(scope="module")
def shared_broker(tmp_path_factory):
    """A running broker for the tests of one module, which keep to topics of their own."""
    with ended(BrokerProcess(tmp_path_factory.mktemp("broker"))) as broker:
        broker.start()
        yield broker


@pytest.fixture
def topic(request):
    """A topic name that no other test of the module uses."""
    return "".join(c if c.isalnum() else "-" for c in request.node.name)[:200]
