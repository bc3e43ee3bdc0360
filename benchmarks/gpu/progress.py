"""A plugin of pytest (``-p benchmarks.gpu.progress``) that tells what a test run is doing while it does it.

It adds a line of JSON to the file named by ``METARL_PROGRESS`` when a test begins and when it ends, so that it is known
in which test a run hangs.
"""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

VARIABLE = "METARL_PROGRESS"


def _tell(**line: Any) -> None:
    with open(os.environ[VARIABLE], "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def pytest_collection_finish(session: pytest.Session) -> None:
    """What will be run."""
    _tell(collected=[item.nodeid for item in session.items])


def pytest_runtest_logstart(nodeid: str) -> None:
    """A test begins."""
    _tell(begun=nodeid)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """A part of a test is over: a failure in any part counts, a success only of the test itself."""
    if report.when == "call" or not report.passed:
        _tell(ended=report.nodeid, outcome=report.outcome, why=_why(report), seconds=report.duration)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """A file could not be read, or is skipped as a whole."""
    if not report.passed:
        _tell(ended=report.nodeid, outcome=report.outcome, why=_why(report), seconds=0.0)


def _why(report: Any) -> str:
    """The exception's first line, or the reason of a skip."""
    if report.passed:
        return ""
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2])
    crash = getattr(report.longrepr, "reprcrash", None)
    text = str(report.longrepr if crash is None else crash.message).strip()
    return text.splitlines()[0 if crash is not None else -1] if text else ""
