"""What every test relies on: no settings from outside, and in CI nothing is skipped."""

from __future__ import annotations

import os
import signal

import pytest


@pytest.fixture(autouse=True, scope="session")
def _no_settings_from_outside():
    """Take the developer's own RIVERRUN_ variables out of every broker and client."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("RIVERRUN_")]:
            patch.delenv(name)
        yield


@pytest.fixture(autouse=True, scope="session")
def _interrupts_count():
    """Take SIGINT as usual where a shell that runs this in the background has it ignored.

    What is ignored is so for every process that a test starts, too.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter):
    """Say why a run fails in which no test did."""
    if _skipped_in_ci(terminalreporter):
        terminalreporter.section("skipped in CI", sep="=", red=True)
        terminalreporter.line("CI=true, where nothing may be skipped; see the reasons above")


def pytest_sessionfinish(session):
    """Make a skipped test fail the run in CI: the machine there has to have everything."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and _skipped_in_ci(reporter) and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _skipped_in_ci(reporter) -> bool:
    return os.environ.get("CI") == "true" and bool(reporter.stats.get("skipped"))
