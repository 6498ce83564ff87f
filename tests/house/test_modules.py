"""Every module says in one sentence what it is, stays small, and leaves nothing half done."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {"client": 400, "server": 400, "tools": 400, "tests": 600}
# Put together here, so that this file passes its own test.
UNFINISHED = re.compile("|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X"]))
VAGUE = {"utils", "util", "helpers", "helper", "manager", "impl", "misc", "common"}


def modules(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return sorted(
        path
        for path in found
        if not path.stem.endswith(("_pb2", "_pb2_grpc")) and "__pycache__" not in path.parts
    )


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", modules(*FOLDERS), ids=name)
def test_a_module_opens_with_one_sentence(path):
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring, "it has no docstring"
    first, *rest = docstring.splitlines()
    assert first.endswith((".", "!", "?")), f"the first line is no whole sentence: {first!r}"
    assert not rest or rest[0] == "", f"the first paragraph is longer than a line: {docstring!r}"


@pytest.mark.parametrize("path", modules(*FOLDERS), ids=name)
def test_a_module_stays_small(path):
    lines = len(path.read_text().splitlines())
    bound = FOLDERS[path.relative_to(ROOT).parts[0]]
    assert lines <= bound, f"{lines} lines, at most {bound}: what wants to be a module of its own?"


@pytest.mark.parametrize("path", modules("client", "server", "tools"), ids=name)
def test_a_module_has_a_name_from_the_field(path):
    assert path.stem not in VAGUE
    assert not VAGUE & set(path.stem.split("_"))


def test_nothing_is_left_half_done():
    texts = [*modules(*FOLDERS), *(ROOT / "proto").rglob("*.proto"), *ROOT.glob("*.md")]
    texts += (ROOT / "docs").rglob("*.md")
    found = [
        f"{name(path)}:{number}"
        for path in texts
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if UNFINISHED.search(line)
    ]
    assert not found


def test_the_product_does_not_sleep_in_a_thread():
    pattern = re.compile(r"\btime\.sleep\(|\bfrom time import .*\bsleep\b")
    found = [name(path) for path in modules("client", "server") if pattern.search(path.read_text())]
    assert not found


def test_asserts_are_on():
    with pytest.raises(AssertionError):
        assert not __debug__
