"""The console script against a real broker, for tests of the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

SCRIPT = Path(sys.executable).with_name("riverrun")


class CommandLine:
    """Runs the console script against one broker; its input and output are bytes."""

    def __init__(self, address):
        self.address = address
        self.env = {name: value for name, value in os.environ.items() if "RIVERRUN" not in name}
        self.env["RIVERRUN_BOOTSTRAP"] = address

    def run(self, *args, stdin=b"", code=0):
        """Run a command to its end and compare its exit code; return what it did."""
        done = subprocess.run(
            [SCRIPT, *args], input=stdin, capture_output=True, timeout=90, env=self.env, check=False
        )
        assert done.returncode == code, done.stderr.decode()
        assert b"Traceback" not in done.stderr
        return done

    def out(self, *args, stdin=b""):
        """Run a command and return what it wrote to standard output."""
        return self.run(*args, stdin=stdin).stdout

    def json(self, *args, stdin=b""):
        """Run a command with `--output json` and return the one value that it wrote."""
        return json.loads(self.out(*args, "--output", "json", stdin=stdin))

    def error(self, *args, stdin=b"", code):
        """Run a command that fails, and return the one line that it said."""
        done = self.run(*args, stdin=stdin, code=code)
        lines = done.stderr.decode().splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith("error: ")
        return lines[0]

    @contextmanager
    def running(self, *args, stdin=subprocess.DEVNULL):
        """Run a command beside the test, which reads its output; it is killed at the end."""
        process = subprocess.Popen(
            [SCRIPT, *args],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.env,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()

    def shell(self, script):
        """Run a line of bash in which `riverrun` is the console script."""
        return subprocess.run(
            ["/bin/bash", "-o", "pipefail", "-c", script],
            capture_output=True,
            timeout=90,
            env=self.env | {"PATH": f"{SCRIPT.parent}:{os.environ['PATH']}"},
            check=False,
        )
