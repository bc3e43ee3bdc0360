"""Advantages against their definition as a double sum."""

import pytest
import torch

from metarl.learning.estimators import (
    discounted_returns,
    explained_variance,
    gae,
    linear_baseline,
    masked_mean,
    normalise,
    normalise_rows,
    row_mean,
)

T, B = 7, 3
G = torch.Generator().manual_seed(0)
REWARD, VALUE = (torch.randn(T, B, generator=G) for _ in range(2))
LAST = torch.randn(B, generator=G)
ENDS = torch.zeros(T, B)
ENDS[2, 0] = ENDS[6, 0] = ENDS[4, 1] = 1.0  # the third row has no end: it goes on after the last step


def naive(reward, value, ends, last_value, gamma, gae_lambda) -> torch.Tensor:
    """Σ_l (γλ)^l δ_{t+l}, each sum up to the first end (Schulman et al. 2016, eq. 16)."""
    following = torch.cat([value, last_value[None]])
    out = torch.zeros(T, B)
    for b in range(B):
        for t in range(T):
            for k in range(t, T):
                alive = 1.0 - ends[k, b]
                delta = reward[k, b] + gamma * alive * following[k + 1, b] - value[k, b]
                out[t, b] += (gamma * gae_lambda) ** (k - t) * delta
                if ends[k, b]:
                    break
    return out


@pytest.mark.parametrize(("gamma", "gae_lambda"), [(0.9, 0.8), (1.0, 1.0), (0.9, 0.0), (0.0, 0.5)])
def test_gae_is_the_double_sum(gamma: float, gae_lambda: float):
    ours = gae(REWARD, VALUE, ENDS, LAST, gamma, gae_lambda)
    torch.testing.assert_close(ours, naive(REWARD, VALUE, ENDS, LAST, gamma, gae_lambda))


def test_nothing_crosses_an_end():
    later = REWARD.clone()
    later[3:] += 100.0
    ours, changed = (gae(reward, VALUE, ENDS, LAST, 0.9, 0.8) for reward in (REWARD, later))
    assert torch.equal(ours[:3, 0], changed[:3, 0]) and not torch.equal(ours[:3, 1], changed[:3, 1])
    assert torch.equal(ours[:, 0], gae(REWARD, VALUE, ENDS, LAST + 100, 0.9, 0.8)[:, 0]), "bootstrapped after an end"
    assert not torch.equal(ours[:, 2], gae(REWARD, VALUE, ENDS, LAST + 100, 0.9, 0.8)[:, 2])


def test_padding_after_an_end_changes_nothing():
    reward, value = REWARD.clone(), VALUE.clone()
    reward[5:, 1], value[5:, 1] = 1e6, -1e6
    ours, padded = gae(REWARD, VALUE, ENDS, LAST, 0.9, 0.8), gae(reward, value, ENDS, LAST, 0.9, 0.8)
    assert torch.equal(ours[:5, 1], padded[:5, 1])


def test_discounted_returns():
    returns = discounted_returns(REWARD, ENDS, 0.5)
    assert returns[1, 0] == pytest.approx(float(REWARD[1, 0] + 0.5 * REWARD[2, 0]))
    assert returns[6, 2] == REWARD[6, 2]


def test_masked_mean_and_normalise():
    mask = torch.ones(T, B)
    mask[4:, 1] = 0.0
    x = REWARD * 3 + 1
    spoiled = torch.where(mask > 0, x, 1e6)
    kept = x[mask > 0]
    torch.testing.assert_close(masked_mean(spoiled, mask), kept.mean())
    scaled = normalise(spoiled, mask)[mask > 0]
    assert float(scaled.mean()) == pytest.approx(0.0, abs=1e-6)
    assert float(scaled.std(correction=0)) == pytest.approx(1.0, abs=1e-5)
    assert masked_mean(x, torch.zeros(T, B)) == 0.0, "an empty mask is no division by zero"


def test_explained_variance():
    mask = torch.ones(T, B)
    assert explained_variance(REWARD, REWARD, mask) == 1.0
    assert float(explained_variance(torch.full((T, B), 5.0), REWARD, mask)) == pytest.approx(0.0, abs=1e-5)
    assert float(explained_variance(-REWARD, REWARD, mask)) == pytest.approx(-3.0, abs=1e-5)


def test_nothing_broadcasts():
    with pytest.raises(ValueError, match="Shapes differ"):
        gae(REWARD, VALUE[:, :1], ENDS, LAST, 0.9, 0.8)
    with pytest.raises(ValueError, match="Shapes differ"):
        masked_mean(REWARD, torch.ones(T, 1))


def samples(n: int, m: int, o: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    obs, time = torch.randn(n, m, o, generator=generator), torch.rand(n, m, generator=generator)
    return obs, time, torch.randn(n, m, generator=generator), (torch.rand(n, m, generator=generator) < 0.8).float()


def test_the_linear_baseline_finds_what_its_features_can_say():
    obs, time, _, mask = samples(4, 200, 2)
    target = 3 * obs[..., 0] - obs[..., 1] ** 2 + 5 * time**3 - 2
    target = torch.where(mask > 0, target, 1e3)  # padding does not count
    value = linear_baseline(obs, time, target, mask)
    assert ((value - target).abs() * mask).max() < 0.03


def test_the_linear_baseline_is_least_squares_of_each_task_alone():
    obs, time, target, mask = samples(3, 100, 2)
    value = linear_baseline(obs, time, target, mask)
    for n in range(3):
        kept = mask[n] > 0
        times = torch.stack([torch.ones(100), time[n], time[n] ** 2, time[n] ** 3], dim=-1)
        x = torch.cat([obs[n], obs[n] ** 2, times], dim=-1)
        weight = torch.linalg.lstsq(x[kept], target[n][kept, None]).solution
        torch.testing.assert_close(value[n], (x @ weight)[:, 0], rtol=0, atol=0.1)
        alone = linear_baseline(obs[[n]], time[[n]], target[[n]], mask[[n]])[0]
        torch.testing.assert_close(value[n], alone, rtol=1e-3, atol=1e-3)


def test_the_linear_baseline_of_constant_observations_is_the_mean():
    """A bandit: one step, nothing to see; features depend on each other completely."""
    _, _, target, mask = samples(3, 10, 1)
    value = linear_baseline(torch.zeros(3, 10, 1), torch.zeros(3, 10), target, mask)
    mean = (target * mask).sum(-1) / mask.sum(-1)
    torch.testing.assert_close(value, mean[:, None].expand(3, 10), rtol=1e-3, atol=1e-4)
    assert bool(linear_baseline(torch.eye(5).repeat(2, 2, 1), torch.rand(2, 10), target[:2], mask[:2]).isfinite().all())
    with pytest.raises(ValueError, match="differ"):
        linear_baseline(torch.zeros(3, 10, 1), torch.zeros(3, 9), target, mask)


def test_rows_are_normalised_by_themselves():
    _, _, x, mask = samples(3, 50, 1)
    scaled = normalise_rows(5 * x + 7, mask)
    torch.testing.assert_close(row_mean(scaled, mask), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(row_mean(scaled**2, mask), torch.ones(3), rtol=0, atol=1e-4)
    assert bool((scaled[mask == 0] == 0).all())
    assert torch.equal(normalise_rows(torch.ones(2, 4), torch.ones(2, 4)), torch.zeros(2, 4)), "no spread, no signal"
    with pytest.raises(ValueError, match="differ"):
        row_mean(x, mask[:, 1:])
