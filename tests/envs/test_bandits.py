"""Gaussian, dependent, informative and restless bandits: exact values, splits, addressed walks, pictures."""

import numpy as np
import pytest
import scipy.stats
import torch
from test_envs import assert_mean, play, random_policy, same

from metarl.core import rng
from metarl.core.batch_env import BatchEnv
from metarl.core.tree import num_rows
from metarl.envs.bandits.bernoulli import BernoulliArms
from metarl.envs.bandits.dependent import DependentBandit
from metarl.envs.bandits.gaussian import GaussianBandit
from metarl.envs.bandits.informative import InformativeBandit
from metarl.envs.bandits.pictures import payment_colour
from metarl.envs.bandits.restless import RestlessBandit
from metarl.testing import check_family

STRUCTURES = ("uniform", "easy", "medium", "hard")
FAMILIES = [
    GaussianBandit(),
    GaussianBandit(num_arms=3, std=0.3, episodes_per_trial=20),
    *(DependentBandit(structure) for structure in STRUCTURES),
    InformativeBandit(),
    RestlessBandit(),
    RestlessBandit(step_size=0.025, horizon=7, episodes_per_trial=2),
]
each_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f"{type(f).__name__}{FAMILIES.index(f)}")


@each_family
def test_the_contract(family):
    check_family(family)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: GaussianBandit(num_arms=1), "num_arms must be a whole number of at least 2"),
        (lambda: GaussianBandit(std=0.0), "std must be a positive number, got 0.0"),
        (lambda: GaussianBandit(std=float("inf")), "std must be a positive number"),
        (lambda: DependentBandit("esy"), "Unknown structure: 'esy'. Did you mean 'easy'"),
        (lambda: DependentBandit(episodes_per_trial=0), "episodes_per_trial must be a whole number"),
        (lambda: InformativeBandit(episodes_per_trial=0), "episodes_per_trial must be a whole number"),
        (lambda: RestlessBandit(step_size=-0.1), "step_size must be a positive number"),
        (lambda: RestlessBandit(horizon=1), "horizon must be a whole number of at least 2"),
    ],
)
def test_wrong_options_are_named(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


@each_family
def test_known_task_and_random_returns_are_earned(family):
    """More than 10,000 episodes each; of the difference to what is said, since tasks differ more than luck does."""
    restless = isinstance(family, RestlessBandit)
    task = family.sample_tasks(rng.key(0), 10_000 if restless else 3000)
    episodes = 1 if restless else 5
    rows = torch.arange(num_rows(task))

    def best(step, t):
        if isinstance(family, InformativeBandit):
            return task.target
        return (task.probs[:, :, t] if restless else task[0]).argmax(-1)

    within = 0.02 * family.horizon * (1.0 + getattr(family, "std", 0.0)) + 0.02
    earned = play(family, task, best, episodes) - family.oracle(task)[:, None].double()
    assert_mean(earned.flatten(), 0.0, within) if earned.std() else torch.testing.assert_close(earned, earned * 0)
    chance = play(family, task, random_policy(family), episodes) - family.random_return(task)[:, None].double()
    assert_mean(chance.mean(1), 0.0, 2 * within)
    assert len(rows) * episodes >= 10_000


@each_family
def test_pictures(family):
    task = family.sample_tasks(rng.key(0), 1)

    def picture(seed: int) -> np.ndarray:
        env, policy = BatchEnv(family, task, rng.key(0)), random_policy(family, seed)
        step = env.reset()
        states = [env.state]
        for t in range(min(20, env.max_steps)):
            step = env.step(policy(step, t))[1]
            states.append(env.final_state)
        return family.render(task, states)

    image = picture(1)
    assert image.dtype == np.uint8 and image.shape[2] == 3
    assert min(image.shape[:2]) >= 90 and max(image.shape[:2]) < 1500
    assert not np.array_equal(image, picture(2)), "the pulls are not in the picture"
    assert family.render(task, []).shape[2] == 3


def test_payment_colours():
    assert payment_colour(-1.0) == payment_colour(0.0) == "#e03131"
    assert payment_colour(1.0) == payment_colour(2.0) == "#1971c2"


# ---- Gaussian ------------------------------------------------------------------------------------------------------


def test_gaussian_splits():
    for split, low in (("train", 0.0), ("test", 0.0), ("ood", 1.0)):
        means = GaussianBandit().sample_tasks(rng.key(0), 20_000, split).means.flatten()
        assert scipy.stats.kstest(means.numpy(), "uniform", (low, 1)).pvalue > 0.001
        assert low <= means.min() and means.max() < low + 1.0


@pytest.mark.parametrize("std", [1.0, 0.3])
def test_gaussian_payments(std):
    family = GaussianBandit(std=std)
    task = family.sample_tasks(rng.key(0), 20_000)
    reward = play(family, task, lambda step, t: torch.full((20_000,), 3))[:, 0]
    noise = (reward - task.means[:, 3]) / std
    assert scipy.stats.kstest(noise.numpy(), "norm").pvalue > 0.001
    assert abs(np.corrcoef(noise, task.means[:, 3])[0, 1]) < 0.03
    assert_mean(family.oracle(task), 5 / 6, within=0.005)


# ---- dependent -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("structure", STRUCTURES)
def test_dependent_arms(structure):
    family = DependentBandit(structure)
    probs = family.sample_tasks(rng.key(0), 20_000).probs
    torch.testing.assert_close(probs.sum(1), torch.ones(20_000))
    assert_mean(probs[:, 0], 0.5, within=0.02)
    if structure == "uniform":
        assert family.splits == DependentBandit.splits == ("train", "valid", "test", "ood")
        assert scipy.stats.kstest(probs[:, 0].numpy(), "uniform").pvalue > 0.001
    else:
        poor = {"easy": 0.1, "medium": 0.25, "hard": 0.4}[structure]
        assert family.splits == ("train", "valid", "ood", "all")
        assert sorted(set(probs[:, 0].tolist())) == pytest.approx([poor, 1 - poor])
    best = {"uniform": 0.75, "easy": 0.9, "medium": 0.75, "hard": 0.6}[structure]
    assert float(family.oracle(family.sample_tasks(rng.key(0), 20_000)).mean()) == pytest.approx(best, abs=0.005)
    assert family.sample_tasks(rng.key(0), 20_000, "ood").probs.sum(1).max() < 1.0


def test_dependent_tasks_are_enumerated_where_there_are_two():
    every = DependentBandit("hard").enumerate_tasks("all").probs
    torch.testing.assert_close(every, torch.tensor([[0.4, 0.6], [0.6, 0.4]]))
    for family, split in ((DependentBandit(), "train"), (DependentBandit("easy"), "ood")):
        assert family.enumerate_tasks(split) is None
    with pytest.raises(ValueError, match="Unknown split"):
        DependentBandit("easy").sample_tasks(rng.key(0), 1, "test")


def test_dependent_payments():
    task = BernoulliArms(torch.tensor([[0.25, 0.75]]).expand(20_000, 2))
    for arm, p in ((0, 0.25), (1, 0.75)):
        paid = play(DependentBandit(), task, lambda step, t, arm=arm: torch.full((20_000,), arm))[:, 0]
        assert set(paid.tolist()) == {0.0, 1.0}
        assert_mean(paid, p, within=0.02)


# ---- informative ---------------------------------------------------------------------------------------------------


def test_informative_partition_and_codes():
    tasks = {split: InformativeBandit().enumerate_tasks(split) for split in InformativeBandit.splits}
    targets = {split: task.target.tolist() for split, task in tasks.items()}
    assert targets["all"] == list(range(10))
    assert targets["test"] == list(InformativeBandit.TEST_TARGETS) == [0, 7]
    assert sorted(targets["train"] + targets["test"]) == targets["all"] and targets["ood"] == targets["train"]
    for split in ("train", "test", "all"):
        torch.testing.assert_close(tasks[split].clue, (tasks[split].target + 1) / 10)
    assert (tasks["ood"].clue + tasks["train"].clue).tolist() == pytest.approx([1.1] * 8)
    assert (tasks["ood"].clue - tasks["train"].clue).abs().min() > 0.05
    drawn = InformativeBandit().sample_tasks(rng.key(0), 20_000, "all").target
    assert scipy.stats.chisquare(drawn.bincount(minlength=10).numpy()).pvalue > 0.001


def test_informative_payments_are_exact():
    family, task = InformativeBandit(), InformativeBandit().enumerate_tasks("all")
    table = torch.stack([play(family, task, lambda s, t, a=a: torch.full((10,), a))[:, 0] for a in range(11)], dim=1)
    expected = torch.where(torch.eye(10, 11, dtype=torch.bool), 5.0, 1.0)
    expected[:, 10] = torch.arange(1, 11) / 10
    torch.testing.assert_close(table.float(), expected)
    torch.testing.assert_close(table.mean(1).float(), family.random_return(task))
    assert float(family.random_return(task).mean()) == pytest.approx(1.323, abs=5e-4)


def test_informative_search_without_the_informative_arm():
    """11.00: the target is found by the first, second … fifth pull with probability 1/10 each."""
    task = InformativeBandit().enumerate_tasks("all")
    found = torch.zeros(10, dtype=torch.int64)

    def search(step, t):
        nonlocal found
        if t == 0:
            return found
        found = torch.where(step.prev_reward > 2, step.prev_action, found + (step.prev_reward < 2))
        return found

    assert float(play(InformativeBandit(), task, search, episodes=5).sum(1).mean()) == pytest.approx(11.0)


# ---- restless ------------------------------------------------------------------------------------------------------


def test_restless_walks():
    family = RestlessBandit()
    probs = family.sample_tasks(rng.key(0), 20_000).probs
    assert probs.shape == (20_000, 2, 100) and probs.min() >= 0.0 and probs.max() <= 1.0
    for t in (0, 1, 10, 99):  # the uniform distribution is what the reflected walk keeps
        for arm in (0, 1):
            assert scipy.stats.kstest(probs[:, arm, t].numpy(), "uniform").pvalue > 0.001
    assert abs(np.corrcoef(probs[:, 0, 50], probs[:, 1, 50])[0, 1]) < 0.03
    inside = ((probs[..., :-1] - 0.5).abs() < 0.05).numpy()  # too far from the ends to be reflected
    steps = probs.diff(dim=-1).numpy()[inside]
    assert scipy.stats.kstest(steps[:20_000] / 0.1, "norm").pvalue > 0.001
    assert_mean(family.oracle(family.sample_tasks(rng.key(0), 20_000)), 200 / 3, within=0.5)
    assert_mean(probs.sum(-1).amax(1), 59.4, within=0.5)
    changes = (probs.argmax(1).diff(dim=1) != 0).sum(1)
    assert_mean(changes, 10.47, within=0.3)


def test_restless_reflection_by_hand():
    """Folding the free walk is the same as reflecting every step."""
    free = np.array([0.9, 1.2, 1.1, 2.3, -0.4])
    steps, walked = np.diff(free), [0.9]
    direction = 1.0
    for step in steps:
        there = walked[-1] + direction * step
        while not 0.0 <= there <= 1.0:
            there, direction = (-there if there < 0 else 2.0 - there), -direction
        walked.append(there)
    folded = torch.from_numpy(free).remainder(2.0)
    assert torch.minimum(folded, 2.0 - folded).tolist() == pytest.approx(walked)


def test_restless_ood_is_told_by_the_size_of_the_steps():
    def size(split: str) -> torch.Tensor:
        return RestlessBandit().sample_tasks(rng.key(0), 5000, split).probs.diff(dim=-1).square().mean((1, 2)).sqrt()

    assert max(size("train").max(), size("test").max()) < 0.12 < 0.16 < size("ood").min()


def test_restless_payments_follow_the_walk():
    family, n = RestlessBandit(horizon=6, episodes_per_trial=2), 20_000
    task = family.sample_tasks(rng.key(1), 1)
    rows = type(task)(*(field.expand(n, *field.shape[1:]) for field in task))
    env = BatchEnv(family, rows, rng.key(2))
    env.reset()
    paid = []
    for t in range(12):
        assert env.state.pulls.tolist() == [t % 6] * n
        paid.append(env.step(torch.full((n,), t % 2))[0].reward)
    for t, reward in enumerate(paid):  # the second episode walks the same path, with luck of its own
        assert_mean(reward, float(task.probs[0, t % 2, t % 6]), within=0.02)
    assert not torch.equal(paid[0], paid[6])
    assert same(family.sample_tasks(rng.key(1), 1), task)
