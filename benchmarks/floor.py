"""How near the measured speeds are to what the processor could do at most.

``python -m benchmarks.floor [RESULT.json …] [--device cpu] [--threads 1]`` measures the device's peak, which is the
rate of a large float32 matrix product and that of copying a large array, and prints for every work of the results (of
`benchmarks.run`, on the same machine) the share of it that metarl reaches. RL² and MAML are held against the products
that they cannot do without, stepping against the bytes that it has to leave behind. Nothing else is counted, so that
100 % cannot be reached.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.works import NAVIGATION, WORKS, Work
from metarl.fast.runtime import resolve_device, tune

INPUTS = {NAVIGATION: 2}  # numbers of an observation; a bandit's is one constant
ACTIONS = {NAVIGATION: 2}  # outputs of the policy's head
ARMS = 5


class Peak(NamedTuple):
    """What a device was seen to do."""

    operations: float  # of a matrix product, per second; a multiplication and an addition are two
    bytes: float  # read and written, per second


def operations(work: Work) -> float:
    """Floating-point operations of the matrix products behind one environment step of training.

    A product's backward pass is two products of its size; where gradients by inputs are not needed, one.
    """
    actions = ACTIONS.get(work.family, ARMS)
    if work.kind == "rl2":
        inputs = INPUTS.get(work.family, 1) + actions + 2
        recurrent = 2 * 3 * work.hidden * work.hidden
        of_inputs = 2 * 3 * work.hidden * inputs
        heads = 2 * (work.hidden + inputs) * (actions + 1)
        forward = recurrent + of_inputs + heads
        return forward + work.epochs * (forward + 2 * recurrent + of_inputs + 2 * heads)
    if work.kind != "maml" or work.outer != "ppo":
        return 0.0  # what TRPO's products come to depends on how many states they are made from
    first, rest = 2 * INPUTS[work.family] * work.hidden, 2 * work.hidden * (work.hidden + actions)
    forward, backward = first + rest, first + 2 * rest
    # A step before adaptation is played and adapted to, one after it is played: on average 1 + ½ (forward + backward).
    played = forward + 0.5 * (forward + backward)
    # Before adaptation: forward, backward, and the Hessian product, whose tangents are twice either of them.
    before, after = forward + backward + 2 * (forward + backward), forward + backward
    return played + work.epochs * 0.5 * (before + after)


def written(work: Work) -> float:
    """Bytes that a step of pure stepping has to leave behind: observation, reward and both endings.

    Zero, which is no floor, where a simulator's own arithmetic is more than that.
    """
    return 4.0 * (INPUTS[work.family] + 1) + 2.0 if work.kind == "stepping" and work.family in INPUTS else 0.0


def measure(device: torch.device, size: int = 2048, rounds: int = 5, dtype: torch.dtype = torch.float32) -> Peak:
    """The device's peak: medians of products of ``size × size`` matrices and of copies of 16 times as many numbers."""
    a = torch.randn(size, size, device=device, dtype=dtype)
    product = torch.empty_like(a)
    source = torch.randn(16 * size * size, device=device, dtype=dtype)
    target = torch.empty_like(source)
    seconds = [
        statistics.median(_timed(call, device) for _ in range(rounds))
        for call in (lambda: torch.mm(a, a, out=product), lambda: target.copy_(source))
    ]
    return Peak(2.0 * size**3 / seconds[0], 2.0 * source.nbytes / seconds[1])


def _timed(call: Callable[[], object], device: torch.device) -> float:
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def table(results: list[Path], peak: Peak) -> str:
    """Markdown: each work's speed, what it comes to, and the share of the peak."""
    lines = ["| work | metarl, steps/s | a step needs | that is | of the peak |", "|---|---:|---:|---:|---:|"]
    for path in results:
        for name, entry in json.loads(path.read_text("utf-8"))["works"].items():
            speeds = entry["contenders"].get("metarl", {}).get("steps_per_second")
            if name not in WORKS or not speeds:
                continue
            speed = statistics.median(speeds)
            if needed := operations(WORKS[name]):
                rate, most, unit = needed * speed, peak.operations, "GFLOP/s"
                needs = f"{needed / 1e6:.2f} MFLOP"
            elif needed := written(WORKS[name]):
                rate, most, unit = needed * speed, peak.bytes, "GB/s"
                needs = f"{needed:.0f} bytes"
            else:
                continue
            lines.append(
                f"| {entry['title']} | {speed:,.0f} | {needs} | {rate / 1e9:.1f} {unit} | {100 * rate / most:.0f} % |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="*", type=Path, metavar="RESULT.json", help="of benchmarks.run")
    parser.add_argument("--device", default="cpu", help="cpu (the default) or cuda")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    if missing := [str(path) for path in args.results if not path.is_file()]:
        parser.error(f"there is no file {missing[0]!r}.")
    tune(args.threads)
    try:
        device = resolve_device(args.device)
    except ValueError as error:
        parser.error(str(error))
    peak = measure(device)
    print(f"Peak: {peak.operations / 1e9:.0f} GFLOP/s, {peak.bytes / 1e9:.1f} GB/s")
    if args.results:
        print(table(args.results, peak))


if __name__ == "__main__":
    main()
