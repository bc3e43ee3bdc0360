"""W6: what a step of a single environment costs, as users of Gymnasium step it, next to Gymnasium's own environments.

``python -m benchmarks.rows --former CHECKOUT`` steps every family through ``gymnasium.make`` with random actions drawn
beforehand, resets included, and where Gymnasium has the environment of which the family varies something, this one.
`CHECKOUT` is the root of another version of metarl, which is measured with the same script in turn. Each version has a
process of its own per turn, on one thread; a number is the least of all rounds, in processor time, since other
processes can only add to it. It writes ``benchmarks/results/rows.json`` and, from it, the table of the docs.

``--table`` writes the table of the docs from the record again. With ``--child`` it is one turn of one version.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "benchmarks" / "results" / "rows.json"
PAGE = ROOT / "docs" / "speed.md"
MARKS = ("<!-- rows -->", "<!-- /rows -->")
NEXT_TO = {
    "CartPole": "CartPole-v1",
    "Pendulum": "Pendulum-v1",
    "MountainCar": "MountainCar-v0",
    "MountainCarContinuous": "MountainCarContinuous-v0",
    "Acrobot": "Acrobot-v1",
    "HalfCheetahVel": "HalfCheetah-v5",
    "Walker2dVel": "Walker2d-v5",
    "HopperRandParams": "Hopper-v5",
    "AntVel": "Ant-v5",
    "HumanoidDir": "Humanoid-v5",
}
"""Families and the environments of Gymnasium of which they vary something."""
OURS = "metarl:metarl/{}-v0"
STEPS = 250
"""Steps of a round; two of them warm up."""


def cost(id: str, rounds: int, steps: int = STEPS) -> float:
    """Return the microseconds of a step of `id`, resets included: the least of the rounds, in processor time."""
    import gymnasium

    env = gymnasium.make(id)
    env.action_space.seed(0)
    actions, least = [env.action_space.sample() for _ in range(64)], float("inf")
    env.reset(seed=0)
    for number in range(rounds + 2):
        start = time.thread_time()
        for step in range(steps):
            _, _, terminated, truncated, _ = env.step(actions[step % 64])
            if terminated or truncated:
                env.reset()
        if number >= 2:
            least = min(least, (time.thread_time() - start) / steps)
    env.close()
    return 1e6 * least


def child(names: list[str], rounds: int, own: bool) -> dict[str, float]:
    """Return the cost of each family of the version of metarl that is imported, and of Gymnasium's own if `own`."""
    import warnings

    import torch

    warnings.simplefilter("ignore")  # MuJoCo's, of Gymnasium's files
    torch.set_num_threads(1)
    ids = [OURS.format(name) for name in names]
    ids += [NEXT_TO[name] for name in names if own and name in NEXT_TO]
    return {id: cost(id, rounds) for id in ids}


def turn(root: Path, names: list[str], rounds: int, own: bool) -> dict[str, float]:
    """Measure the version in the checkout `root` in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), "--child", "--rounds", str(rounds), "--families", *names]
    env = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command + ["--own"] * own, env=env, cwd=root, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(names: list[str], former: Path | None, turns: int, rounds: int) -> dict[str, dict[str, float]]:
    """Return the least cost of each family by contender: metarl, former, gymnasium."""
    found: dict[str, dict[str, float]] = {name: {} for name in names}

    def note(name: str, contender: str, microseconds: float) -> None:
        found[name][contender] = round(min(microseconds, found[name].get(contender, float("inf"))), 2)

    for _ in range(turns):
        costs = turn(ROOT, names, rounds, own=True)
        before = {} if former is None else turn(former, names, rounds, own=False)
        for name in names:
            note(name, "metarl", costs[OURS.format(name)])
            if former is not None:
                note(name, "former", before[OURS.format(name)])
            if name in NEXT_TO:
                note(name, "gymnasium", costs[NEXT_TO[name]])
    return found


def table(result: dict[str, Any]) -> str:
    """Return the caption and the table of a record, as Markdown."""
    lines = [
        f"{result['cpu']}, one thread, the least of {result['turns']} × {result['rounds']} rounds of {STEPS} steps, "
        f"{result['date'][:10]}. Microseconds of processor time per step:",
        "",
        "| family | metarl | the version before | is … times as fast | Gymnasium's own | takes … times as long |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, costs in sorted(result["works"].items(), key=lambda item: (item[0] not in NEXT_TO, item[0])):
        ours, before, theirs = costs["metarl"], costs.get("former"), costs.get("gymnasium")
        cells = [f"{ours:.1f}", *(["", ""] if before is None else [f"{before:.0f}", f"{before / ours:.1f}"])]
        cells += ["", ""] if theirs is None else [f"{NEXT_TO[name]} {theirs:.1f}", f"{ours / theirs:.1f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write_page(result: dict[str, Any], page: Path = PAGE) -> None:
    """Put the table of a record between the marks of a page."""
    before, rest = page.read_text(encoding="utf-8").split(MARKS[0])
    _, after = rest.split(MARKS[1])
    page.write_text(f"{before}{MARKS[0]}\n{table(result)}\n{MARKS[1]}{after}", encoding="utf-8")


def known() -> list[str]:
    """Return the families that are registered and can be made here, without those that need an option."""
    import metarl
    from metarl.envs import META_WORLD

    names = [id.removeprefix("metarl/").removesuffix("-v0") for id in metarl.registered()]
    return [name for name in names if name not in META_WORLD and name != "Gym"]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", metavar="NAME", help="default: all")
    parser.add_argument("--former", type=Path, metavar="CHECKOUT", help="the root of another version")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=RECORD, metavar="JSON")
    parser.add_argument("--table", action="store_true", help="only write the table of the docs from the record")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--own", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.child:
        print(json.dumps(child(args.families, args.rounds, args.own)))
        return
    if not args.table:
        from benchmarks.run import machine

        result: dict[str, Any] = machine([0]) | {"turns": args.turns, "rounds": args.rounds}
        result["works"] = measure(args.families or known(), args.former, args.turns, args.rounds)
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    result = json.loads(args.out.read_text(encoding="utf-8"))
    print(table(result))
    if args.out.resolve() == RECORD.resolve():
        write_page(result)


if __name__ == "__main__":
    main()
