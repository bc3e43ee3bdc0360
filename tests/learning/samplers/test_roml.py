"""RoML: the cross-entropy method finds the worst region, and draws only tasks of the split."""

import pytest
import torch
from small_families import Corridor, Length
from test_plr import KEY, make
from torch.distributions import kl_divergence

from metarl.core import rng
from metarl.core.tree import concatenate
from metarl.envs.control.cartpole import CartPole
from metarl.envs.grids.wall_maze import WallMaze
from metarl.learning.samplers.roml import RoML, RoMLOptions


def sampler(**options) -> RoML:
    return RoML(RoMLOptions(**options), make(CartPole(horizon=10)), "train")


def hardness(tasks) -> torch.Tensor:
    """Returns that are worst for heavy poles, whatever else the tasks are."""
    return -tasks.pole_mass.log()


def test_it_moves_to_the_worst_region_and_leaves_the_rest():
    found = sampler(alpha=0.2, rate=0.5)
    for number in range(10):
        tasks = found.propose(rng.fold(KEY, number), 200).tasks
        found.fit(tasks, hardness(tasks))
    place = CartPole(horizon=10).sample_tasks(KEY, 1)._fields.index("pole_mass")
    others = torch.arange(5) != place
    assert found.mean[place] > 1.0 and found.std[place] < 0.8
    assert found.mean[others].abs().max() < 0.5
    tilted = found.propose(KEY, 400).tasks
    assert hardness(tilted).mean() < hardness(found.fresh(KEY, 400)).mean() - 0.1
    assert tilted.pole_mass.max() <= 1.5 and tilted.pole_mass.min() >= 1 / 1.5  # tasks of the split


def test_without_a_tilt_batches_are_as_new_ones():
    tasks = sampler().propose(KEY, 2000).tasks
    assert tasks.force.log().mean().abs() < 0.02


def test_equal_returns_leave_the_distribution_as_it_is():
    found = sampler(rate=1.0, alpha=1.0)
    for number in range(5):
        tasks = found.propose(rng.fold(KEY, number), 1000).tasks
        found.fit(tasks, torch.zeros(1000))
    assert found.mean.abs().max() < 0.2 and (found.std - 1).abs().max() < 0.15


def test_numbers_are_standard_normals():
    found = sampler()
    z = found.normal(found.fresh(KEY, 5000))
    assert z.mean(0).abs().max() < 0.06 and (z.std(0) - 1).abs().max() < 0.06 and z.isfinite().all()


def test_the_quantile_is_that_of_the_split_whatever_was_drawn():
    found = sampler(alpha=0.2, rate=1.0)
    for number in range(6):
        tasks = found.propose(rng.fold(KEY, number), 2000).tasks
        found.fit(tasks, hardness(tasks))
    expected = hardness(found.fresh(KEY, 5000)).quantile(0.2)
    assert float(found.quantile) == pytest.approx(float(expected), abs=0.06)


def tilted(**options) -> RoML:
    found = sampler(**options)
    found.mean = torch.linspace(-0.5, 0.8, len(found.mean))
    found.std = torch.linspace(0.4, 0.9, len(found.std))
    return found


def test_the_weight_of_a_task_is_the_ratio_of_the_densities():
    found = tilted()
    tasks = found.fresh(KEY, 50)
    z, one = found.normal(tasks), torch.ones(())
    normal = torch.distributions.Normal
    log = normal(found.mean, found.std).log_prob(z) - normal(0.0 * one, one).log_prob(z)
    torch.testing.assert_close(found.weight(tasks), log.sum(1).exp(), rtol=1e-3, atol=1e-6)


