"""Supervised few-shot learning as episodes: exact values, who is told what and when, and the classes of each split."""

from __future__ import annotations

import builtins
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import metarl
from metarl.agents.random import FixedAgent, RandomAgent, scripted
from metarl.core import rng
from metarl.core.batch_env import BatchEnv, Step
from metarl.core.checks import checked_task
from metarl.core.family import Key, TaskFamily, has_target
from metarl.core.rollout import Acted, Memory, Rollout, episode_returns, run_trial
from metarl.core.tree import take
from metarl.envs.supervised import digits
from metarl.envs.supervised.digits import CLASSES, DIGITS, INSTANCES, SHOWN, Characters, FewShotDigits, images
from metarl.envs.supervised.sinusoid import Sinusoid, Wave
from metarl.testing import check_family

CPU = torch.device("cpu")


class Blind(FixedAgent):
    """Predicts `height` · cos x, whatever was shown."""

    def __init__(self, height: float) -> None:
        super().__init__()
        self.height = height

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        return scripted(self.height * step.obs[:, :1].cos(), step), memory


def play(agent: Any, family: TaskFamily, tasks: int = 4000, split: str = "train") -> Rollout:
    return run_trial(agent, family, family.sample_tasks(rng.key(0), tasks, split), rng.key(1))[0]


@pytest.mark.parametrize(
    "family",
    [
        Sinusoid(),
        Sinusoid(horizon=5, show_previous=False, episodes_per_trial=2),
        FewShotDigits(),
        FewShotDigits(num_classes=8, episodes_per_trial=2),
    ],
    ids=repr,
)
def test_the_contract_of_families(family: TaskFamily):
    check_family(family)


# ---- Sinusoid --------------------------------------------------------------------------------------------------------

MEAN_SQUARE = (5**3 - 0.1**3) / (3 * 4.9)  # of the amplitude
BLIND = -2.55 * 2 / math.pi  # the mean of y is this times cos x: that of A is 2.55, that of sin φ is 2 / π


@pytest.mark.parametrize(
    ("height", "expected"),
    [
        (0.0, -MEAN_SQUARE / 2),
        (BLIND, -MEAN_SQUARE / 2 + BLIND**2 * (0.5 + math.sin(10) / 20)),
    ],
    ids=["zero", "the mean of all waves"],
)
def test_blind_predictions_earn_what_is_known(height: float, expected: float):
    assert expected == pytest.approx(-4.2517 if height == 0 else -3.0057, abs=1e-4), "as its description says"
    rewards = play(Blind(height), Sinusoid()).outcome.reward.mean(0)
    assert float(rewards.mean()) == pytest.approx(expected, abs=4 * float(rewards.std()) / math.sqrt(len(rewards)))


def test_no_other_multiple_of_the_cosine_is_better():
    around = [float(play(Blind(BLIND + shift), Sinusoid()).outcome.reward.mean()) for shift in (-0.3, 0.0, 0.3)]
    assert max(around) == around[1]


def test_random_predictions_earn_what_the_family_says():
    family = Sinusoid()
    rollout = play(RandomAgent(family), family)
    gap = episode_returns(rollout, 1)[:, 0] - family.random_return(rollout.task)
    assert abs(float(gap.mean())) < 4 * float(gap.std()) / math.sqrt(len(gap))
    grid = Wave(*(axis.flatten() for axis in torch.meshgrid(_middles(0.1, 5.0), _middles(0.0, math.pi), indexing="ij")))
    assert float(family.random_return(grid).mean()) / 10 == pytest.approx(-MEAN_SQUARE / 2 - 64 / 3, abs=1e-3)


def _middles(low: float, high: float, count: int = 500) -> Tensor:
    return low + (high - low) * (torch.arange(count) + 0.5) / count


def test_a_value_is_shown_one_step_later_and_only_where_asked():
    wave = Wave(torch.tensor([2.0]), torch.tensor([0.5]))
    for show, length in ((True, 2), (False, 1)):
        env = BatchEnv(Sinusoid(horizon=3, show_previous=show, episodes_per_trial=2), wave, rng.key(0))
        obs = env.reset().obs
        assert obs.shape == (1, length)
        for number in range(1, 7):
            y = 2.0 * torch.sin(obs[0, 0] - 0.5)
            outcome, step = env.step(torch.tensor([[1.0]]))
            assert float(outcome.reward) == pytest.approx(-((1.0 - float(y)) ** 2), abs=1e-5)
            if show:
                torch.testing.assert_close(outcome.final_obs[0, 1], y)
                assert float(step.obs[0, 1]) == (0.0 if number % 3 == 0 else float(outcome.final_obs[0, 1]))
            obs = step.obs


