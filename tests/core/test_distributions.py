"""Our distributions are torch's, with addressed samples."""

import pytest
import torch
from scipy import stats

from metarl.core import rng
from metarl.core.distributions import Categorical, DiagonalGaussian
from metarl.core.tree import take

G = torch.Generator().manual_seed(0)
LOGITS, OTHER = (torch.randn(3, 4, 5, dtype=torch.float64, generator=G) for _ in range(2))
MEAN, MEAN2, LOG_STD, LOG_STD2 = (torch.randn(3, 4, 2, dtype=torch.float64, generator=G) for _ in range(4))


def pairs() -> list:
    torchs = torch.distributions
    normal = lambda mean, log_std: torchs.Independent(torchs.Normal(mean, log_std.exp()), 1)  # noqa: E731
    return [
        (Categorical.from_logits(LOGITS), Categorical.from_logits(OTHER),
         torchs.Categorical(logits=LOGITS), torchs.Categorical(logits=OTHER)),
        (DiagonalGaussian(MEAN, LOG_STD), DiagonalGaussian(MEAN2, LOG_STD2),
         normal(MEAN, LOG_STD), normal(MEAN2, LOG_STD2)),
        (DiagonalGaussian(MEAN, LOG_STD[0, 0]), DiagonalGaussian(MEAN2, LOG_STD2[0, 0]),
         normal(MEAN, LOG_STD[0, 0].expand_as(MEAN)), normal(MEAN2, LOG_STD2[0, 0].expand_as(MEAN))),
    ]  # fmt: skip


@pytest.mark.parametrize("case", range(3))
def test_log_prob_entropy_and_kl_are_torchs(case: int):
    ours, other, theirs, their_other = pairs()[case]
    action = theirs.sample()
    torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    torch.testing.assert_close(ours.kl(other), torch.distributions.kl_divergence(theirs, their_other))
    assert bool((ours.kl(ours).abs() < 1e-12).all())
    assert ours.entropy().shape == ours.kl(other).shape == ours.log_prob(action).shape == (3, 4)


def keys(*shape: int) -> torch.Tensor:
    return rng.fold(rng.key(0), torch.arange(torch.Size(shape).numel())).reshape(shape)


def test_samples_of_a_categorical():
    probs = torch.tensor([0.1, 0.6, 0.0, 0.3])
    sample = Categorical.from_logits(probs.log().expand(50_000, 4)).sample(keys(50_000))
    assert sample.dtype == torch.int64
    counts = sample.bincount(minlength=4)
    assert counts[2] == 0
    assert stats.chisquare(counts[[0, 1, 3]].numpy(), [5_000, 30_000, 15_000]).pvalue > 1e-4


def test_samples_of_a_gaussian():
    distribution = DiagonalGaussian(torch.tensor([1.0, -2.0]).expand(50_000, 2), torch.tensor([0.5, -1.0]))
    sample = distribution.sample(keys(50_000))
    standard = ((sample - distribution.mean) / distribution.log_std.exp()).double()
    for column in standard.T:
        assert stats.kstest(column.numpy(), "norm").pvalue > 1e-4


def test_a_sample_follows_from_its_key():
    for distribution in (Categorical.from_logits(LOGITS), DiagonalGaussian(MEAN, LOG_STD)):
        sample = distribution.sample(keys(3, 4))
        assert sample.shape[:2] == (3, 4)
        assert torch.equal(sample, distribution.sample(keys(3, 4)))
        row = take(distribution, slice(2, None)).sample(keys(3, 4)[2:])
        assert torch.equal(sample[2:], row)


def test_modes():
    assert torch.equal(Categorical.from_logits(LOGITS).mode(), LOGITS.argmax(-1))
    assert torch.equal(DiagonalGaussian(MEAN, LOG_STD).mode(), MEAN)


def test_logits_of_any_size_make_finite_probabilities():
    extreme = Categorical.from_logits(torch.tensor([1e4, 0.0, -1e4]))
    assert extreme.log_probs.exp().sum() == 1.0 and bool(extreme.entropy().isfinite())
