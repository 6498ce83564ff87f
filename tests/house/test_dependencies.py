"""What is demanded of users is what the checked-in code needs, and locks are free of addresses."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))
RUNTIME = re.compile(r"ValidateProtobufRuntimeVersion\(\s*\S+,\s*(\d+),\s*(\d+),\s*(\d+),")
GRPC = re.compile(r"GRPC_GENERATED_VERSION = '([\d.]+)'")


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def floor(package: str, requirements: list[str]) -> str:
    [found] = [r for r in requirements if re.match(rf"{re.escape(package)}\s*[><=]", r)]
    return found.partition(">=")[2]


def locked(lock: str, package: str) -> str:
    text = (ROOT / "requirements" / lock).read_text()
    return re.search(rf"^{re.escape(package)}==(\S+)$", text, re.MULTILINE)[1]


def generated(pattern: str) -> list[str]:
    return [
        path.read_text() for side in ("client", "server") for path in (ROOT / side).rglob(pattern)
    ]


def test_the_floor_of_grpcio_is_the_generators():
    versions = {GRPC.search(text)[1] for text in generated("*_pb2_grpc.py")}
    assert versions == {locked("proto.lock", "grpcio-tools")}
    assert versions == {floor("grpcio", project()["dependencies"])}
    for package in ("grpcio-health-checking", "grpcio-reflection", "grpcio-status"):
        assert versions == {floor(package, project()["optional-dependencies"]["server"])}


def test_the_floor_of_protobuf_is_the_generated_codes():
    versions = {".".join(RUNTIME.search(text).groups()) for text in generated("*_pb2.py")}
    assert versions == {floor("protobuf", project()["dependencies"])}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_pins_exactly_and_holds_no_address(lock):
    lines = [line for line in lock.read_text().splitlines() if line and not line.startswith("#")]
    assert lines
    for line in lines:
        assert re.fullmatch(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==[^\s/:@]+( ; .*)?", line), line


def test_a_client_needs_nothing_of_the_broker():
    names = {re.split(r"[><=\[;]", one)[0] for one in project()["dependencies"]}
    assert names == {"click", "grpcio", "protobuf"}
