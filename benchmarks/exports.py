"""What does a smaller program cost? Exported agents by their weights: size, latency, and return.

``python -m benchmarks.exports [--only NAME …] [--tasks N] [--out DIR]`` exports agents that come with the package, with
weights of 32, 16 and 8 bits, and with half of the weights pruned. It plays each program by the evaluator, on the same
tasks with the same noise as the agent itself, and measures the median latency of one step of one row on one thread. It
prints a table and writes ``exports.json``. The difference in return is paired by task, with its 95 % interval.
Needs the extra `export`.
"""

from __future__ import annotations

import argparse
import gzip
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

import metarl
from metarl.core import rng
from metarl.core.agent import LearningAgent
from metarl.core.batch_env import Step
from metarl.core.units import no_action
from metarl.evaluation import stats
from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.files import to_json
from metarl.evaluation.results import short
from metarl.fast.runtime import tune
from metarl.interop.export import OnnxAgent, export
from metarl.training.config import parsing as config
from metarl.training.config.run_config import reported_split

NAMES = ("rl2_gridnavi", "dagger_gridnavi_small", "rl2_bernoulli_bandit_n10")
"""Agents of the package; the second one is a student of the first, with a quarter of its units."""
STEPS = 2000
"""Steps of which the latency is the median, after a tenth as many that are not counted."""


class Variant(NamedTuple):
    """A way to make the weights smaller."""

    name: str
    weights: str
    pruned: float = 0.0


VARIANTS = (
    Variant("float32", "float32"),
    Variant("float16", "float16"),
    Variant("int8", "int8"),
    Variant("float32, half pruned", "float32", 0.5),
    Variant("int8, half pruned", "int8", 0.5),
)


def latency(agent: LearningAgent, steps: int) -> float:
    """The median time of a step of one row, in microseconds: of `act`, greedy, with the memory carried along."""
    family, key = agent.family, rng.key(0)[None]
    obs = torch.zeros(1, *(family.observation_space.shape or ()))
    step = Step(obs, no_action(family.action_space, 1), torch.zeros(1), torch.zeros(1))
    memory, taken = agent.begin(1), []
    for _ in range(steps + steps // 10):
        start = time.perf_counter()
        _, memory = agent.act(memory, step, key, greedy=True)
        taken.append(time.perf_counter() - start)
    return 1e6 * statistics.median(taken[steps // 10 :])


def session_latency(agent: OnnxAgent, steps: int) -> float:
    """The median time of a step of one row in onnxruntime itself, in microseconds."""
    family = agent.family
    zeros = torch.zeros(1)
    obs = torch.zeros(1, *(family.observation_space.shape or ()))
    inputs: dict[str, Any] = {"obs": obs, "prev_action": no_action(family.action_space, 1)}
    inputs |= {"prev_reward": zeros, "prev_done": zeros} | agent.begin(1)
    inputs = {name: x.numpy() for name, x in inputs.items()}
    after, taken = agent.manifest["memory"], []
    for _ in range(steps + steps // 10):
        start = time.perf_counter()
        outputs = dict(zip(agent.names, agent.session.run(None, inputs), strict=True))
        taken.append(time.perf_counter() - start)
        inputs |= {name: outputs[next_name] for name, next_name in after.items()}
    return 1e6 * statistics.median(taken[steps // 10 :])


def study(name: str, tasks: int, steps: int = STEPS, variants: Sequence[Variant] = VARIANTS) -> list[dict[str, Any]]:
    """The agent itself, then each variant: bytes, latency in microseconds, score, and its difference to the agent's."""
    agent = metarl.load(f"pretrained:{name}")
    split = reported_split(config.read(name))
    itself = played(agent, split, tasks)
    summary = itself.summary()
    score = [summary["score"], summary["score_low"], summary["score_high"]]
    rows = [{"agent": name, "variant": "torch", "split": split, "latency": latency(agent, steps), "score": score}]
    for variant in variants:
        with tempfile.TemporaryDirectory() as folder:
            path = export(agent, folder, "onnx", variant.weights, variant.pruned)
            program = OnnxAgent(folder, agent.family)
            content = path.read_bytes()
        curve = played(program, split, tasks)
        summary = curve.summary()
        rows.append({
            "agent": name,
            "variant": variant.name,
            "split": split,
            "bytes": len(content),
            "compressed": len(gzip.compress(content, mtime=0)),
            "latency": session_latency(program, steps),
            "score": [summary["score"], summary["score_low"], summary["score_high"]],
            "difference": difference(curve, itself),
        })  # fmt: skip
    return rows


def played(agent: LearningAgent, split: str, tasks: int) -> AdaptationCurve:
    """The evaluation of an agent, without the rewards of single steps."""
    return metarl.evaluate(agent, split=split, tasks=tasks, step_curve=False)


def difference(one: AdaptationCurve, other: AdaptationCurve) -> list[float]:
    """What `one` scores above `other` on the same tasks: mean, low, high."""
    first, second = (each.scores[:, :, None] for each in (one, other))
    found = stats.paired_difference(first, second, every_task=one.every_task)
    return [float(each[0]) for each in found]


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    size = [f"{row[name] / 1000:.1f} kB" if name in row else "" for name in ("bytes", "compressed")]
    apart = "{} [{}, {}]".format(*map(short, row["difference"])) if "difference" in row else ""
    score = "{} [{}, {}]".format(*map(short, row["score"]))
    return (
        f"| {row['agent']} | {row['variant']} | {size[0]} | {size[1]} | {row['latency']:.0f} µs | {score} | {apart} |"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(NAMES), metavar="NAME", help="agents of the package")
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=STEPS, help="of which the latency is the median")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args(arguments)
    tune()
    torch.set_num_threads(1)
    print("| agent | program | size | compressed | latency | score | above the agent's |", flush=True)
    print("|---|---|---|---|---|---|---|", flush=True)
    rows = []
    for name in args.only:
        for row in study(name, args.tasks, args.steps):
            rows.append(row)
            print(line(row), flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "exports.json").write_text(to_json(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