def test_right_answers_earn_nothing_less():
    for family in (Sinusoid(), FewShotDigits()):
        assert has_target(family)
        task = family.sample_tasks(rng.key(2), 50, "ood")
        keys = rng.fold(rng.key(3), torch.arange(50))
        state = family.reset(task, keys)
        best = 0.0 if isinstance(family, Sinusoid) else 1.0
        for t in range(family.horizon):
            answer = family.target(task, state)
            assert answer is not None
            state, reward, _ = family.step(task, state, answer, rng.fold(keys, t))
            assert bool((reward == best).all())


def test_waves_of_another_kind_are_higher():
    family = Sinusoid()
    inside, outside = (family.sample_tasks(rng.key(0), 5000, split).amplitude for split in ("train", "ood"))
    assert 0.1 <= float(inside.min()) < 0.11 and 4.99 < float(inside.max()) < 5.0
    assert 5.0 <= float(outside.min()) < 5.01 and 7.99 < float(outside.max()) < 8.0
    with pytest.raises(ValueError, match=r"^Wave.amplitude must be from 0 to 8, got 9\.$"):
        checked_task(family, Wave(torch.tensor([9.0]), torch.tensor([0.0])))


# ---- FewShotDigits ---------------------------------------------------------------------------------------------------


def test_the_images_are_those_of_scikit_learn_in_four_rotations():
    from sklearn.datasets import load_digits

    data, table = load_digits(), images(CPU)
    assert table.shape == (CLASSES, INSTANCES, 64) and float(table.max()) == 1.0 and float(table.min()) == 0.0
    third_seven = data.images[data.target == 7][2] / 16
    for turns in range(4):
        np.testing.assert_array_equal(table[4 * 7 + turns, 2].reshape(8, 8), np.rot90(third_seven, turns))
    assert len({image.numpy().tobytes() for image in table[::4].flatten(0, 1)}) == 10 * INSTANCES, "none is there twice"


def test_a_digit_belongs_to_one_split_in_all_its_rotations():
    family, seen = FewShotDigits(), {}
    for split, own in DIGITS.items():
        task = family.sample_tasks(rng.key(0), 3000, split)
        seen[split] = set(task.classes.flatten().tolist())
        assert seen[split] == {4 * digit + turns for digit in own for turns in range(4)}
        assert bool((task.inverted == (split == "ood")).all())
        assert all(len(set(row)) == 5 for row in task.classes.tolist())
    assert not seen["train"] & seen["test"] and not seen["valid"] & (seen["train"] | seen["test"])


def test_a_task_never_holds_two_that_look_alike():
    classes = FewShotDigits(num_classes=8).sample_tasks(rng.key(0), 5000).classes
    for digit, other in ((0, 0), (1, 1), (8, 8), (6, 9)):
        for turns in range(4):
            one, two = 4 * digit + turns, 4 * other + (turns + 2) % 4
            assert not bool(((classes == one).any(1) & (classes == two).any(1)).any())
            assert bool((classes == one).any()) and bool((classes == two).any())


def test_every_class_has_ten_different_images_under_its_label():
    family = FewShotDigits(num_classes=3)
    task = family.sample_tasks(rng.key(0), 20)
    keys, table = rng.fold(rng.key(1), torch.arange(20)), images(CPU)
    state = family.reset(task, keys)
    seen: list[dict[int, set[int]]] = [{} for _ in range(20)]
    last = torch.zeros(20, 3)
    for _ in range(family.horizon):
        obs = family.observe(task, state)
        assert torch.equal(obs[:, 64:], last)
        label = family.target(task, state)
        for row in range(20):
            drawn = int(task.classes[row, label[row]])
            number = int((table[drawn] == obs[row, :64]).all(-1).nonzero()[0])
            seen[row].setdefault(int(label[row]), set()).add(number)
        last = torch.nn.functional.one_hot(label, 3).float()
        state, _, _ = family.step(task, state, label, keys)
    assert all(sorted(each) == [0, 1, 2] and all(len(some) == SHOWN for some in each.values()) for each in seen)
    assert torch.equal(family.observe(task, state), torch.cat([torch.zeros(20, 64), last], dim=1)), "no image after it"


