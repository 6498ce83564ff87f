"""Apache Kafka as a process of its own: fetched once, one node in KRaft mode, its tools beside it.

Heap and collector are what the scripts of Kafka's distribution ask for.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import threading
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
POM = ROOT / "tests" / "bench" / "kafka" / "pom.xml"
HOME = ROOT / ".tools" / "kafka"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
TOOL_TIMEOUT_S = 300.0
_FETCH_TIMEOUT_S = 600.0
_STARTED = "Kafka Server started"
_COLLECTOR = (
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-Djava.awt.headless=true",
)
_BROKER_HEAP = ("-Xmx1G", "-Xms1G")
_TOOL_HEAP = ("-Xmx512M",)


class Missing(Exception):
    """Something that Kafka needs is not on this machine."""


def version() -> str:
    """Return the version that is pinned."""
    found = re.search(r"<kafka\.version>(.+?)</kafka\.version>", POM.read_text())
    assert found is not None
    return found[1]


def fetch() -> None:
    """Fetch Kafka unless it is there already.

    Raises:
        Missing: Java or Maven is not there, or Maven cannot fetch it; the text says which.
    """
    if shutil.which("java") is None:
        raise Missing("no `java` on the path: install a Java runtime, 17 or newer")
    stamp = HOME / ".stamp"
    if stamp.exists() and stamp.stat().st_mtime >= POM.stat().st_mtime:
        return
    if shutil.which("mvn") is None:
        raise Missing("no `mvn` on the path: install Maven, it fetches Kafka")
    shutil.rmtree(HOME, ignore_errors=True)
    command = ["mvn", "-q", "-B", "-f", POM, "dependency:copy-dependencies"]
    done = subprocess.run(
        [*command, f"-DoutputDirectory={HOME / 'lib'}"],
        capture_output=True,
        text=True,
        timeout=_FETCH_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise Missing(f"Maven could not fetch Kafka: {(done.stdout + done.stderr).strip()[-500:]}")
    stamp.touch()


class KafkaProcess:
    """One broker with fresh data: `start` it, run `tool`s against it, `stop` it."""

    def __init__(self, folder: Path) -> None:
        """`folder` is made anew by each start."""
        self._folder = folder.resolve()
        self._process: subprocess.Popen[str] | None = None
        self._follower: threading.Thread | None = None
        self._settled = threading.Event()
        self._started = False
        self.address = ""

    def start(self) -> None:
        """Format a folder, start the broker, wait until it serves.

        Raises:
            RuntimeError: it did not start; the text says where its log is.
        """
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        port, controller_port = _free_ports(2)
        self.address = f"127.0.0.1:{port}"
        properties = self._folder / "server.properties"
        template = (POM.parent / "server.properties").read_text()
        properties.write_text(
            template.format(
                port=port, controller_port=controller_port, folder=self._folder / "data"
            )
        )
        cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        self.tool("kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(properties))
        self._settled.clear()
        self._started = False
        self._process = subprocess.Popen(
            _java(_BROKER_HEAP, "kafka.Kafka", str(properties)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self._folder,
        )
        self._follower = threading.Thread(target=self._follow, name="kafka-output", daemon=True)
        self._follower.start()
        if not self._settled.wait(START_TIMEOUT_S) or not self._started:
            self.stop(keep=True)
            raise RuntimeError(f"Kafka did not start; its log is {self._folder / 'broker.log'}")

    def stop(self, *, keep: bool = False) -> None:
        """End it, and delete its data unless they are to be kept; nothing where it does not run."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            assert self._follower is not None
            self._follower.join()
            self._process = None
        if not keep:
            shutil.rmtree(self._folder, ignore_errors=True)

    def tool(self, main: str, *arguments: str) -> str:
        """Run one of Kafka's tools and return what it prints.

        Raises:
            RuntimeError: it failed, or took too long; the text has the end of its output.
        """
        try:
            done = subprocess.run(
                _java(_TOOL_HEAP, main, *arguments),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=TOOL_TIMEOUT_S,
                cwd=self._folder,
                env=os.environ | {"KAFKA_LOG_LEVEL": "WARN"},
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"{main} took more than {TOOL_TIMEOUT_S:.0f} s") from error
        if done.returncode:
            raise RuntimeError(f"{main} failed: {(done.stdout + done.stderr).strip()[-500:]}")
        return done.stdout

    def _follow(self) -> None:
        """Keep its log, and notice that it serves."""
        assert self._process is not None
        assert self._process.stdout is not None
        with self._process.stdout as lines, (self._folder / "broker.log").open("w") as log:
            for line in lines:
                log.write(line)
                if _STARTED in line:
                    self._started = True
                    self._settled.set()
        self._settled.set()


def _java(heap: tuple[str, ...], main: str, *arguments: str) -> list[str]:
    logging = f"-Dlog4j2.configurationFile={POM.parent / 'log4j2.yaml'}"
    return ["java", *heap, *_COLLECTOR, logging, "-cp", f"{HOME / 'lib'}/*", main, *arguments]


def _free_ports(count: int) -> list[int]:
    """Return ports that were free a moment ago: Kafka has to know its own before it starts."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
