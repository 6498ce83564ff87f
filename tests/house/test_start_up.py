"""What the command line imports before it answers: its start-up time, without a clock.

A module that is not in these lists costs every `riverrun --help`, or every short command of a
script. Whoever needs one more imports it where it is used, or adds it here and says why.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.e2e.broker_process import BrokerProcess

SCRIPT = """
import json, sys
before = set(sys.modules)
from riverrun.cli.app import run
code = run(sys.argv[1:])
print("\\n" + json.dumps([code, sorted(sys.modules.keys() - before)]))
"""

HELP = {
    "riverrun",
    "riverrun._core",
    "riverrun._core.headers",  # what a record does to those that it is given
    "riverrun._core.records",
    "riverrun._core.type_parameters",
    "riverrun._net",
    "riverrun._net.addresses",  # the default port, and what has it; no grpc yet
    "riverrun.cli",
    "riverrun.cli.app",
    "riverrun.cli.colours",
    "riverrun.cli.exits",
    "riverrun.cli.groups",
    "riverrun.cli.places",
    "riverrun.cli.settings",
    "riverrun.cli.status",
    "riverrun.errors",
}
TOPIC_LIST = HELP | {
    "riverrun._core.argument_checks",
    "riverrun._core.attempts",
    "riverrun._core.backoff",
    "riverrun._core.cluster_descriptions",
    "riverrun._core.descriptions",
    "riverrun._core.group_descriptions",
    "riverrun._net.channel",
    "riverrun._net.closing",
    "riverrun._net.cluster_calls",
    "riverrun._net.configs",
    "riverrun._net.describing",
    "riverrun._net.durations",
    "riverrun._net.failures",
    "riverrun._net.forking",
    "riverrun._net.group_calls",
    "riverrun._net.offsets",
    "riverrun._net.unreachable",
    "riverrun.admin",
    "riverrun.cli.arguments",
    "riverrun.cli.completion",
    "riverrun.cli.memory",
    "riverrun.cli.notices",
    "riverrun.cli.running",
    "riverrun.cli.session",
    "riverrun.cli.tables",
    "riverrun.cli.topic",
    "riverrun.cli.topic_json",
    "riverrun.cli.topic_show",
    "riverrun.client",
    "riverrun.group_admin",
    "riverrun.v1",
}
GRPC = {"google", "grpc", "grpc_health", "grpc_reflection", "typing_extensions"}
"""What grpc and protobuf bring along; grpc itself looks for its health and reflection packages."""


def imported(*args, address="127.0.0.1:1"):
    """Run a command in a process of its own; return its modules of ours and of other packages."""
    clean = {name: value for name, value in os.environ.items() if "RIVERRUN" not in name}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *args],
        capture_output=True,
        text=True,
        timeout=60,
        env=clean | {"RIVERRUN_BOOTSTRAP": address},
        check=True,
    )
    code, modules = json.loads(done.stdout.splitlines()[-1])
    assert code == 0, done.stderr
    packages = {name.partition(".")[0] for name in modules} - sys.stdlib_module_names
    ours = {
        "riverrun.v1" if name.startswith("riverrun.v1") else name
        for name in modules
        if name.partition(".")[0] == "riverrun"
    }
    return ours, {name for name in packages if not name.startswith("_")} - {"riverrun"}


def test_help_imports_click_and_next_to_nothing_of_ours():
    assert imported("--help") == (HELP, {"click"})


def test_a_short_command_imports_neither_what_produces_nor_what_consumes(tmp_path):
    broker = BrokerProcess(tmp_path)
    try:
        broker.start()
        ours, packages = imported("topic", "list", address=broker.address)
    finally:
        broker.stop()
    assert ours == TOPIC_LIST
    assert packages - {"cython_runtime"} <= GRPC | {"click"}