def test_inversion_exchanges_light_and_dark():
    family = FewShotDigits()
    dark = family.sample_tasks(rng.key(0), 10, "test")
    keys = rng.fold(rng.key(1), torch.arange(10))
    light = dark._replace(inverted=torch.ones_like(dark.inverted))
    one, other = (family.observe(task, family.reset(task, keys)) for task in (dark, light))
    torch.testing.assert_close(one[:, :64] + other[:, :64], torch.ones(10, 64))


class Recognises(FixedAgent):
    """Knows which images are of one class, but of the labels only those that were shown; guesses among the others."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes

    def begin(self, num_tasks: int, task: Any = None) -> Memory:
        nothing = torch.zeros(num_tasks, self.num_classes, dtype=torch.bool)
        return task, nothing

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        task, shown = memory
        shown = shown | (step.obs[:, 64:] > 0)
        label = (images(CPU)[task.classes] - step.obs[:, None, None, :64]).abs().sum(-1).amin(-1).argmin(-1)
        luck = rng.uniform(key, self.num_classes).masked_fill(shown, -1.0)
        known = shown.gather(1, label[:, None])[:, 0]
        return scripted(torch.where(known, label, luck.argmax(1)), step), (task, shown)


@pytest.mark.parametrize(("num_classes", "at_best"), [(2, 19.5), (5, 47.2833)])
def test_who_is_not_told_the_labels_guesses_among_those_not_shown_yet(num_classes: int, at_best: float):
    """All but the first instances, and of these 1 / N + … + 1 / 2 + 1."""
    assert at_best == pytest.approx(9 * num_classes + sum(1 / n for n in range(1, num_classes + 1)), abs=1e-4)
    returns = play(Recognises(num_classes), FewShotDigits(num_classes), tasks=200, split="test").outcome.reward.sum(0)
    assert float(returns.mean()) == pytest.approx(at_best, abs=4 * float(returns.std()) / math.sqrt(len(returns)))


@pytest.mark.parametrize("num_classes", [2, 5])
def test_chance_is_one_in_n(num_classes: int):
    family = FewShotDigits(num_classes)
    rollout = play(RandomAgent(family), family, tasks=2000)
    assert family.random_return(rollout.task)[0] == 10.0 and family.oracle(rollout.task)[0] == 10 * num_classes
    assert float(rollout.outcome.reward.mean()) == pytest.approx(1 / num_classes, abs=0.01)


def test_labels_are_dealt_anew():
    """Each class has every label equally often, so that no rule from images to labels is better than chance."""
    classes = FewShotDigits().sample_tasks(rng.key(0), 20_000).classes
    for drawn in (0, 9, 33):
        counts = (classes == drawn).sum(0).double()
        assert float((counts / counts.sum() - 0.2).abs().max()) < 0.03


def test_mistakes_end_in_one_sentence(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match=r"^num_classes must be at most 8, as a split has no more, got 9\.$"):
        FewShotDigits(num_classes=9)
    same, none = torch.tensor([[0, 1, 2, 3, 3]]), torch.zeros(1, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"^Characters.classes must be different classes\.$"):
        checked_task(FewShotDigits(), Characters(same, none))
    with pytest.raises(ValueError, match=r"^Characters.classes must be from 0 to 39, got 40\.$"):
        checked_task(FewShotDigits(), Characters(same + torch.arange(33, 38), none))
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("sklearn"):
            raise ModuleNotFoundError(name)
        return real(name, *args, **kwargs)

    digits.images.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        ValueError, match=r"^scikit-learn is needed and not installed: pip install 'metarl\[digits\]'\.$"
    ):
        metarl.make("metarl/FewShotDigits-v0")


def test_a_picture_counts_what_was_named_right():
    family = FewShotDigits(num_classes=2)
    task = take(family.sample_tasks(rng.key(0), 1), slice(0, 1))
    keys = rng.fold(rng.key(1), torch.arange(1))
    sketch, state = family.sketch(task), family.reset(task, keys)
    sketch.add(state, first=True)
    for t in range(family.horizon):
        right = family.target(task, state)
        state, _, _ = family.step(task, state, right if t % 2 else 1 - right, keys)
        sketch.add(state)
    assert sketch.right == 10 and sketch.counts == [10, 10]
    blank = family.sketch(task)
    assert sketch.image().shape == blank.image().shape and not np.array_equal(sketch.image(), blank.image())
