"""(b) The tests marked `gpu`. One that hangs or ruins its process is noted, and the others go on without it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from benchmarks.gpu.items import Item, Result
from benchmarks.gpu.progress import VARIABLE
from benchmarks.gpu.report import Report, failure
from benchmarks.gpu.settings import NO_CUDA, Settings
from benchmarks.run import ROOT

PATIENCE = 25.0
"""Seconds without news after which a test counts as hanging."""
START = 3.0
"""So many times that long may pass before the first news: torch has to be loaded, and the tests to be found."""
RUINED = ("CUDA error", "AcceleratorError")
"""Failures with these words leave a process in which every later test fails, too."""


def items(settings: Settings, report: Report) -> list[Item]:
    """All tests are one item."""
    if not settings.cuda:
        return [Item("tests", lambda _: {"skipped": NO_CUDA})]
    return [Item("tests", partial(run, marked("gpu"), "gpu"))]


def marked(mark: str) -> list[Path]:
    """The files with tests of a mark: the others need not be read."""
    folder = ROOT / "tests"
    return sorted(path for path in folder.rglob("test_*.py") if f"pytest.mark.{mark}" in path.read_text("utf-8"))


def run(
    files: list[Path], mark: str, seconds: float, patience: float = PATIENCE, root: Path = ROOT
) -> Iterator[Result]:
    """What has come of the tests so far, whenever there is news; their names are those inside `root`."""
    end = time.monotonic() + seconds
    outcomes: dict[str, dict[str, Any]] = {}
    collected: list[str] = []
    left = [*map(str, files)]
    while True:
        before = len(outcomes)
        for line in _pass(left, mark, root, end, patience):
            if "collected" in line:
                collected = collected or line["collected"]
            elif "ended" in line:
                outcomes[line["ended"]] = {name: line[name] for name in ("outcome", "why", "seconds")}
                yield _counted(outcomes, collected)
        left = [name for name in collected if name not in outcomes]
        if not left or time.monotonic() >= end or len(outcomes) == before:
            break
    lost = {} if collected else {"error": "pytest collected no test (the log has what it said)"}
    yield _counted(outcomes, collected) | lost


def _counted(outcomes: dict[str, dict[str, Any]], collected: list[str]) -> Result:
    names = [one["outcome"] for one in outcomes.values()]
    return {
        "collected": len(collected),
        "passed": names.count("passed"),
        "failed": names.count("failed"),
        "skipped_tests": names.count("skipped"),
        "seconds": round(sum(one["seconds"] for one in outcomes.values()), 2),
        "failures": {name: one["why"] for name, one in outcomes.items() if one["outcome"] == "failed"},
        "skips": {name: one["why"] for name, one in outcomes.items() if one["outcome"] == "skipped"},
        "not_run": [name for name in collected if name not in outcomes],
    }


def _pass(what: Sequence[str], mark: str, root: Path, end: float, patience: float) -> Iterator[dict[str, Any]]:
    """The news of one run of pytest on files or tests.

    It is ended at the time `end`, and after a test that hangs or ruins it.
    """
    with tempfile.TemporaryDirectory() as folder:
        news = Path(folder) / "news"
        news.touch()
        plugins = ["-p", "benchmarks.gpu.progress", "-p", "no:cacheprovider"]
        command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), f"--rootdir={root}", *plugins]
        # Versions that are not the pinned ones warn of other things, which no test here is about.
        command += ["-W", "default", "-m", mark, "--tb=short", "--continue-on-collection-errors", *what]
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        variables = {VARIABLE: str(news), "PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        process = subprocess.Popen(command, cwd=root, env={**os.environ, **variables})
        try:
            with news.open(encoding="utf-8") as file:
                yield from _listen(file, process, end, patience)
        finally:
            process.kill()
            process.wait()


def _listen(file: TextIO, process: subprocess.Popen[bytes], end: float, patience: float) -> Iterator[dict[str, Any]]:
    """The lines as they come, and what they do not say: which test a process hung or died in."""
    running, heard, some = None, time.monotonic(), START * patience
    while True:
        over = process.poll() is not None
        for line in map(json.loads, _whole(file)):
            running, heard, some = line.get("begun"), time.monotonic(), patience
            yield line
            if any(word in line.get("why", "") for word in RUINED):
                return
        now = time.monotonic()
        if over or now - heard > some:
            if running is not None:
                how = f"its process ended with code {process.returncode}" if over else f"no end after {patience:.0f} s"
                yield {"ended": running, "outcome": "failed", "why": how, "seconds": round(now - heard, 2)}
            return
        if now >= end:
            return
        time.sleep(0.05)


def _whole(file: TextIO) -> Iterator[str]:
    """The lines that have been added to a file; the beginning of one is left for later."""
    while True:
        at = file.tell()
        line = file.readline()
        if not line.endswith("\n"):
            file.seek(at)
            return
        yield line


def text(name: str, result: Result) -> str:
    """The counts."""
    rest = f", {len(result['not_run'])} not run for want of time" if result["not_run"] else ""
    counts = f"{result['passed']} passed, {result['failed']} failed, {result['skipped_tests']} skipped"
    return f"gpu tests: {counts} of {result['collected']}{rest}"


def lines(results: dict[str, Result]) -> list[str]:
    """The counts and the first failures."""
    found = []
    for name, result in results.items():
        if "collected" in result:
            found.append(text(name, result) + (f"; {failure(result)}" if failure(result) else ""))
        else:
            found.append(f"gpu tests: {failure(result)}")
        failures = [f"FAILED {test}: {why}" for test, why in result.get("failures", {}).items()]
        found += failures[:4] + ([f"and {len(failures) - 4} failures more"] if len(failures) > 4 else [])
    return found
