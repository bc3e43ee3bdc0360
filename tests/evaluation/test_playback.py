"""Evaluations that are played again with their states kept."""

from __future__ import annotations

import torch

from metarl.agents import MAMLConfig
from metarl.core.registry import make
from metarl.evaluation.evaluator import evaluate
from metarl.evaluation.playback import watch


def test_watching_an_agent_evaluates_it_as_always():
    """The same returns under the same name, so that the curves of a run's splits stand next to each other."""
    family = make("metarl/Navigation2D-v0", horizon=5)
    agent = MAMLConfig(fast_batch_size=2, inner_loss="likelihood_ratio").build(family, 0, torch.device("cpu"))
    watched, _ = watch(agent, family, "test", tasks=3)
    curve = evaluate(agent, family, "test", tasks=3)
    assert watched.agent == curve.agent == "MAML (likelihood ratio)"
    assert (watched.returns == curve.returns).all()
