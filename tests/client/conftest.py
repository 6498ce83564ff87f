"""A real broker for the tests of a module that want one, and topics of their own in it."""

from __future__ import annotations

import re

import pytest

from tests.e2e.broker_process import BrokerProcess


@pytest.fixture(scope="module")
def real_broker(tmp_path_factory):
    """A running broker for one module's tests, which keep to topics of their own."""
    broker = BrokerProcess(tmp_path_factory.mktemp("broker"))
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()


@pytest.fixture
def own_topic(request):
    """A topic name that no other test of the module uses."""
    return re.sub(r"[^A-Za-z0-9-]", "-", request.node.name)[:200]
