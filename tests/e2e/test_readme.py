"""The README's five minutes and the Python page, run as they stand, with what they print."""

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PYTHON_PAGE = ROOT / "docs" / "python.md"
SCRIPTS = Path(sysconfig.get_path("scripts"))
BLOCK = re.compile(
    r"^```(sh|python)\n(.*?)^```\n(?:```output\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL
)


def blocks():
    tour = README.read_text().split("## Five minutes", 1)[1].split("\n## ", 1)[0]
    return BLOCK.findall(tour)


def matches(expected, printed):
    """Compare line by line; … stands for anything within a line."""
    wanted = [line.strip() for line in expected.strip().splitlines()]
    got = [line.strip() for line in printed.strip().splitlines()]
    return len(wanted) == len(got) and all(
        re.fullmatch(".*".join(re.escape(part) for part in line.split("…")), actual)
        for line, actual in zip(wanted, got, strict=True)
    )


@pytest.mark.timeout(120)
def test_every_block_of_the_tour_prints_what_the_readme_says(shared_broker, tmp_path):
    found = blocks()
    assert len(found) >= 7
    assert {language for language, *_ in found} == {"sh", "python"}
    run(found, shared_broker, tmp_path)


@pytest.mark.timeout(120)
def test_every_block_of_the_python_page_prints_what_it_says(broker, tmp_path):
    found = BLOCK.findall(PYTHON_PAGE.read_text())
    assert len(found) == PYTHON_PAGE.read_text().count("```output")
    run(found, broker, tmp_path)


def run(found, broker, folder):
    for language, block, output in found:
        code = block.replace("127.0.0.1:7171", broker.address)
        command = ["bash", "-c", code] if language == "sh" else [sys.executable, "-c", code]
        printed = run_one(command, broker.address, folder)
        assert matches(output, printed), f"{block}\nprinted:\n{printed}"


def run_one(command, bootstrap, folder, timeout=60):
    """Run a command that has to go well, as in a terminal; return what it shows there."""
    environment = {
        **os.environ,
        "PATH": f"{SCRIPTS}:{os.environ['PATH']}",
        "RIVERRUN_BOOTSTRAP": bootstrap,
    }
    # The README shows a terminal, which has standard output and standard error.
    done = subprocess.run(
        command,
        check=False,
        env=environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    printed = done.stdout.strip()
    assert done.returncode == 0, f"{command[-1]}\n{printed}"
    return printed
