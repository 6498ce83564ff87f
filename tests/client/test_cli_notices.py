"""What the library warns of is seen on standard error, and what the doctor says of partitions."""

from __future__ import annotations

import logging

from riverrun import PartitionDescription
from riverrun.cli.notices import warnings_shown
from riverrun.cli.partition_checks import SHOWN, judge_partitions

LOG = logging.getLogger("riverrun")


def test_a_warning_is_one_line_on_standard_error_as_long_as_a_command_runs(capsys):
    with warnings_shown():
        LOG.warning("half[1]: %s", "offline\n  run this")
        LOG.info("of no interest")
    assert capsys.readouterr() == ("", "warning: half[1]: offline run this\n")
    with warnings_shown():
        LOG.warning("again")
    assert capsys.readouterr().err == "warning: again\n"
    LOG.debug("not shown any more")
    assert not LOG.handlers


def test_a_wait_for_a_broker_is_told_also_in_a_pipe_unless_a_program_reads(capsys):
    waiting = logging.getLogger("riverrun._net.channel")
    with warnings_shown():
        waiting.info("waiting: no broker answers")
    assert capsys.readouterr().err == "note: waiting: no broker answers\n"
    with warnings_shown(waiting_too=False):
        waiting.info("waiting: no broker answers")
    assert capsys.readouterr().err == ""


def test_an_exception_in_a_warning_is_named(capsys):
    with warnings_shown():
        try:
            int("no number")
        except ValueError:
            LOG.exception("on_reset failed")
    told = capsys.readouterr().err
    assert told.startswith("warning: on_reset failed: ValueError(")
    assert told.count("\n") == 1


def partition(number: int, leader: int, error: str = "") -> tuple[str, PartitionDescription]:
    return f"t[{number}]", PartitionDescription(number, leader, 1, (1,), (1,), error=error)


def test_partitions_that_are_all_well_are_counted():
    (finding,) = judge_partitions([partition(0, 1), partition(1, 2)])
    assert (finding.check, finding.state, finding.advice) == ("partitions", "ok", "")
    assert finding.found.startswith("2,")


def test_a_partition_is_not_well_without_a_leader_and_neither_is_one_whose_leader_cannot_serve_it():
    findings = judge_partitions(
        [partition(0, 1), partition(1, -1), partition(2, 1, "damaged; run this")]
    )
    assert [finding.state for finding in findings] == ["failed"] * 2
    assert [finding.found for finding in findings] == [
        "t[1] cannot be used",
        "t[2] cannot be used",
    ]
    assert findings[0].advice
    assert findings[1].advice == "damaged; run this"


def test_thousands_of_offline_partitions_are_told_in_a_bounded_way():
    findings = judge_partitions([partition(n, -1, "offline") for n in range(SHOWN + 3000)])
    assert len(findings) == SHOWN + 1
    assert findings[-1].state == "failed"
    assert findings[-1].found == "3000 more cannot be used"
