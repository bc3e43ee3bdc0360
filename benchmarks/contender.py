"""One contender in a process of its own, for `benchmarks.run`.

``python -m benchmarks.contender NUMBER WORK [--threads N] [--rows N] [--device D] [--tiny]`` pins itself to the cores
of ``METARL_CORES`` (a list like ``0,1``), builds the work and then answers line by line. The first line it writes is
``{"ready": versions}`` or ``{"missing": why}``. After that each line it reads is a number of seconds: it does the work
at least once and until that time has passed, and writes ``{"steps": …, "seconds": …, "calls": …}``. The end of its
input ends it.

What libraries print goes to standard error: standard output belongs to the protocol.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from benchmarks.works import CONTENDERS, Contender, find, resized, tiny


def pin(cores: str) -> None:
    """Keep this process on the given cores, before any library counts them to size its pool of threads."""
    if sys.platform == "linux" and cores:
        os.sched_setaffinity(0, {int(core) for core in cores.split(",")})


def versions(contender: Contender) -> dict[str, str]:
    """Of the libraries that matter to it."""
    found = {"python": sys.version.split()[0]}
    for name in contender.needs:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "checkout"
    return found


def timed(call: Callable[[], int], seconds: float) -> dict[str, Any]:
    """Call at least once and until the time has passed; the steps done and the time they took."""
    steps = calls = 0
    start = time.perf_counter()
    while True:
        steps += call()
        calls += 1
        passed = time.perf_counter() - start
        if passed >= seconds:
            return {"steps": steps, "seconds": passed, "calls": calls}


def serve(call: Callable[[], int], requests: TextIO, answers: TextIO) -> None:
    """Answer until there are no more requests."""
    for line in requests:
        print(json.dumps(timed(call, float(line))), file=answers, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contender", type=int, help="its place in benchmarks.works.CONTENDERS")
    parser.add_argument("work")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", type=int, help="in place of the work's own number of tasks or rows")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tiny", action="store_true", help="a tiny size, to try the command")
    args = parser.parse_args()
    pin(os.environ.get("METARL_CORES", ""))
    answers, sys.stdout = sys.stdout, sys.stderr
    contender, work = CONTENDERS[args.contender], resized(find(args.work), args.rows, args.device)
    try:
        module = importlib.import_module(contender.module)
    except ImportError as error:
        print(json.dumps({"missing": str(error)}), file=answers, flush=True)
        return
    call = module.build(tiny(work) if args.tiny else work, args.threads)
    print(json.dumps({"ready": versions(contender)}), file=answers, flush=True)
    serve(call, sys.stdin, answers)


if __name__ == "__main__":
    main()
