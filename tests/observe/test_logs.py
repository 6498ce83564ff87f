"""The log: JSON or console, never broken by what it prints or by who stopped reading it."""

from __future__ import annotations

import io
import json
import logging
import os
import threading
import warnings

import pytest
import structlog

from riverrun_server.observe import logs


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def configure():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    logging.captureWarnings(capture=False)  # another test may have left it on, to no effect here

    def run(*args, stream, **kwargs):
        logs.configure(*args, stream=stream, **kwargs)

    yield run
    structlog.reset_defaults()
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)


def test_json_has_one_object_a_line_with_time_level_event_and_keys(configure):
    out = io.StringIO()
    configure("auto", stream=out)
    structlog.get_logger().info("topic created", topic="evil\n{}\x1b[2J")
    structlog.get_logger().warning("second")
    first, second = [json.loads(line) for line in out.getvalue().splitlines()]
    assert first["event"] == "topic created"
    assert first["topic"] == "evil\n{}\x1b[2J"
    assert first["level"] == "info"
    assert first["timestamp"].endswith("Z")
    assert second["event"] == "second"


def test_on_a_terminal_lines_are_for_people_and_names_cannot_draw_on_it(configure):
    out = Terminal()
    configure("auto", stream=out)
    structlog.get_logger().info("topic created", topic="evil\nname\x1b[2J")
    assert len(out.getvalue().splitlines()) == 1
    assert "evil\\nname\\x1b[2J" in out.getvalue()
    logging.getLogger("grpc").error("no topic evil\nname\x1b[2J")
    assert len(out.getvalue().splitlines()) == 2
    assert "no topic evil\\nname\\x1b[2J" in out.getvalue()


def test_less_severe_lines_are_left_out(configure):
    out = io.StringIO()
    configure("json", "warning", stream=out)
    structlog.get_logger().info("no")
    structlog.get_logger().warning("yes")
    assert [json.loads(line)["event"] for line in out.getvalue().splitlines()] == ["yes"]


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_does_not_show_the_values_of_variables(configure, form):
    out = io.StringIO()
    configure(form, stream=out)
    secret = "hunter2"
    try:
        raise ValueError(len(secret))  # noqa: TRY301
    except ValueError:
        structlog.get_logger().exception("failed")
    assert "ValueError: 7" in out.getvalue()
    assert "hunter2" not in out.getvalue().replace('secret = "hunter2"', "")


def test_libraries_and_warnings_come_in_the_same_form(configure):
    out = io.StringIO()
    configure("json", stream=out)
    logging.getLogger("grpc").error("lost %s", "it")
    logging.getLogger("asyncio").info("chatter")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert (lines[0]["event"], lines[0]["logger"]) == ("lost it", "grpc")
    assert "DeprecationWarning: old" in lines[1]["event"]
    assert len(lines) == 2


def test_a_reader_that_went_away_stops_nothing(configure):
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    configure("json", stream=Gone())
    structlog.get_logger().error("unheard")
    logging.getLogger("x").error("unheard")


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_reader_that_is_stuck_stops_nothing_and_is_told_what_it_missed(configure, form):
    read, write = os.pipe()
    with os.fdopen(read, "rb") as reader, os.fdopen(write, "w", buffering=1) as stream:
        configure(form, stream=stream)
        log = structlog.get_logger()
        count = 2000
        for number in range(count):
            log.info("tick", number=number, filler="x" * 100)
        os.set_blocking(read, False)
        begun = reader.read().decode()
        log.info("again")
        rest = reader.read().decode()
    kept = begun.splitlines()
    assert 100 < len(kept) < count
    assert all("tick" in line for line in kept), "no line is cut"
    lost, again = rest.splitlines()
    assert "log lines were lost, for nobody read them" in lost
    assert str(count - len(kept)) in lost
    assert "again" in again


def test_a_line_on_a_terminal_cannot_draw_on_it_whatever_has_the_name(configure):
    out = Terminal()
    configure("console", stream=out)
    plain = io.StringIO()
    structlog.get_logger().info("x", topic="\x1b[2J", names=["\x1b[2J"], group="a\u202eb")
    configure("console", stream=plain)
    structlog.get_logger().info("x", topic="\x1b[2J", names=["\x1b[2J"], group="a\u202eb")
    assert "\x1b[2J" not in out.getvalue()
    assert "\u202e" not in out.getvalue()
    assert plain.getvalue().rstrip("\n").isprintable()


def test_lines_of_many_threads_and_libraries_do_not_mix(configure):
    read, write = os.pipe()
    got = []
    with os.fdopen(read) as reader, os.fdopen(write, "w", buffering=1) as stream:
        drain = threading.Thread(target=lambda: got.extend(reader), daemon=True)
        drain.start()
        configure("json", stream=stream)
        failed = []

        def write_lines(write_line):
            try:
                for _ in range(500):
                    write_line("tick")
            except Exception as error:
                failed.append(error)

        writes = [structlog.get_logger().info, logging.getLogger("x").error] * 3
        threads = [threading.Thread(target=write_lines, args=[each]) for each in writes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stream.close()
        drain.join()
    assert not failed
    told = [json.loads(line) for line in got]
    lost = sum(line.get("lines", 0) for line in told)
    assert sum(line["event"] == "tick" for line in told) + lost == 3000


class ExecuteBatchError(Exception):
    """Named as gRPC's own, which it raises where a client is gone before its answer was sent."""


def test_clients_that_hang_up_write_nothing_into_the_log(configure):
    out = io.StringIO()
    configure("json", stream=out)
    for error in (ExecuteBatchError("gone"), ValueError("a bug")):
        logging.getLogger("grpc._cython.cygrpc").error("raised in core", exc_info=error)
    (line,) = out.getvalue().splitlines()
    assert "ValueError: a bug" in json.loads(line)["exception"]
