"""Our distributions are torch's, with addressed samples."""

import pytest
import torch
from scipy import stats

from metarl.core import rng
from metarl.core.distributions import Categorical, DiagonalGaussian, MultiCategorical
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


# ---- actions of several components --------------------------------------------------------------------------------

SIZES = (2, 5, 1, 3)
MANY, MANY2 = (torch.randn(3, 4, sum(SIZES), dtype=torch.float64, generator=G) for _ in range(2))


def components(logits: torch.Tensor) -> list[torch.distributions.Categorical]:
    return [torch.distributions.Categorical(logits=part) for part in logits.split(SIZES, dim=-1)]


def test_several_components_are_torchs_categoricals():
    ours, other = (MultiCategorical.from_logits(logits, SIZES) for logits in (MANY, MANY2))
    theirs, their_other = components(MANY), components(MANY2)
    action = torch.stack([each.sample() for each in theirs], dim=-1)
    torch.testing.assert_close(
        ours.log_prob(action), sum(each.log_prob(a) for each, a in zip(theirs, action.unbind(-1), strict=True))
    )
    torch.testing.assert_close(ours.entropy(), sum(each.entropy() for each in theirs))
    kl = sum(torch.distributions.kl_divergence(a, b) for a, b in zip(theirs, their_other, strict=True))
    torch.testing.assert_close(ours.kl(other), kl)
    assert torch.equal(ours.mode(), torch.stack([each.logits.argmax(-1) for each in theirs], dim=-1))
    assert ours.entropy().shape == ours.kl(other).shape == ours.log_prob(action).shape == (3, 4)
    assert take(ours, 0).sample(keys(4)).shape == (4, 4)


def test_samples_of_several_components_are_independent():
    first, second = torch.tensor([0.3, 0.7]), torch.tensor([0.1, 0.6, 0.3])
    logits = torch.cat([first, second]).log().expand(50_000, 5)
    sample = MultiCategorical.from_logits(logits, (2, 3)).sample(keys(50_000))
    assert sample.dtype == torch.int64 and sample.shape == (50_000, 2)
    counts = (3 * sample[:, 0] + sample[:, 1]).bincount(minlength=6)
    expected = 50_000 * (first[:, None] * second).flatten().double()
    assert stats.chisquare(counts.numpy(), (expected / expected.sum() * 50_000).numpy()).pvalue > 1e-4


def test_rounded_probabilities_never_make_a_choice_that_a_component_lacks():
    """Probabilities that sum to clearly less than 1, as rounding makes them by a little."""
    exact = MultiCategorical.from_logits(torch.zeros(1000, 5), (2, 3))
    sample = MultiCategorical(exact.log_probs - 1.0).sample(keys(1000))
    assert sample.amax(0).tolist() == [1, 2]


def kinds() -> dict:
    return {
        "categorical": (lambda logits: Categorical.from_logits(logits), torch.randint(0, 11, (3, 4), generator=G)),
        "several": (
            lambda logits: MultiCategorical.from_logits(logits, SIZES),
            torch.stack([torch.randint(0, n, (3, 4), generator=G) for n in SIZES], dim=-1),
        ),
    }


@pytest.mark.parametrize("kind", kinds())
def test_gradients_are_those_of_autograd(kind: str):
    make, action = kinds()[kind]
    field = make(MANY).log_probs.detach().requires_grad_()
    by_log_prob, by_entropy = (torch.randn(3, 4, dtype=torch.float64, generator=G) for _ in range(2))
    policy = type(make(MANY))(field)
    (by_log_prob * policy.log_prob(action) + by_entropy * policy.entropy()).sum().backward()
    (found,) = policy.gradient(action, by_log_prob, by_entropy)
    torch.testing.assert_close(found.detach(), field.grad)


def test_the_log_probability_has_the_gradient_of_differences():
    _, action = kinds()["several"]
    logits = MANY.clone().requires_grad_()
    torch.autograd.gradcheck(lambda x: MultiCategorical.from_logits(x, SIZES).log_prob(action), logits)
    torch.autograd.gradcheck(lambda x: MultiCategorical.from_logits(x, SIZES).entropy(), logits)
    torch.autograd.gradgradcheck(lambda x: MultiCategorical.from_logits(x, SIZES).log_prob(action), logits)


def test_logits_of_any_size_of_several_components():
    extreme = MultiCategorical.from_logits(torch.tensor([1e4, 0.0, -1e4, 3.0]), (3, 1))
    assert bool(extreme.entropy().isfinite()) and float(extreme.log_prob(torch.tensor([0, 0]))) == 0.0
