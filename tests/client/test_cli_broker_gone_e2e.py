"""`riverrun consume` where the broker goes away for good on the way."""

from __future__ import annotations

import pytest

from riverrun.cli.exits import Exit
from tests.client.cli_process import CommandLine
from tests.e2e.broker_process import BrokerProcess


@pytest.fixture
def broker(tmp_path):
    broker = BrokerProcess(tmp_path)
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()


def test_consume_to_the_end_fails_where_the_broker_is_gone_for_good(broker):
    cli = CommandLine(broker.address)
    line = b"x" * 9_999
    cli.run("produce", "t", "--create", stdin=(line + b"\n") * 4_000)
    with cli.running("consume", "t", "--exit-at-end", "--timeout", "2s") as process:
        # It has begun, and stands before a full pipe with most of the topic still to come.
        assert process.stdout.read(10_000) == line + b"\n"
        broker.kill9()
        output, errors = process.communicate(timeout=60)
    assert process.returncode == Exit.PARTLY == 7
    assert len(output) < 39_990_000
    assert b"Traceback" not in errors
    told = [text for text in errors.decode().splitlines() if text.startswith("error: ")]
    assert len(told) == 1
    assert "no broker answers at" in told[0]
    printed = output.count(b"\n") + 1  # the first one was read before
    assert told[0].endswith(f"; {printed} records were printed")
