"""Bandit learners against exact numbers: Gittins index, ε-greedy, Thompson, dependent and informative arms."""

import functools

import numpy as np
import pytest
import scipy.stats
import torch
from scipy.integrate import trapezoid
from test_envs import assert_mean, same

from metarl.agents.reference.bandit_planners import BayesOptimalBandit, GittinsBandit, gittins_indices
from metarl.agents.reference.bandits import Counts, EpsilonGreedyBandit, PosteriorMeanBandit
from metarl.agents.reference.other_bandits import (
    DependentBanditBayes,
    GaussianThompsonBandit,
    InformativeBanditScript,
    Payments,
)
from metarl.core import rng
from metarl.core.batch_env import Step
from metarl.core.units import NO_ACTION
from metarl.envs.bandits.bernoulli import BernoulliBandit
from metarl.envs.bandits.dependent import DependentBandit
from metarl.envs.bandits.gaussian import GaussianBandit
from metarl.envs.bandits.informative import InformativeBandit
from metarl.evaluation.evaluator import evaluate


def totals(agent, family, tasks=10_000, split="train") -> torch.Tensor:
    return torch.as_tensor(evaluate(agent, family, split=split, tasks=tasks).totals).flatten()


# ---- Gittins -------------------------------------------------------------------------------------------------------


def test_gittins_indices_in_closed_form():
    """With one pull left the index is the mean p; with two, it is p (1 + p') / (1 + p), p' the mean after a success."""
    table, n = gittins_indices(12), 12
    for made in range(n - 1):
        for won in range(made + 1):
            p, after = (won + 1) / (made + 2), (won + 2) / (made + 3)
            assert table[0, made, won] == pytest.approx(p, abs=1e-9)
            assert table[1, made, won] == pytest.approx(p * (1 + after) / (1 + p), abs=1e-4)
            along = table[: n - made, made, won]
            assert (np.diff(along) > 0).all() and along[-1] < 1.0, "more pulls left make an arm worth more"


def test_gittins_indices_by_finer_calibration():
    coarse, fine = gittins_indices(20), gittins_indices(20, calibration=5001)
    assert np.abs(coarse - fine).max() < 2e-4 and np.median(np.abs(coarse - fine)[fine > 0]) < 1e-5


def gittins_value(n: int) -> float:
    """The exact expected total of the index policy on two arms; where indices are equal, half of each."""
    table = gittins_indices(n)

    @functools.cache
    def value(a: tuple[int, int], b: tuple[int, int]) -> float:  # (pulls, successes) of each arm
        left = n - a[0] - b[0]
        if left == 0:
            return 0.0
        first, second = table[left - 1][a], table[left - 1][b]
        if first < second:
            return value(b, a)
        (made, won), p = a, (a[1] + 1) / (a[0] + 2)
        pulled = p * (1 + value((made + 1, won + 1), b)) + (1 - p) * value((made + 1, won), b)
        if first > second:
            return pulled
        p = (b[1] + 1) / (b[0] + 2)
        made, won = b
        return (pulled + p * (1 + value(a, (made + 1, won + 1))) + (1 - p) * value(a, (made + 1, won))) / 2

    return value((0, 0), (0, 0))


@pytest.mark.parametrize("n", [2, 5, 10])
def test_gittins_policy_on_two_arms(n):
    exact, optimum = gittins_value(n), BayesOptimalBandit(2, n).value
    assert optimum - 0.005 < exact <= optimum + 1e-9
    assert_mean(totals(GittinsBandit(2, n), BernoulliBandit(2, n)), exact, within=0.12)


@pytest.mark.parametrize(("n", "optimum"), [(10, 6.659988), (20, 14.287338)])
def test_gittins_policy_does_not_beat_the_optimum(n, optimum):
    sample = totals(GittinsBandit(5, n), BernoulliBandit(5, n), tasks=20_000)
    error = float(sample.std()) / len(sample) ** 0.5
    assert optimum - 4 * error - 0.02 < float(sample.mean()) < optimum + 4 * error


