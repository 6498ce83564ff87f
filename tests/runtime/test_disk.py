"""What the log says of the disk: that it is full, also at the start, and that it has room again."""

from __future__ import annotations

from structlog.testing import capture_logs

from riverrun_server.core.admission import DiskGate
from riverrun_server.runtime.disk import look


def test_a_full_disk_and_its_end_are_told_once_each_also_at_the_start():
    gate = DiskGate(10, 20)
    with capture_logs() as lines:
        look(gate, 5, 100)
        look(gate, 15, 100)
        look(gate, 20, 100)
        look(gate, 19, 100)
    assert [(line["log_level"], line["free_bytes"]) for line in lines] == [
        ("error", 5),
        ("info", 20),
    ]


def test_a_disk_with_room_is_no_news():
    with capture_logs() as lines:
        look(DiskGate(10, 20), 50, 100)
    assert lines == []
