"""The table at the end: no number is cut, whatever is shown, and few tasks are spoken of."""

import dataclasses
import io
import json
import re

import numpy as np
import pytest
from rich.console import Console

import metarl
from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.results import short
from metarl.report.table import adaptation_table
from metarl.training.checkpoint import PRETRAINED

SHIPPED = sorted(path.parent.name for path in PRETRAINED.glob("*/curve.json"))


def shipped(name: str) -> dict[str, AdaptationCurve]:
    """The curves that come with a trained agent, as if of two tasks."""
    found = {}
    for split, plain in json.loads((PRETRAINED / name / "curve.json").read_text("utf-8")).items():
        mean = np.array(plain["points"]["mean"], dtype=np.float32)
        bounds = {k: np.full(2, plain["summary"][k], np.float32) if k in plain["summary"] else None
                  for k in ("random", "oracle")}  # fmt: skip
        found[split] = AdaptationCurve(
            returns=np.stack([mean - 0.5 * abs(mean), mean + 0.5 * abs(mean)])[None],
            episodes=np.array(plain["episodes"]),
            env_steps=np.array(plain["env_steps"]),
            labels=tuple(plain["labels"]),
            **bounds,
            **{key: plain[key] for key in ("agent", "family", "split", "greedy", "rounds")},
        )
    return found


def printed(curves: dict[str, AdaptationCurve], width: int) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width).print(adaptation_table(curves, width))
    return stream.getvalue()


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", SHIPPED)
def test_every_number_of_every_preset_is_whole(name: str, width: int):
    curves = shipped(name)
    text = printed(curves, width)
    assert "…" not in text and max(map(len, text.splitlines())) <= width
    numbers = set(re.findall(r"-?[0-9.]+", text))
    for curve in curves.values():
        summary = curve.summary()
        for value in (curve.mean()[0], curve.mean()[-1], summary["score"], summary["score_low"], summary["score_high"]):
            assert short(float(value)) in numbers


def test_few_tasks_are_spoken_of():
    curves = shipped("rl2_gridnavi")
    six = {name: dataclasses.replace(curve, distinct=2, repeats=500) for name, curve in curves.items()}
    text = " ".join(printed(six, 80).split())
    assert "Means over all 2 tasks × 500 repeats of a split." in text
    assert "Fewer than 10 tasks (ood, test, train, valid): an interval over them says little about others." in text
    assert "Intervals are over tasks, of this agent" in text


def test_over_what_an_interval_is_is_said_for_each_split():
    agent = metarl.load("pretrained:rl2_gridnavi")
    curves = {split: metarl.evaluate(agent, split=split, tasks=50, step_curve=False) for split in ("test", "all")}
    text = " ".join(printed(curves, 80).split())
    assert "Intervals are over tasks, of this agent; all: over trials, of this agent on all tasks." in text