def test_gittins_policy_on_five_arms_and_100_pulls():
    assert_mean(totals(GittinsBandit(5, 100), BernoulliBandit(5, 100)), 78.62, within=0.7)


def test_gittins_knows_its_limits():
    with pytest.raises(ValueError, match="plans for 3 pulls"):
        evaluate(GittinsBandit(2, 3), BernoulliBandit(2, 4), tasks=2)


# ---- ε-greedy and Thompson -----------------------------------------------------------------------------------------


def test_epsilon_greedy():
    family = BernoulliBandit(5, 10)
    assert_mean(totals(EpsilonGreedyBandit(5, 0.0), family), 6.626225, within=0.1)  # exact, of PosteriorMeanBandit
    assert_mean(totals(EpsilonGreedyBandit(5, 1.0), family), 5.0, within=0.1)
    counts = Counts(torch.tensor([3.0, 1.0, 0.0]).expand(40_000, 3), torch.tensor([1.0, 1.0, 1.0]).expand(40_000, 3))
    keys = rng.fold(rng.key(0), torch.arange(40_000))
    assert (PosteriorMeanBandit(3).choose(counts, keys) == 0).all()
    assert_mean(EpsilonGreedyBandit(3, 0.3).choose(counts, keys) == 0, 0.8, within=0.01)
    with pytest.raises(ValueError, match=r"epsilon must lie in \[0, 1\]"):
        EpsilonGreedyBandit(3, 1.5)


@pytest.mark.parametrize(("pulls", "total"), [(1, 0.4), (4, 6.0), (9, -5.0), (100, 99.0)])
def test_gaussian_thompson_draws_from_the_posterior(pulls, total):
    agent, n = GaussianThompsonBandit(num_arms=1, std=0.7), 20_000
    seen = Payments(torch.full((n, 1), float(pulls)), torch.full((n, 1), total))
    draws = agent.sample(seen, rng.fold(rng.key(0), torch.arange(n)))[:, 0]
    assert draws.min() >= 0 and draws.max() <= 1
    mean, width = total / pulls, 0.7 / pulls**0.5
    exact = scipy.stats.truncnorm(-mean / width, (1 - mean) / width, mean, width)
    assert scipy.stats.kstest(draws.numpy(), exact.cdf).pvalue > 0.001


def test_gaussian_thompson_far_from_the_prior():
    """Averages a hundred deviations outside of [0, 1] still give numbers, at the nearer end."""
    seen = Payments(torch.full((1, 2), 10_000.0), torch.tensor([[-50_000.0, 60_000.0]]))
    draws = GaussianThompsonBandit(num_arms=2, std=1.0).sample(seen, rng.key(0)[None])
    assert draws[0].tolist() == pytest.approx([0.0, 1.0], abs=1e-3)


def test_gaussian_thompson_starts_from_the_prior():
    n = 20_000
    draws = GaussianThompsonBandit(2).sample(Payments(torch.zeros(n, 2), torch.zeros(n, 2)), rng.key(0)[None])
    assert draws.shape == (n, 2) and ((draws > 0) & (draws < 1)).all()


@pytest.mark.parametrize("std", [1.0, 0.3])
def test_gaussian_thompson_value_of_two_pulls(std):
    """With two arms: 1/2, then E[m² + (1 - m) / 2], m the posterior mean: the other arm's draw is uniform, so the same
    arm is pulled again with probability m."""
    mu, x = np.linspace(0.0005, 0.9995, 1000), np.linspace(-6 * std, 1 + 6 * std, 2001)
    density = scipy.stats.norm.pdf(x[:, None], mu, std)
    m = (density * mu).sum(1) / density.sum(1)
    second = trapezoid((m**2 + (1 - m) / 2) * density.mean(1), x)
    assert_mean(totals(GaussianThompsonBandit(2, std), GaussianBandit(2, std, 2), 40_000), 0.5 + second, within=0.05)


def test_gaussian_thompson_learns():
    """Half of what can be learned in 100 pulls of five noisy arms, most where the noise is small."""
    for std, share in ((1.0, 0.35), (0.3, 0.75)):
        curve = evaluate(GaussianThompsonBandit(5, std), GaussianBandit(5, std), tasks=1000)
        assert share < (curve.totals.mean() / 100 - 0.5) / (5 / 6 - 0.5) < share + 0.2


