"""Reference players for supervised few-shot learning: what is known of them exactly."""

from __future__ import annotations

import math

import pytest
import torch

from metarl.agents.reference.catalogue import baseline, baselines_for
from metarl.core import rng
from metarl.core.family import TaskFamily
from metarl.core.rollout import Rollout, run_trial
from metarl.envs.supervised.digits import FewShotDigits
from metarl.envs.supervised.sinusoid import Sinusoid


def play(name: str, family: TaskFamily, split: str = "test", tasks: int = 2000) -> Rollout:
    return run_trial(baseline(name, family), family, family.sample_tasks(rng.key(0), tasks, split), rng.key(1))[0]


@pytest.mark.parametrize("split", ["test", "ood"])
@pytest.mark.parametrize("family", [Sinusoid(episodes_per_trial=2), FewShotDigits(3, episodes_per_trial=2)], ids=repr)
def test_the_told_are_right_in_every_step(family: TaskFamily, split: str):
    best = 0.0 if isinstance(family, Sinusoid) else 1.0
    assert bool((play("oracle", family, split, tasks=50).outcome.reward == best).all())


def test_two_points_tell_a_wave():
    """Errors of the best linear prediction: 3.006 at first, nothing from the third point on, also of other waves."""
    for split in ("test", "ood"):
        error = -play("least_squares", Sinusoid(episodes_per_trial=2), split).outcome.reward
        assert float(error[2:10].max()) < 1e-4 and float(error[10:].max()) < 1e-4, (
            "the second episode begins knowing it"
        )
        first = error[0]
        if split == "test":
            assert float(first.mean()) == pytest.approx(3.0057, abs=4 * float(first.std()) / math.sqrt(len(first)))
            assert float(error[1].mean()) < float(first.mean()) / 2


def test_least_squares_needs_values():
    with pytest.raises(
        ValueError, match=r"^least_squares needs the values of the points: show_previous must be true\.$"
    ):
        baseline("least_squares", Sinusoid(show_previous=False))


def test_the_nearest_neighbour_learns_within_the_trial():
    family = FewShotDigits()
    assert {"oracle", "nearest_neighbour", "random"} <= set(baselines_for(family))
    right = play("nearest_neighbour", family, tasks=300).outcome.reward
    assert float(right[0].mean()) == pytest.approx(0.2, abs=0.07), "the first image can only be guessed"
    assert float(right.mean()) > 0.85 and float(right[-10:].mean()) > 0.97, "its docstring says .88 and .99"
    other = play("nearest_neighbour", family, "ood", tasks=300).outcome.reward
    assert torch.equal(right.mean(1) > 0.5, other.mean(1) > 0.5), "light and dark are the same to it"


def test_it_never_gives_a_label_that_was_not_shown():
    rollout = play("nearest_neighbour", FewShotDigits(3), tasks=20)
    for row in range(20):
        shown = set()
        for t in range(30):
            if shown:
                assert int(rollout.acted.action[t, row]) in shown
            shown |= {int(i) for i in rollout.outcome.final_obs[t, row, 64:].nonzero()}
        assert len(shown) == 3
