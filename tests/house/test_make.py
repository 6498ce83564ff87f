"""The make targets, the import contracts and the map hold what is said of them."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TARGET = re.compile(r"^([a-z][a-z-]*):(?!=)", re.MULTILINE)
INCLUDE = re.compile(r"^-?include (.+)$", re.MULTILINE)


def test_make_help_lists_every_target_with_a_line():
    main = (ROOT / "Makefile").read_text()
    included = [ROOT / name for line in INCLUDE.findall(main) for name in line.split()]
    texts = [main, *(path.read_text() for path in included if path.exists())]
    targets = {target for text in texts for target in TARGET.findall(text)}
    done = subprocess.run(
        ["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    helped = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert set(helped) == targets


def test_imports_run_downwards_only():
    lint_imports = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run(
        [lint_imports, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_map_in_the_architecture_page_is_fresh():
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "map.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_newest_release_is_the_highest_number_not_the_last_in_the_alphabet():
    newest = runpy.run_path(str(ROOT / "tools" / "proto_breaking.py"))["newest_release"]
    assert newest(["v0.9.0", "v0.10.0", "v0.10.0-rc1", "latest"]) == "v0.10.0"
    assert newest(["latest"]) is None


@pytest.mark.parametrize("script", [".ci/run"])
def test_a_shell_script_parses_and_can_be_run(script):
    path = ROOT / script
    subprocess.run(["bash", "-n", path], check=True)
    assert path.stat().st_mode & 0o111
