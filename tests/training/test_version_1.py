"""An agent that was trained before its inputs had a version (2026-11) still sees what it was trained on."""

from __future__ import annotations

import json
from pathlib import Path

import metarl
from metarl.agents.rl2.agent import RL2

CARTPOLE = Path(__file__).parent / "version_1" / "cartpole"


def test_it_is_read_and_plays_as_its_curve_says():
    agent = metarl.load(CARTPOLE)
    assert isinstance(agent, RL2) and agent.net.encoder.number == 1
    claimed = json.loads((CARTPOLE / "curve.json").read_text("utf-8"))["test"]["summary"]
    curve = metarl.evaluate(agent, tasks=200, seed=123)
    assert claimed["score"] > 990 and abs(curve.summary()["score"] - claimed["score"]) < 15
