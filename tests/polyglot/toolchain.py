"""Finds, and builds where needed, what tests in other languages run: Go, Node and grpcurl.

polyglot.mk says how each is built; make decides whether that was done already.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = "tests/polyglot/polyglot.mk"
IN_CI = os.environ.get("CI") == "true"
BUILD_TIMEOUT_S = 900
RUN_TIMEOUT_S = 60
# For tests that may have to build first, which takes minutes on a cold cache.
BUILDS = pytest.mark.timeout(BUILD_TIMEOUT_S + RUN_TIMEOUT_S)
NODE_AT_LEAST = (20, 15)  # the first with zlib.crc32


class Client:
    """The client in one language, as a command."""

    def __init__(self, *command: str) -> None:
        self._command = command

    def try_run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run it and return what became of it."""
        return run([*self._command, *map(str, arguments)])

    def run(self, *arguments: str | Path):
        """Run it and return the JSON that it printed.

        Raises:
            AssertionError: it failed; the text has what it said.
        """
        done = self.try_run(*arguments)
        assert done.returncode == 0, f"{self._command} {arguments}: {done.stdout}{done.stderr}"
        return json.loads(done.stdout)

    def begin(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """Run it until its standard input ends; what it prints is for whoever waits for it."""
        pipe = subprocess.PIPE
        command = [*self._command, *map(str, arguments)]
        return subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def client(language: str) -> Client:
    """Return the client in `language`, built; skip the test where its toolchain is missing."""
    if lacking := lacks(language):
        missing(lacking)
    build(f"polyglot-{language}")
    if language == "go":
        return Client(str(ROOT / ".tools/go/bin/riverrun-polyglot"))
    return Client("node", str(ROOT / "tests/polyglot/node/main.mjs"))


def lacks(language: str) -> str:
    """Return what this machine lacks for the client in `language`; nothing is ""."""
    if language == "go":
        return "" if shutil.which("go") else "Go is missing"
    if not shutil.which("node") or not shutil.which("npm"):
        return "Node or npm is missing"
    version = run(["node", "--version"]).stdout.strip()
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < NODE_AT_LEAST:
        return f"Node is {version}, and {'.'.join(map(str, NODE_AT_LEAST))} or later is needed"
    return ""


def grpcurl() -> str:
    """Return a grpcurl: built with Go where there is Go, else the one from PyPI."""
    if shutil.which("go"):
        build(".tools/go/bin/grpcurl")
        return str(ROOT / ".tools/go/bin/grpcurl")
    wheel = Path(sysconfig.get_path("scripts")) / "grpcurl"
    if not _runs(wheel, "-version"):
        missing("grpcurl needs Go, or x86-64 Linux for the one from PyPI")
    return str(wheel)


def missing(what: str) -> NoReturn:
    """Skip the test, or fail it where everything must be there."""
    if IN_CI:
        pytest.fail(f"{what}, and CI=true allows no test to be skipped")
    pytest.skip(what)


def build(target: str, makefile: str = MAKEFILE) -> None:
    """Bring `target` up to date; test runs side by side wait for each other.

    Raises:
        AssertionError: the build failed; the text has its output.
    """
    (ROOT / ".tools").mkdir(exist_ok=True)
    # An outer make's job slots are not ours.
    environ = {k: v for k, v in os.environ.items() if k not in {"MAKEFLAGS", "MFLAGS", "MAKELEVEL"}}
    with (ROOT / ".tools" / "polyglot.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = ["make", "--no-print-directory", "-f", makefile, target]
        done = run(command, timeout_s=BUILD_TIMEOUT_S, environ=environ)
    assert done.returncode == 0, f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}"


def run(
    command: list[str], *, timeout_s: float = RUN_TIMEOUT_S, environ: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command in the project's folder with its output captured."""
    return subprocess.run(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
        env=environ,
    )


def _runs(*command: str | Path) -> bool:
    """Return whether a command works here: a wheel's binary is made for one kind of machine."""
    try:
        return run(list(map(str, command))).returncode == 0
    except OSError:
        return False
