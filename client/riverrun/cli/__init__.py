"""The command line: `riverrun topic`, `produce`, `consume`, `cluster`, `perf`, `doctor`.

Only click and the standard library are imported before a command runs, so `--help` and a shell's
completion answer at once. Each command has its module; what they share and what needs no broker
(places and times, escapes, framing of standard input, formats, tables) stands in small modules
of its own.
"""

from __future__ import annotations


def main() -> int:
    """Run the command line on `sys.argv` and return the exit code."""
    from riverrun.cli.app import run  # noqa: PLC0415 - importing the package must stay cheap

    return run()
