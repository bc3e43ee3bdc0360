"""Advantages against their definition as a double sum."""

import pytest
import torch

from metarl.estimators import discounted_returns, explained_variance, gae, masked_mean, normalise

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
