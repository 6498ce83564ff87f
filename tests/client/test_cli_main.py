"""The console script as a process: help, mistakes, exit codes, completion and its page of docs."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from riverrun.cli.app import cli, run
from riverrun.cli.completion import TOPIC_SETTINGS
from riverrun.cli.exits import Exit, exit_for
from riverrun.cli.group_show import total_lag
from riverrun.cli.groups import Group
from riverrun.cli.settings import with_ports
from riverrun_server.core.cluster.topic_config import KEYS

SCRIPT = Path(sys.executable).with_name("riverrun")
ROOT = Path(__file__).resolve().parents[2]
CLOSED = "127.0.0.1:1"
"""Nobody listens there."""


def riverrun(*args, stdin="", env=None):
    """Run the command line to its end."""
    clean = {name: value for name, value in os.environ.items() if "RIVERRUN" not in name}
    return subprocess.run(
        [SCRIPT, *args],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        env=clean | (env or {}),
        check=False,
    )


def every_command(group, path=()):
    """Name all commands by their paths, groups too."""
    yield path
    if isinstance(group, Group):
        for name, late in group.late.items():
            yield from every_command(late.load(), (*path, name))


COMMANDS = list(every_command(cli))


def test_help_imports_neither_grpc_nor_protobuf_nor_rich_nor_asyncio():
    script = """
import json, sys
from riverrun.cli.app import run
for path in json.loads(sys.argv[1]):
    assert run([*path, "--help"]) == 0
    heavy = {"grpc", "google.protobuf", "rich", "asyncio", "riverrun.client"} & sys.modules.keys()
    assert not heavy, (path, heavy)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(COMMANDS)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage: riverrun") == len(COMMANDS)
    assert done.stdout.count("--bootstrap H:P") == len(COMMANDS)


LEAVES = [path for path in COMMANDS if path and path[0] in cli.late]
LEAVES = [path for path in LEAVES if not any(other[:-1] == path for other in COMMANDS)]


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_help_has_examples_that_the_command_line_reads(path, capsys):
    assert run([*path, "--help"]) == 0
    lines = re.findall(
        r"^ +(?:.*\| |.*eval \"\$\()?(riverrun .*)$", capsys.readouterr().out, re.MULTILINE
    )
    examples = [shlex.split(re.split(r" [|<>]|\)\"", line)[0]) for line in lines]
    mine = [words[1:] for words in examples if words[1 : 1 + len(path)] == list(path)]
    assert mine, "its help shows no example"
    for words in mine:
        assert run([*words, "--help"]) == 0, words


def test_the_console_script_shows_help_and_version():
    done = riverrun("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for name in cli.late:
        assert f"\n  {name} " in done.stdout
    assert riverrun("--version").stdout.startswith("riverrun ")


def test_help_is_a_command_too(capsys):
    def shown(*args):
        assert run([*args]) == 0
        return capsys.readouterr().out

    assert shown("help") == shown("--help")
    assert shown("help", "topic", "create") == shown("topic", "create", "--help")
    assert shown("topic", "help") == shown("topic", "--help")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("localhost", "localhost:7171"),
        ("a, b:1,[::1]", "a:7171,b:1,[::1]:7171"),
        ("", ""),
        ("::1", "::1"),
    ],
)
def test_a_host_alone_has_the_default_port(given, meant):
    assert with_ports(given) == meant


@pytest.mark.parametrize("address", ["a:b", "::1", ":7171", ","])
def test_an_address_that_is_none_is_a_wrong_command_line(address):
    done = riverrun("topic", "list", "--bootstrap", address)
    assert done.returncode == Exit.USAGE
    assert done.stderr.startswith("error: --bootstrap: ")


def test_a_lag_of_which_a_part_is_unknown_is_unknown():
    assert total_lag([3, 4]) == 7
    assert total_lag([3, None]) is None


