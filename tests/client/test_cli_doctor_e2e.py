"""`riverrun doctor` against brokers that are not well."""

from __future__ import annotations

import json

from riverrun.cli.exits import Exit
from tests.client.cli_process import CommandLine
from tests.e2e.broker_process import BrokerProcess

MORE_THAN_ANY_DISK = str(60 << 40)


def test_a_broker_that_refuses_appends_for_want_of_room_fails_the_check(tmp_path):
    marks = ("RIVERRUN_STORAGE_DISK_LOW_WATER_BYTES", "RIVERRUN_STORAGE_DISK_HIGH_WATER_BYTES")
    broker = BrokerProcess(tmp_path, environ=dict.fromkeys(marks, MORE_THAN_ANY_DISK))
    try:
        broker.start()
        cli = CommandLine(broker.address)
        told = json.loads(cli.run("doctor", "--output", "json", code=Exit.FAILED).stdout)
        assert told["ok"] is False
        (disk,) = [one for one in told["findings"] if one["check"] == "disk"]
        assert disk["state"] == "failed"
        assert "appends are refused" in disk["found"]
        assert "reads go on" in disk["advice"]
        args = ("produce", "t", "--create", "--timeout", "1")
        refused = cli.run(*args, stdin=b"x", code=Exit.UNAVAILABLE).stderr
        assert b"GiB free and appends need" in refused
    finally:
        broker.stop()