# ---- dependent and informative arms --------------------------------------------------------------------------------

REGRETS = {"easy": 0.625, "medium": 1.0, "hard": 2.312, "uniform": 1.221}


@pytest.mark.parametrize("structure", REGRETS)
def test_dependent_arms_least_regret(structure):
    agent, family = DependentBanditBayes(structure), DependentBandit(structure)
    assert agent.regret == pytest.approx(REGRETS[structure], abs=5e-4)
    curve = evaluate(agent, family, split="train", tasks=10_000)
    assert_mean(torch.as_tensor(100 * curve.oracle - curve.totals).flatten(), agent.regret, within=0.3)


@pytest.mark.parametrize("structure", REGRETS)
def test_dependent_arms_by_dynamic_programming_over_both_arms(structure):
    """No plan does better than the agent: optimum over all ways of pulling the two arms, on a grid of p."""
    n = 8
    if structure == "uniform":  # Gauss–Legendre is exact for these polynomials
        node, weight = np.polynomial.legendre.leggauss(n + 2)
        ps, prior = (node + 1) / 2, weight / 2
    else:
        ps, prior = np.array([DependentBandit.POOR[structure], 1 - DependentBandit.POOR[structure]]), np.full(2, 0.5)

    @functools.cache
    def value(won0: int, lost0: int, won1: int, lost1: int) -> float:  # times the probability of the history
        if won0 + lost0 + won1 + lost1 == n:
            return 0.0
        likely = prior * ps ** (won0 + lost1) * (1 - ps) ** (lost0 + won1)
        first = likely @ ps + value(won0 + 1, lost0, won1, lost1) + value(won0, lost0 + 1, won1, lost1)
        second = likely @ (1 - ps) + value(won0, lost0, won1 + 1, lost1) + value(won0, lost0, won1, lost1 + 1)
        return float(max(first, second))

    assert DependentBanditBayes(structure, n).value == pytest.approx(value(0, 0, 0, 0), abs=1e-12)


def test_dependent_arms_unknown_structure():
    with pytest.raises(ValueError, match="Unknown structure"):
        DependentBanditBayes("esy")


def test_informative_arm():
    family, agent = InformativeBandit(), InformativeBanditScript()
    every = evaluate(agent, family, tasks=family.enumerate_tasks("all"))
    assert every.totals.mean() == pytest.approx(20.55)
    assert every.returns[0, :, 0].tolist() == pytest.approx([i / 10 for i in range(1, 11)])
    assert (every.returns[0, :, 1:] == 5.0).all()
    ood = family.enumerate_tasks("ood")
    misled = evaluate(agent, family, tasks=ood)  # what it is told is another arm's number
    assert misled.totals.mean() == pytest.approx(float(ood.clue.mean()) + 4.0)


# ---- all -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("agent", "family"),
    [
        (GittinsBandit(3, 8), BernoulliBandit(3, 8)),
        (EpsilonGreedyBandit(3, 0.2), BernoulliBandit(3, 8)),
        (GaussianThompsonBandit(3), GaussianBandit(3, episodes_per_trial=8)),
        (DependentBanditBayes("hard", 8), DependentBandit("hard", 8)),
        (InformativeBanditScript(), InformativeBandit(8)),
    ],
    ids=lambda x: type(x).__name__,
)
def test_a_row_acts_alone_as_beside_others(agent, family):
    few, many = (evaluate(agent, family, split="train", tasks=n).returns[0] for n in (3, 20))
    np.testing.assert_array_equal(few, many[:3])
    memory = agent.begin(4)
    first = Step(torch.zeros(4, 1), torch.full((4,), NO_ACTION), torch.zeros(4), torch.zeros(4))
    again = [agent.act(memory, first, rng.fold(rng.key(0), torch.arange(4)))[0] for _ in range(2)]
    assert same(*again), "acting changed the memory that was passed in"
