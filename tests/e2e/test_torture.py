"""The runner of `make torture` runs what it is asked for, and no failure of a part goes unheard."""

from __future__ import annotations

import importlib.util
import os
import re
import time
from pathlib import Path

import pytest

from tests.e2e import torture
from tests.e2e.torture import PARTS, Part, main, run, verdict


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """Make parts out of programs; each may print its arguments, of which the seed comes second."""
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    )

    def make(**programs):
        made = []
        for name, program in programs.items():
            (tmp_path / f"part_{name}.py").write_text(f"import os, sys, time\n{program}\n")
            made.append(Part(name, f"part_{name}", rounds=7))
        return made

    return make


def ends(name, failures=0, code=None):
    """A program that ends as a part should."""
    code = bool(failures) if code is None else code
    line = f"torture: {name} seed={{sys.argv[2]}} rounds=7 failures={failures} seconds=0"
    return f"print(f'{line}'); sys.exit({int(code)})"


def test_all_parts_run_in_order_and_the_last_line_names_each(parts, capfd):
    known = parts(first=ends("first"), second=ends("second"))
    assert main(["--seed", "5"], known) == 0
    lines = capfd.readouterr().out.splitlines()
    told = [line for line in lines if line.startswith("torture: ")]
    assert told[0] == "torture: first seed=5 rounds=7 failures=0 seconds=0"
    assert told[1] == "torture: second seed=5 rounds=7 failures=0 seconds=0"
    assert lines[-1].startswith(
        "torture: all seed=5 first=ok second=ok parts=2 failures=0 seconds="
    )


def test_a_part_that_fails_fails_everything_and_the_others_still_run(parts, capfd):
    known = parts(first=ends("first", failures=3), second=ends("second"))
    assert main([], known) == 1
    out = capfd.readouterr().out
    assert "first FAILED: 3 failures" in out
    assert "first=FAILED second=ok parts=2 failures=1" in out.splitlines()[-1]


def test_a_part_that_is_not_there_fails_loudly(capfd):
    assert main([], [Part("absent", "tests.e2e.absent_part")]) == 1
    captured = capfd.readouterr()
    assert "No module named" in captured.err
    assert "absent FAILED: exit code 1, and no last line" in captured.out
    assert "absent=FAILED" in captured.out.splitlines()[-1]


def test_parts_are_chosen_by_name_and_given_seed_and_rounds(parts, capfd):
    shows = "print(sys.argv[1:]); " + ends("second")
    known = parts(first="sys.exit(9)", second=shows)
    assert main(["--parts", "second", "--rounds", "3", "--seed", "8"], known) == 0
    assert "['--seed', '8', '--rounds', '3']" in capfd.readouterr().out


def test_a_part_is_given_rounds_or_minutes_as_it_has_them():
    assert Part("plain", "m").command(1, 50)[-2:] == ["--seed", "1"]
    assert Part("soak", "m", minutes=30).command(1, 50)[-2:] == ["--minutes", "30"]
    assert Part("soak", "m", minutes=30).command(1, 50, 0.5)[-2:] == ["--minutes", "0.5"]
    assert Part("kills", "m", rounds=100).command(1, None)[-2:] == ["--rounds", "100"]


@pytest.mark.parametrize(
    "wrong", [["--parts", "kills,nosuch"], ["--rounds", "0"], ["--minutes", "0"]]
)
def test_what_cannot_be_run_is_a_usage_error_and_runs_nothing(wrong, capfd, monkeypatch):
    monkeypatch.setattr(torture, "run", None)
    with pytest.raises(SystemExit) as refused:
        main(wrong)
    assert refused.value.code == 2
    assert wrong[-1].rpartition(",")[2] in capfd.readouterr().err


@pytest.mark.parametrize(
    ("line", "code", "why"),
    [
        ("torture: kills seed=1 rounds=2 failures=0 seconds=3", 0, ""),
        ("torture: kills seed=1 rounds=2 failures=0 seconds=3.5", 0, ""),
        ("torture: kills seed=1 minutes=0.25 failures=0 seconds=15", 0, ""),
        ("torture: kills seed=1 minutes=30 failures=2 seconds=1801", 1, "2 failures"),
        ("torture: kills seed=1 failures=0 seconds=3", 0, "no last line"),
        ("torture: kills seed=1 rounds=2 failures=1 seconds=3", 0, "1 failures"),
        ("torture: kills seed=1 rounds=2 failures=0 seconds=3", 1, "exit code 1 without"),
        ("torture: kills seed=1 rounds=2 failures=0 seconds=3", -9, "exit code -9 without"),
        ("torture: power seed=1 rounds=2 failures=0 seconds=3", 0, "of another part, power"),
        ("", 0, "no last line"),
        ("done", 0, "no last line"),
        ("torture: kills seed=1 rounds=2 failures=0 seconds=3", None, "did not end in time"),
    ],
)
def test_the_verdict_on_a_part(line, code, why):
    found = verdict("kills", line, code)
    assert (why in found) if why else not found


def test_a_part_that_does_not_end_is_killed_with_its_children(parts):
    (stuck,) = parts(
        stuck="child = os.fork()\nprint(os.getpid(), child, flush=True)\ntime.sleep(600)"
    )
    last_line, code = run(stuck.command(1, None), timeout_s=2)
    assert code is None
    for pid in map(int, last_line.split()[-2:]):
        gone_by_s = time.monotonic() + 10
        while _lives(pid):
            assert time.monotonic() < gone_by_s, f"process {pid} is still there"


def _lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_the_last_line_of_every_part_is_understood(part):
    """As it stands in the part's own program: running each takes minutes."""
    spec = importlib.util.find_spec(f"{part.module}.__main__")
    assert spec, part
    source = Path(spec.origin).read_text()
    written = "".join(re.findall(r'f"((?:torture: |seconds=|failures=).*?)(?:\\n)?"', source))
    line = re.sub(r"\{[^}]*\}", "1", written.replace("{part}", part.name))
    assert verdict(part.name, line, 1) == "1 failures", line
    for option in part.command(1, None):
        assert not option.startswith("--") or f'"{option}"' in source, option