def test_the_short_help_in_a_group_is_that_of_the_command():
    def check(group):
        for name, late in group.late.items():
            command = late.load()
            assert command.name == name
            assert command.short_help == late.short_help
            if isinstance(command, Group):
                check(command)

    check(cli)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["tpoic"], "did you mean 'topic'?"),
        (["topic", "creat", "t"], "did you mean 'create'?"),
        (["xyzzy"], "there are topic, produce, consume"),
        (["topic", "create"], "TOPIC"),
        (["topic", "create", "t", "--partitons", "3"], "--partitions"),
        (["topic", "create", "t", "--partitions", "0"], "x>=1"),
        (["topic", "create", "t", "--config", "retention.ms"], "is not KEY=VALUE"),
        (["topic", "create", "t", "--config", "a=1", "--config", "a=2"], "set twice"),
        (["topic", "alter", "t"], "nothing to change"),
        (["topic", "alter", "t", "--config", "a=1", "--unset", "a"], "give one"),
        (
            ["topic", "trim", "t", "--before", "-5"],
            "an offset, a time or latest, which deletes everything",
        ),
        (["topic", "trim", "t"], "--before"),
        (["produce", "t", "--delimiter", ""], "--record-size"),
        (["produce", "t", "--delimiter", r"\q"], "xHH"),
        (["produce", "t", "--delimiter", ",", "--record-size", "5"], "exclude each other"),
        (["produce", "t", "--record-size", "5", "--format", "hex"], "cuts raw values"),
        (["produce", "t", "--format", "json", "--key-separator", ":"], "say their keys"),
        (["produce", "t", "--format", "xml"], "raw"),
        (["produce", "t", "--header", "novalue"], "is not NAME=VALUE"),
        (["produce", "t", "--header", "\udcff=x"], "is not UTF-8"),
        (["produce", "t", "--acks", "one"], "leader"),
        (["consume", "t", "--from", "somewhen"], "10m-ago"),
        (["consume", "t", "--until", "-5"], "neither an offset nor"),
        (["consume", "t", "--from", "committed"], "needs --group"),
        (["consume", "t", "--from", "10", "--until", "5"], "--from 10 lies behind --until 5"),
        (["consume", "t", "--from", "1h-ago", "--until", "1d-ago"], "lies behind --until"),
        (["consume", "t", "--format", "%x"], "%t %p %o"),
        (["consume", "t", "--format", r"\q"], "xHH"),
        (["consume", "t", "--max", "0"], "x>=1"),
        (["perf", "produce", "t"], "--records"),
        (["perf", "latency", "t", "--seconds", "soon"], "is not a span"),
        (["--timeout", "0", "topic", "list"], "more than 0"),
        (["--output", "xml", "topic", "list"], "table"),
        (["completion", "csh"], "zsh"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line_that_says_what_is_right(
    args, said, capsys, monkeypatch
):
    monkeypatch.setenv("GRPC_VERBOSITY", "NONE")
    assert run(args) == Exit.USAGE
    told = capsys.readouterr()
    assert told.out == ""
    assert said in told.err
    assert told.err.startswith("error: ")
    assert told.err.count("\n") == 1
    assert "--help`)" in told.err


def test_a_mistake_ends_the_process_with_its_code_and_without_a_traceback():
    done = riverrun("tpoic")
    assert (done.returncode, done.stdout) == (Exit.USAGE, "")
    assert (
        done.stderr == "error: no command 'tpoic'; did you mean 'topic'? (see `riverrun --help`)\n"
    )


def test_a_mistake_is_a_json_object_where_json_was_asked_for():
    error = json.loads(riverrun("--output", "json", "consume", "t", "--max", "x").stderr)["error"]
    assert error["reason"] == "USAGE"
    assert error["exit_code"] == 2
    assert error["outcome"] == "nothing happened"
    done = riverrun("consume", "t", "--format", "%s", "--output", "json")
    assert "exclude each other" in json.loads(done.stderr)["error"]["message"]


@pytest.mark.parametrize(
    ("line", "as_json"),
    [
        ("consume t --from nonsense --output json", True),
        ("--timeout never topic list --output=json", True),
        ("topic lst --output json", True),
        ("consume t --nonsense --output json", True),
        ("consume t --from nonsense --output json --output table", False),
        ("consume t --from nonsense --output", False),
        ("consume --from nonsense -- --output json", False),
        ("consume t --from nonsense --output jsn", False),
    ],
)
def test_a_mistake_is_a_json_object_wherever_that_was_asked_for_on_the_line(line, as_json, capsys):
    assert run(line.split()) == Exit.USAGE
    told = capsys.readouterr().err
    if as_json:
        assert json.loads(told)["error"]["exit_code"] == Exit.USAGE
    else:
        assert told.startswith("error: ")


@pytest.mark.parametrize(
    "args",
    [
        ["topic", "list"],
        ["topic", "create", "t"],
        ["produce", "t"],
        ["produce", "t", "--create"],
        ["consume", "t"],
        ["consume", "t", "--until", "5", "--group", "g"],
        ["cluster", "describe"],
        ["perf", "produce", "t", "--records", "1"],
        ["perf", "consume", "t", "--records", "1"],
        ["perf", "latency", "t"],
    ],
    ids=" ".join,
)
def test_where_no_broker_answers_the_address_is_named(args):
    done = riverrun(*args, "--bootstrap", CLOSED, "--timeout", "300ms", stdin="x\n")
    assert done.returncode == Exit.UNAVAILABLE, done.stderr
    assert done.stdout == ""
    assert CLOSED in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("args", "env"),
    [
        (["--bootstrap", CLOSED, "topic", "list"], {}),
        (["topic", "--bootstrap", CLOSED, "list"], {}),
        (["topic", "list", "--bootstrap", CLOSED], {}),
        (["topic", "list"], {"RIVERRUN_BOOTSTRAP": CLOSED}),
        (["--bootstrap", "127.0.0.1:2", "topic", "list", "--bootstrap", CLOSED], {}),
        (["--bootstrap", CLOSED, "topic", "list"], {"RIVERRUN_BOOTSTRAP": "127.0.0.1:2"}),
        (["topic", "list", "--bootstrap", CLOSED], {"RIVERRUN_BOOTSTRAP": "127.0.0.1:2"}),
    ],
)
def test_global_options_stand_anywhere_and_the_last_one_counts(args, env):
    done = riverrun(*args, "--timeout", "300ms", env=env)
    assert CLOSED in done.stderr
    assert "127.0.0.1:2" not in done.stderr