def test_a_step_is_that_of_a_plain_loop():
    """Importance weights give the worst share of the split; mean and spread move by the rate, within bounds."""
    found = tilted(alpha=0.3, rate=0.4, fresh=0.2, batch=50, min_std=0.35)
    tasks, before = found.fresh(KEY, 50), (found.mean.clone(), found.std.clone())
    z, returns = found.normal(tasks), rng.normal(KEY, 50)
    weight = 1.0 / (0.2 + 0.8 * found.weight(tasks))
    found.fit(tasks, returns)
    total, quantile = 0.0, None
    for row in returns.argsort().tolist():
        total += float(weight[row] / weight.sum())
        if total >= 0.3:
            quantile = float(returns[row])
            break
    assert float(found.quantile) == pytest.approx(quantile)
    worst = [row for row in range(50) if float(returns[row]) <= quantile]
    share = weight[worst] / weight[worst].sum()
    mean = (share[:, None] * z[worst]).sum(0)
    std = (share[:, None] * (z[worst] - mean) ** 2).sum(0).sqrt()
    torch.testing.assert_close(found.mean, before[0] + 0.4 * (mean - before[0]), rtol=1e-4, atol=1e-5)
    expected = (before[1] + 0.4 * (std - before[1])).clamp(0.35, 1.0)
    torch.testing.assert_close(found.std, expected, rtol=1e-4, atol=1e-5)


def test_two_of_eight_equally_likely_tasks_are_the_worst_quarter():
    found = sampler(alpha=0.25, batch=8)
    found.fit(found.fresh(KEY, 8), torch.arange(8.0))
    assert float(found.quantile) == 1.0


def test_the_divergence_is_that_of_torch():
    found = tilted()
    pair = torch.distributions.Normal(found.mean, found.std), torch.distributions.Normal(torch.zeros(5), torch.ones(5))
    assert found.metrics()["tasks/divergence"] == pytest.approx(float(kl_divergence(*pair).sum()), rel=1e-5)


def test_equal_numbers_have_the_middle_of_their_ranks():
    """Corridor's lengths are 1, 2 and 4, a third each: the one in the middle is at 0, the others at equal distances."""
    found = RoML(RoMLOptions(), make(Corridor()), "train")
    low, middle, high = found.normal(Length(torch.tensor([1, 2, 4])))[:, 0].tolist()
    assert middle == pytest.approx(0.0, abs=0.1) and low == pytest.approx(-high, abs=0.1) and high > 0.8


def test_the_spread_is_never_above_that_of_the_split():
    found = sampler(alpha=1.0, rate=1.0, batch=20)
    for number in range(4):
        tasks = found.propose(rng.fold(KEY, number), 20).tasks
        found.fit(tasks, torch.zeros(20))
        assert float(found.std.max()) <= 1.0


@pytest.mark.parametrize("size", [1, 16])
def test_small_batches_are_as_good_as_large_ones(size: int):
    """A batch of one task says neither what is bad nor how tasks differ: only many together do."""
    found, whole = sampler(batch=400), sampler()
    tasks = [found.propose(rng.fold(KEY, number), size).tasks for number in range(400 // size)]
    for part in tasks[:-1]:
        found.fit(part, hardness(part))
        assert not found.mean.any() and bool((found.std == 1).all())
    found.fit(tasks[-1], hardness(tasks[-1]))
    together = concatenate(tasks)
    whole.fit(together, hardness(together))
    torch.testing.assert_close((found.mean, found.std, found.quantile), (whole.mean, whole.std, whole.quantile))
    assert found.mean.any() and not len(found.played.returns)


def test_the_state_is_whole():
    found, again = sampler(batch=100), sampler(batch=100)
    tasks = found.propose(KEY, 70).tasks
    found.fit(tasks, hardness(tasks))
    before = {name: value for name, value in found.state_dict().items() if not name.startswith("played.")}
    again.load_state_dict(before)  # of a run from before meta-batches were put together
    assert len(again.played.returns) == 0 and torch.equal(again.mean, found.mean)
    again.load_state_dict(found.state_dict())
    for each in (found, again):
        each.fit(tasks, hardness(tasks))
    assert found.mean.any()
    assert all(torch.equal(x, y) for x, y in zip(found.propose(KEY, 50).tasks, again.propose(KEY, 50).tasks))


def test_tasks_of_many_numbers_are_refused():
    with pytest.raises(ValueError, match=r"1 to 32 numbers that vary, and those of WallMaze have \d+:"):
        RoML(RoMLOptions(), make(WallMaze()), "train")
