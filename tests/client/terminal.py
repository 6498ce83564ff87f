"""A terminal of its own for a command, so that tests see what a person would."""

from __future__ import annotations

import os
import pty
import re
import struct
import subprocess
import termios
import threading
import time
from fcntl import ioctl

_ESCAPE = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A pseudo-terminal; what is written to it is gathered.

    Use as a context. A command gets it by `run`, on standard error and, unless told otherwise, on
    standard output and input too.
    """

    def __init__(self, columns=100):
        self._master, self._slave = pty.openpty()
        ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self._written = bytearray()
        self._thread = threading.Thread(target=self._read, name="terminal", daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self._slave)
        self._thread.join(10)
        os.close(self._master)

    def run(self, args, *, env, code=0, **streams):
        """Run a command to its end and return what it wrote here."""
        slave = self._slave
        streams = {"stdin": slave, "stdout": slave, "stderr": slave} | streams
        done = subprocess.run(args, env=env | {"TERM": "xterm"}, timeout=90, check=False, **streams)
        # Bytes that were written before this mark have been read when the mark has.
        os.write(slave, b"\0end")
        while b"\0end" not in self._written:
            self._thread.join(0.01)
            assert self._thread.is_alive(), "the terminal is gone"
        text = bytes(self._written).partition(b"\0end")[0]
        self._written.clear()
        assert done.returncode == code, text.decode()
        return text

    def start(self, args, *, env):
        """Start a program that is used here, as a shell is; the terminal is the one that controls it."""
        return subprocess.Popen(
            args,
            env=env | {"TERM": "xterm"},
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            start_new_session=True,
        )

    def written(self):
        """Return what was written here since the last `run`."""
        return bytes(self._written)

    def wait_for(self, pattern, begin=0):
        """Wait until what was written from `begin` on has a match, and return that."""
        deadline = time.monotonic() + 60
        while (found := pattern.search(self.written(), begin)) is None:
            assert time.monotonic() < deadline, self.written()[begin:]
            self._thread.join(0.01)
        return found

    def type(self, data):
        """Type into it."""
        os.write(self._master, data)

    def _read(self):
        while True:
            try:
                data = os.read(self._master, 65536)
            except OSError:  # the other side was closed
                return
            self._written += data


def plain(text):
    """Take escapes out of what a terminal was sent, and make its line ends plain."""
    return _ESCAPE.sub(b"", text).replace(b"\r\n", b"\n").decode()
