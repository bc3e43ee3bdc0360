"""Addressed randomness: draws follow from their address alone, and look random."""

import math

import pytest
import torch
from scipy import stats

from metarl.core import rng


def keys(n: int, seed: int = 0) -> torch.Tensor:
    return rng.fold(rng.key(seed), torch.arange(n))


def test_folding_an_integer_is_folding_a_tensor():
    key = keys(5)
    for data in (0, 1, 7, -1, 2**40 + 3, 2**63 - 1, -(2**63)):
        assert torch.equal(rng.fold(key, data), rng.fold(key, torch.tensor(data)))
        assert torch.equal(rng.fold(key, data), rng.fold(key, torch.full((5,), data)))


def test_a_key_is_the_finaliser_of_splitmix64():
    # The first outputs of the published generator with seed 1234567.
    state, first = 1234567, (6457827717110365317, 3203168211198807973, 9817491932198370423)
    golden = 0x9E3779B97F4A7C15
    for n, expected in enumerate(first):
        data = (state + n * golden) % 2**64  # _mix_int adds one more golden ratio
        data = data - 2**64 if data >= 2**63 else data
        assert rng._mix_int(data) % 2**64 == expected


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_out_of_range_is_refused(seed: int):
    with pytest.raises(ValueError, match="seed"):
        rng.key(seed)


def test_seeds_and_data_are_not_interchangeable():
    small = torch.arange(100)
    table = torch.stack([rng.fold(rng.key(seed), small) for seed in range(100)])
    assert len(table.unique()) == 100 * 100, "fold(key(a), b) must not be fold(key(b), a)"


def test_the_order_of_folds_matters():
    key = rng.key(3)
    assert rng.fold(rng.fold(key, 1), 2) != rng.fold(rng.fold(key, 2), 1)


def test_no_collisions_in_a_million_folds():
    assert len(keys(1_000_000).unique()) == 1_000_000
    grid = rng.fold(keys(1000)[:, None], torch.arange(1000))
    assert len(grid.unique()) == 1_000_000


@pytest.mark.parametrize("n", [1, 2, 3, 7, 17])
def test_a_row_of_a_batch_is_a_batch_of_one_bit_for_bit(n: int):
    batch = keys(13)
    probs = torch.softmax(rng.normal(batch, n), -1)
    whole = [rng.uniform(batch, n), rng.normal(batch, n), rng.exponential(batch, n), rng.integers(batch, n, 5),
             rng.choice(batch, probs), rng.permutation(batch, n)]  # fmt: skip
    for row in range(13):
        key = batch[row : row + 1]
        alone = [rng.uniform(key, n), rng.normal(key, n), rng.exponential(key, n), rng.integers(key, n, 5),
                 rng.choice(key, probs[row : row + 1]), rng.permutation(key, n)]  # fmt: skip
        scalar = rng.uniform(batch[row], n)
        assert torch.equal(whole[0][row], scalar)
        for w, a in zip(whole, alone):
            assert torch.equal(w[row], a[0])


def test_nothing_depends_on_the_global_generator():
    torch.manual_seed(1)
    first = rng.normal(keys(4), 3)
    torch.manual_seed(2)
    assert torch.equal(first, rng.normal(keys(4), 3))


@pytest.mark.parametrize(("rows", "n"), [(200_000, 1), (1, 200_000), (400, 500)])
def test_uniform(rows: int, n: int):
    u = rng.uniform(keys(rows, seed=5), n).flatten().double()
    assert float(u.min()) >= 0.0 and float(u.max()) < 1.0
    assert float(u.mean()) == pytest.approx(0.5, abs=5 * math.sqrt(1 / 12 / 200_000))
    assert stats.kstest(u.numpy(), "uniform").pvalue > 1e-4


def test_normal():
    z = rng.normal(keys(100_000, seed=6), 2).double()
    assert bool(z.isfinite().all())
    for column in z.T:
        assert stats.kstest(column.numpy(), "norm").pvalue > 1e-4
    assert float(z.var()) == pytest.approx(1.0, abs=0.02)
    assert abs(float((z[:, 0] * z[:, 1]).mean())) < 5 / math.sqrt(100_000), "the columns are correlated"


def test_exponential():
    x = rng.exponential(keys(100_000, seed=7), 1).flatten().numpy()
    assert stats.kstest(x, "expon").pvalue > 1e-4


def test_neighbouring_keys_are_uncorrelated():
    u = rng.uniform(keys(100_001, seed=8), 1).flatten().double() - 0.5
    assert abs(float((u[1:] * u[:-1]).mean())) * 12 < 5 / math.sqrt(100_000)


def test_integers_are_uniform():
    counts = rng.integers(keys(10_000, seed=9), 7, 7).flatten().bincount()
    assert len(counts) == 7
    assert stats.chisquare(counts.numpy()).pvalue > 1e-4


def test_choice_has_the_given_frequencies():
    probs = torch.tensor([0.5, 0.0, 0.2, 0.3])
    counts = rng.choice(keys(100_000, seed=10), probs.expand(100_000, 4)).bincount(minlength=4)
    assert counts[1] == 0
    kept = [0, 2, 3]
    assert stats.chisquare(counts[kept].numpy(), [50_000, 20_000, 30_000]).pvalue > 1e-4


def test_choice_never_leaves_the_range():
    probs = torch.full((1000, 3), 0.33333)  # sums to a little less than 1
    assert int(rng.choice(keys(1000), probs).max()) <= 2


def test_permutations_are_uniform():
    order = rng.permutation(keys(24_000, seed=11), 4)
    assert torch.equal(order.sort(-1).values, torch.arange(4).expand(24_000, 4))
    counts = (order * torch.tensor([64, 16, 4, 1])).sum(-1).bincount()
    counts = counts[counts > 0]
    assert len(counts) == 24
    assert stats.chisquare(counts.numpy()).pvalue > 1e-4