def test_the_doctor_says_what_to_do_where_nobody_listens():
    done = riverrun("doctor", "--bootstrap", f"{CLOSED},non:sense,two..dots:7171")
    assert done.returncode == Exit.FAILED
    assert "riverrun-server run" in done.stdout
    assert "is not HOST:PORT" in done.stdout
    assert "does not resolve" in done.stdout
    found = json.loads(riverrun("doctor", "--bootstrap", CLOSED, "--output", "json").stdout)
    assert found["ok"] is False
    assert found["findings"][0]["state"] == "failed"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_each_shell(shell):
    done = riverrun("completion", shell)
    assert done.returncode == 0
    assert "_RIVERRUN_COMPLETE" in done.stdout
    assert done.stderr == ""
    assert ("compopt -o nospace" in done.stdout) == (shell == "bash")


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("riverrun to", "topic"),
        ("riverrun topic de", "describe"),
        ("riverrun produce --ac", "--acks"),
        ("riverrun consume t --from ea", "earliest"),
        ("riverrun consume t --from yes", "yesterday"),
        ("riverrun consume t --until to", "today"),
        ("riverrun perf consume t --from com", "committed"),
        ("riverrun group reset-offsets g --to 1h", "1h-ago"),
        ("riverrun topic trim t --before lat", "latest"),
        ("riverrun topic offsets t --at no", "now"),
        ("riverrun topic create t --config max.b", "max.batch.bytes="),
        ("riverrun topic alter t --config retention.m", "retention.ms="),
        ("riverrun topic alter t --unset fs", "fsync"),
    ],
)
def test_commands_and_options_are_completed(words, offered):
    env = {
        "_RIVERRUN_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    done = riverrun(env=env)
    assert f"plain,{offered}" in done.stdout.splitlines()


def test_a_place_that_an_option_does_not_take_is_not_offered():
    env = {"_RIVERRUN_COMPLETE": "bash_complete", "COMP_CWORD": "4"}
    done = riverrun(env=env | {"COMP_WORDS": "riverrun consume t --until ear"})
    assert (done.stdout.strip(), done.stderr) == ("", "")
    done = riverrun(env=env | {"COMP_WORDS": "riverrun topic alter t"} | {"COMP_CWORD": "4"})
    assert "earliest" not in done.stdout


def test_the_settings_that_are_completed_are_those_that_a_broker_has():
    assert sorted(TOPIC_SETTINGS) == sorted(KEYS)


def test_completing_a_topic_without_a_broker_offers_nothing_and_does_not_fail():
    env = {
        "_RIVERRUN_COMPLETE": "bash_complete",
        "COMP_WORDS": f"riverrun --bootstrap {CLOSED} consume t",
        "COMP_CWORD": "4",
    }
    done = riverrun(env=env)
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_a_reader_that_goes_away_is_quiet():
    done = subprocess.run(
        ["/bin/bash", "-c", f"{SCRIPT} --help | true; echo ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "0"
    assert done.stderr == ""


def test_the_page_of_docs_is_fresh():
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "cli_docs.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("reason", "known", "retriable", "code"),
    [
        ("TOPIC_NOT_FOUND", True, False, Exit.NOT_FOUND),
        ("OFFSET_OUT_OF_RANGE", True, False, Exit.NOT_FOUND),
        ("TOPIC_EXISTS", True, False, Exit.CONFLICT),
        ("NO_BROKER", True, True, Exit.UNAVAILABLE),
        ("REQUEST_TIMED_OUT", False, True, Exit.UNKNOWN_OUTCOME),
        ("INVALID_CONFIG", True, False, Exit.FAILED),
        ("SOMETHING_NEW", True, False, Exit.FAILED),
        ("SOMETHING_NEW", False, False, Exit.UNKNOWN_OUTCOME),
    ],
)
def test_exit_codes_follow_reason_and_outcome(reason, known, retriable, code):
    assert exit_for(reason, outcome_known=known, retriable=retriable) is code
