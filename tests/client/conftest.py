"""A real broker for all tests of the client that leave it as it is, and topics of their own in it."""

from __future__ import annotations

import itertools
import re

import pytest

from tests.e2e.broker_process import BrokerProcess

_numbers = itertools.count()


@pytest.fixture(scope="session")
def real_broker(tmp_path_factory):
    """A running broker for tests that keep to topics of their own, and at most halt it for a while."""
    broker = BrokerProcess(tmp_path_factory.mktemp("broker"))
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()


@pytest.fixture
def own_topic(request):
    """A topic name that no other test uses."""
    return f"{re.sub(r'[^A-Za-z0-9-]', '-', request.node.name)[:200]}-{next(_numbers)}"
