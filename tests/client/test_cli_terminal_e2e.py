"""What a person sees on a terminal: bars of progress, colours, tables that fit, questions."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from riverrun.cli.exits import Exit
from riverrun.cli.progress import progress_line
from tests.client.cli_process import SCRIPT, CommandLine
from tests.client.terminal import Terminal, plain
from tests.e2e.broker_process import BrokerProcess


@pytest.fixture(scope="module")
def cli(tmp_path_factory):
    broker = BrokerProcess(tmp_path_factory.mktemp("broker"))
    try:
        broker.start()
        cli = CommandLine(broker.address)
        cli.env.pop("NO_COLOR", None)
        yield cli
    finally:
        broker.stop()


def test_a_file_that_is_produced_shows_a_bar_and_leaves_one_line(cli, tmp_path):
    path = tmp_path / "lines"
    path.write_bytes(b"x" * 99 + b"\n" * 1 + (b"y" * 99 + b"\n") * 400_000)
    with Terminal() as terminal, path.open("rb") as lines:
        said = terminal.run(
            [SCRIPT, "produce", "bar", "--create"], env=cli.env, stdin=lines, stdout=subprocess.PIPE
        )
    bars = [line for line in said.split(b"\r") if b"%  " in line]
    assert bars
    assert all(b"of 38.1 MiB" in bar for bar in bars)
    assert plain(said).splitlines()[-1].strip().startswith("400,001 records acknowledged in ")


def test_a_topic_that_is_read_into_a_file_shows_a_bar_and_the_file_is_clean(cli, tmp_path):
    cli.shell(
        "yes 0123456789012345678901234567890123456789 | head -n 1500000 "
        "| riverrun produce out --create"
    )
    path = tmp_path / "out"
    with Terminal() as terminal, path.open("wb") as out:
        args = [SCRIPT, "consume", "out", "--exit-at-end", "--format", "%o %s"]
        said = terminal.run(args, env=cli.env, stdout=out)
    assert b"of 1,500,000 records" in said
    assert said.endswith(b"\r\x1b[K")
    assert path.read_bytes().count(b"\n") == 1_500_000


def test_a_progress_line_has_bar_share_rate_and_what_is_left_and_fits_its_width():
    line = progress_line(25, 100, 5.0, "records", 80)
    assert line == "[=======>                      ]  25 %  25 of 100 records, 5/s, 15 s left"
    assert progress_line(0, 100, 0.0, "records", 80).endswith("0 %  0 of 100 records, 0/s")
    assert progress_line(100, 100, 5.0, "records", 80).startswith(f"[{'=' * 30}] 100 %")
    assert progress_line(1 << 20, None, 2.0, "bytes", 80) == "1.0 MiB, 512.0 KiB/s"
    assert "100 min left" in progress_line(1, 7_001, 0.857, "records", 80)
    for width in range(1, 120):
        line = progress_line(1_234_567, 10_000_000, 2.0, "records", width)
        assert len(line) <= width


@pytest.mark.parametrize("columns", [80, 120, 200])
def test_tables_fit_the_terminal_whatever_its_width(cli, columns):
    cli.run("topic", "create", "a" * 60, "--if-not-exists", "--config", "retention.ms=9000000")
    with Terminal(columns) as terminal:
        for args in (
            ("topic", "list"),
            ("topic", "describe", "a" * 60, "--all-configs"),
            ("doctor",),
        ):
            lines = plain(terminal.run([SCRIPT, *args], env=cli.env)).splitlines()
            assert max(map(len, lines)) <= columns
            assert "…" not in "".join(lines)


def test_states_and_errors_are_coloured_unless_asked_not_to(cli):
    with Terminal() as terminal:
        assert b"\x1b[32mok" in terminal.run([SCRIPT, "doctor"], env=cli.env)
        args = [SCRIPT, "topic", "describe", "nope"]
        assert b"\x1b[1;31merror:" in terminal.run(args, env=cli.env, code=Exit.NOT_FOUND)
        colourless = cli.env | {"NO_COLOR": "1"}
        assert b"\x1b[3" not in terminal.run([SCRIPT, "doctor"], env=colourless)
        assert b"\x1b" not in terminal.run(args, env=colourless, code=Exit.NOT_FOUND)


def test_what_cannot_be_taken_back_is_asked_for_on_a_terminal(cli):
    cli.run("topic", "create", "asked")
    with Terminal() as terminal:
        terminal.type(b"n\n")
        said = terminal.run([SCRIPT, "topic", "delete", "asked"], env=cli.env, code=Exit.FAILED)
        assert "delete topic asked and all its records? [y/N]" in plain(said)
        assert plain(said).endswith("nothing was deleted\n")
        assert "error" not in plain(said)
        terminal.type(b"y\n")
        said = terminal.run([SCRIPT, "topic", "delete", "asked"], env=cli.env)
        assert "deleted topic asked" in plain(said)


def test_the_question_before_a_group_is_moved_says_where_to(cli):
    cli.run("topic", "create", "question", "--partitions", "5")
    cli.run("produce", "question", "--partition", "1", stdin=b"1\n2\n3\n")
    args = [SCRIPT, "group", "reset-offsets", "g", "--to", "latest", "--topic", "question"]
    with Terminal(columns=200) as terminal:
        terminal.type(b"n\n")
        said = plain(terminal.run(args, env=cli.env, code=Exit.FAILED))
        assert "move group g to latest in 5 of 5 partitions (question[0] from nothing to 0" in said
        assert "question[1] from nothing to 3, question[2] from nothing to 0, and 2 more)?" in said
        assert "]: nothing was changed" in said
        terminal.type(b"y\n")
        assert "moved group g in 5 of 5 partitions" in plain(terminal.run(args, env=cli.env))


def test_where_the_question_could_not_be_seen_nothing_is_done(cli, tmp_path):
    cli.run("topic", "create", "unseen")
    with Terminal() as terminal, (tmp_path / "errors").open("wb") as errors:
        args = [SCRIPT, "topic", "delete", "unseen"]
        terminal.run(args, env=cli.env, code=Exit.USAGE, stderr=errors)
    assert "give --yes if that is meant" in (tmp_path / "errors").read_text()
    cli.run("topic", "describe", "unseen")


def test_a_person_is_told_at_once_that_nobody_answers(cli):
    with Terminal() as terminal:
        args = [SCRIPT, "--bootstrap", "127.0.0.1:1", "--timeout", "1", "topic", "list"]
        said = plain(terminal.run(args, env=cli.env, code=Exit.UNAVAILABLE))
    note, error = said.splitlines()
    assert note.startswith("note: no broker answers at 127.0.0.1:1 yet, waiting up to 1 s: nobody")
    assert re.match(r"error: no broker answers at 127.0.0.1:1 within 1(\.\d)? s: nobody", error)


def test_nothing_of_the_terminal_reaches_a_pipe(cli, tmp_path):
    done = cli.run("doctor")
    assert b"\x1b" not in done.stdout + done.stderr
    lines = tmp_path / "lines"
    lines.write_bytes(b"x\n" * 1000)
    with lines.open("rb") as source:
        said = subprocess.run(
            [SCRIPT, "produce", "quiet", "--create"],
            stdin=source,
            env=cli.env,
            capture_output=True,
            timeout=60,
            check=True,
        )
    assert said.stdout + said.stderr == b""
    assert os.fspath(SCRIPT).endswith("riverrun")
