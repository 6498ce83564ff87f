"""pytest's fixtures: one broker for all tests of a run, and a topic for each test."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def riverrun_broker() -> Iterator[str]:
    """Run a broker for all tests of this run; the value is its address."""
    from riverrun.testing.throwaway import broker  # noqa: PLC0415 - the plugin must load in no time

    with broker() as address:
        yield address


@pytest.fixture
def riverrun_topic(riverrun_broker: str, request: pytest.FixtureRequest) -> str:
    """Make a topic of one partition that no other test uses; the value is its name."""
    from riverrun.blocking import Client  # noqa: PLC0415 - as above

    test = re.sub(r"[^A-Za-z0-9]+", "-", request.node.name).strip("-")[:150]
    name = f"{test}-{uuid.uuid4().hex[:8]}"
    with Client(riverrun_broker) as client:
        client.admin().create_topic(name, partitions=1)
    return name
