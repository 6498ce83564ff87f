"""A real broker for all tests of the client that leave it as it is, and topics of their own in it."""

from __future__ import annotations

import itertools
import re

import pytest

import riverrun.blocking
from tests.client.cli_process import CommandLine
from tests.e2e.broker_process import BrokerProcess
from tests.e2e.conftest import ended

_numbers = itertools.count()


@pytest.fixture(scope="session")
def real_broker(tmp_path_factory):
    """A running broker for tests that keep to topics of their own, and at most halt it for a while."""
    with ended(BrokerProcess(tmp_path_factory.mktemp("broker"))) as broker:
        broker.start()
        yield broker


@pytest.fixture(scope="module")
def client(real_broker):
    """A blocking client of that broker; the modules of the async one make their own."""
    with riverrun.blocking.Client(real_broker.address) as client:
        yield client


@pytest.fixture(scope="module")
def cli(tmp_path_factory):
    """The command line, with a broker that the module has for itself."""
    with ended(BrokerProcess(tmp_path_factory.mktemp("broker"))) as broker:
        broker.start()
        yield CommandLine(broker.address)


@pytest.fixture
def own_topic(request):
    """A topic name that no other test uses."""
    return f"{re.sub(r'[^A-Za-z0-9-]', '-', request.node.name)[:200]}-{next(_numbers)}"
