"""The JAX peer on a device: ``python -m benchmarks.gpu.peer NUMBER WORK [--rows N] [--tiny]``.

Needs nothing but JAX: the machine that has the GPU may have little else. Prints a line of JSON for each of three rounds
after the two that compile, or why there are none.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys

from benchmarks.contender import timed
from benchmarks.works import CONTENDERS, find, resized, tiny

ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("contender", type=int, help="its place in benchmarks.works.CONTENDERS")
    parser.add_argument("work")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--seconds", type=float, default=30.0, help="for all of it")
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    work = resized(find(args.work), args.rows, "cpu")  # JAX takes the device that its environment names
    answers, sys.stdout = sys.stdout, sys.stderr
    try:
        module = importlib.import_module(CONTENDERS[args.contender].module)
    except ImportError as error:
        print(json.dumps({"missing": str(error)}), file=answers, flush=True)
        return
    call = module.build(tiny(work) if args.tiny else work, 1)
    for _ in range(2):
        timed(call, 0.0)
    for _ in range(ROUNDS):
        result = timed(call, 0.02 if args.tiny else min(1.5, args.seconds / 10.0))
        print(json.dumps(result), file=answers, flush=True)


if __name__ == "__main__":
    main()
