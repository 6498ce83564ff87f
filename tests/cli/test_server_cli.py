"""The broker's command line: what a person sees, and the exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from riverrun_server.cli import main

# Stands in for the composition root: these tests are about the command line around it.
FAKE_APP = """
import sys, types
app = types.ModuleType("riverrun_server.app")
recovery = types.ModuleType("riverrun_server.recover")
def serve(settings):
    {serve}
def accept_loss(settings, topic, partition):
    {recover}
app.serve, recovery.accept_loss = serve, accept_loss
sys.modules["riverrun_server.app"] = app
sys.modules["riverrun_server.recover"] = recovery
from riverrun_server.cli import main
main()
"""


def clean_environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("RIVERRUN_")}


@pytest.fixture
def invoke(monkeypatch):
    for key in [key for key in os.environ if key.startswith("RIVERRUN_")]:
        monkeypatch.delenv(key)

    def run(*arguments: str, **environ: str):
        return CliRunner().invoke(main, arguments, env=environ)

    return run


def with_app(
    *arguments: str, serve: str = "return 0", recover: str = "return ''", before: str = ""
):
    code = before + FAKE_APP.format(serve=serve, recover=recover)
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env=clean_environment(),
        timeout=60,
        check=False,
    )


def test_help_shows_the_commands_and_examples_and_is_quick(invoke):
    for arguments in (["--help"], ["-h"], ["run", "--help"], ["recover", "--help"]):
        done = invoke(*arguments)
        assert done.exit_code == 0
        assert "Usage: " in done.output
    assert "riverrun-server run --data-dir" in invoke("--help").output
    environ = clean_environment()
    command = [str(Path(sys.executable).parent / "riverrun-server"), "--help"]
    best = 10.0
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run(command, capture_output=True, check=True, env=environ)
        best = min(best, time.perf_counter() - began)
    assert best < 0.5  # measured 0.11-0.17; a test machine may be busy


def test_help_imports_nothing_of_the_server_extra():
    code = (
        "import sys, riverrun_server.cli as cli\n"
        "heavy = {'grpc', 'rocksdict', 'structlog', 'prometheus_client', 'uvloop', 'google'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_print_config_shows_value_and_origin(invoke, tmp_path):
    file = tmp_path / "broker.toml"
    file.write_text('rack = "r1"\n')
    done = invoke(
        "print-config",
        "--config",
        str(file),
        "--listen=127.0.0.1:9000",
        "--set=storage.slots=4",
        "--insecure",
        "--output=json",
        RIVERRUN_BROKER_ID="7",
    )
    assert done.exit_code == 0, done.output
    rows = {row["setting"]: (row["value"], row["origin"]) for row in json.loads(done.stdout)}
    assert rows["rack"] == ("r1", f"file {file}:1")
    assert rows["broker_id"] == (7, "environment RIVERRUN_BROKER_ID")
    assert rows["listeners.0.bind"] == ("127.0.0.1:9000", "flag --listen")
    assert rows["storage.slots"] == (4, "flag --set storage.slots")
    assert rows["insecure"] == (True, "flag --insecure")
    assert rows["http.listen"] == ("127.0.0.1:9002", "default")


def test_a_setting_that_was_set_by_name_has_that_origin_and_outranks_its_flag(invoke):
    done = invoke("print-config", "--set=rack=b", "--rack=a", "--set=rack=c", "--output=json")
    [row] = [row for row in json.loads(done.stdout) if row["setting"] == "rack"]
    assert row == {"setting": "rack", "value": "c", "origin": "flag --set rack"}


def test_the_file_can_be_named_by_the_environment(invoke, tmp_path):
    file = tmp_path / "broker.toml"
    file.write_text("broker_id = 9\n")
    done = invoke("print-config", RIVERRUN_CONFIG=str(file))
    assert f"9               file {file}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "slots=1"], "there is no setting slots; did you mean storage.slots?"),
        (["--set", "storage.slots"], "--set storage.slots: expected KEY=VALUE"),
        (["--set", "storage.slots=0"], "flag --set storage.slots: storage.slots: expected a whole"),
        (["--broker-id", "x"], "flag --broker-id: broker_id: expected a whole number"),
        (["--config", "/nowhere/broker.toml"], "cannot be read: No such file"),
        (["--listen", "10.0.0.1:7171"], "allow it with --insecure"),
    ],
)
def test_a_bad_configuration_is_one_line_and_exit_code_2(invoke, arguments, said):
    done = invoke("run", *arguments)
    assert done.exit_code == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("riverrun-server: ")
    assert said in line
    assert not done.stdout


@pytest.mark.parametrize("command", ["run", "print-config"])
@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--broker-ids", "Did you mean '--broker-id'?"),
        ("--storage-slots", "write --set storage.slots=VALUE"),
        ("--zzz", "No such option '--zzz'"),
    ],
)
def test_an_unknown_flag_is_refused_with_what_was_meant(invoke, command, flag, said):
    done = invoke(command, flag, "1")
    assert done.exit_code == 2
    assert said in done.stderr
    assert "Traceback" not in done.output


def test_an_unknown_variable_keeps_a_broker_from_starting(invoke):
    done = invoke("run", RIVERRUN_BROKER_IDS="1")
    assert done.exit_code == 2
    assert done.stderr == (
        "riverrun-server: environment: there is no setting RIVERRUN_BROKER_IDS; "
        "did you mean RIVERRUN_BROKER_ID?\n"
    )


def test_run_hands_over_the_settings_and_exits_with_what_serve_returns():
    done = with_app(
        "run",
        "--data-dir=here",
        serve="print('ready', settings.data_dir, settings.listeners[0].bind); return 3",
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "ready here 127.0.0.1:7171\n", "")


@pytest.mark.parametrize(
    "serve",
    [
        "from riverrun_server.runtime.supervisor import CannotStart as E; raise E('port taken')",
        "from riverrun_server.ports.log import StorageError as E; raise E('port taken')",
    ],
)
def test_what_a_person_can_put_right_is_one_line_and_exit_code_1(serve):
    done = with_app("run", serve=serve)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "riverrun-server: port taken\n"


def test_a_bug_keeps_its_traceback():
    done = with_app("run", serve="raise ZeroDivisionError")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_without_the_server_extra_it_says_what_to_install():
    done = with_app("run", before="import sys; sys.modules['structlog'] = None\n")
    assert done.returncode == 1
    assert done.stderr == (
        "riverrun-server: structlog is not installed: the broker needs the server extra; in a clone of "
        "Riverrun's repository: pip install '.[server]'\n"
    )


def test_recover_does_nothing_unless_the_loss_is_accepted():
    told = "return f'kept {topic}-{partition} in {settings.data_dir}'"
    arguments = ["recover", "--data-dir=here", "--topic=t", "--partition=2"]
    done = with_app(*arguments, recover=told)
    assert done.returncode == 2
    assert "Missing option '--accept-loss'" in done.stderr
    done = with_app(*arguments, "--accept-loss", recover=told)
    assert (done.returncode, done.stdout) == (0, "kept t-2 in here\n")


def test_version(invoke):
    assert invoke("version").stdout.startswith("riverrun-server 0.")
    assert invoke("--version").stdout == invoke("version").stdout
