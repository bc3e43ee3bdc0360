"""Addressed randomness: a draw is a function of its address, never of previous draws.

A *key* is an int64 tensor of any shape. ``fold`` derives a new key from a key and some data (a seed, a row, a step), so
the address of a draw is a chain of folds::

    k = fold(fold(key(seed), row), step)      # rows and steps may be tensors; shapes broadcast
    u = uniform(k, 3)                         # k.shape + (3,) numbers in [0, 1)

Therefore a row of a batch equals a batch of one bit for bit, two shards equal one batch, evaluations of agents are
paired, and a resumed run has no generator state to restore. Everything is integer tensor arithmetic, so CPU and GPU
give the same keys and the same uniform numbers.

The mixing function is the finaliser of SplitMix64 (Steele, Lea & Flood 2014), which passes the usual statistical test
batteries. It is not a cryptographic generator.
"""

from __future__ import annotations

import functools
import math
import operator

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)  # 2^64 / golden ratio, as a signed 64-bit integer


_MULTIPLY_1 = 0xBF58476D1CE4E5B9 - (1 << 64)


_MULTIPLY_2 = 0x94D049BB133111EB - (1 << 64)


def _mix(z: Tensor) -> Tensor:
    """Apply SplitMix64's finaliser, a bijection of 64-bit integers in which every output bit depends on all inputs."""
    # `>>` on int64 copies the sign bit; the masks turn it into the logical shift of the generator's definition.
    z = (z ^ ((z >> 30) & 0x3FFFFFFFF)) * _MULTIPLY_1
    z = (z ^ ((z >> 27) & 0x1FFFFFFFFF)) * _MULTIPLY_2
    return z ^ ((z >> 31) & 0x1FFFFFFFF)


def _mix_int(data: int) -> int:
    """Return ``_mix(tensor(data) + _GOLDEN)`` for a Python integer, without making a tensor."""
    unsigned = (1 << 64) - 1
    z = (data + _GOLDEN) & unsigned
    z = ((z ^ (z >> 30)) * _MULTIPLY_1) & unsigned
    z = ((z ^ (z >> 27)) * _MULTIPLY_2) & unsigned
    z ^= z >> 31
    return z - (1 << 64) if z >> 63 else z


def key(seed: int, device: torch.device | str | None = None) -> Tensor:
    """Return the root key of a seed: a scalar int64 tensor on `device`. Raises ValueError outside 0 ≤ seed < 2^63."""
    try:
        whole = operator.index(seed)
    except TypeError:
        raise ValueError(f"A seed must be an integer from 0 to 2^63 - 1, got {seed!r:.60}.") from None
    if not 0 <= whole < 2**63:
        raise ValueError(
            f"A seed must be an integer from 0 to 2^63 - 1, got {whole if abs(whole) < 2**99 else 'a larger one'}."
        )
    # Mix once more than `fold` mixes its data; otherwise fold(key(a), b) would equal fold(key(b), a).
    return _mix(_mix(torch.tensor(whole, dtype=torch.int64, device=device) + _GOLDEN) + _GOLDEN)


def check_is_key(given: object) -> None:
    """Raise ValueError unless the argument is a key; a seed is not."""
    if not isinstance(given, Tensor) or given.dtype != torch.int64:
        raise ValueError(f"A key is needed, such as metarl.core.rng.key(seed) returns, got {given!r:.60}.")


def fold(key: Tensor, data: Tensor | int) -> Tensor:
    """Derive a new key from `key` and integer `data`; shapes broadcast. Distinct data give distinct keys."""
    if isinstance(key, int):  # Python integers would work below, but without 64-bit overflow
        check_is_key(key)
    mixed = _mix_int(data) if isinstance(data, int) else _mix(data + _GOLDEN)
    return _mix(key ^ mixed)


@functools.lru_cache(maxsize=64)
def _first(n: int, device: torch.device) -> Tensor:
    """Return what `fold` mixes into a key for the data 0 … n - 1; cached, as it takes a third of the time of a draw."""
    return torch.tensor([_mix_int(data) for data in range(n)], dtype=torch.int64, device=device)


def uniform(key: Tensor, n: int) -> Tensor:
    """Draw uniform float32 numbers in [0, 1) with 24 random bits, shape ``key.shape + (n,)``."""
    bits = _mix(key[..., None] ^ _first(n, key.device))
    return ((bits >> 40) & 0xFFFFFF).to(torch.float32) * (1.0 / (1 << 24))


def normal(key: Tensor, n: int) -> Tensor:
    """Draw standard normal float32 numbers, shape ``key.shape + (n,)``, by the Box–Muller transform (1958)."""
    radius, angle = uniform(key, 2 * n).chunk(2, dim=-1)
    return torch.sqrt(-2.0 * torch.log1p(-radius)) * torch.cos(2.0 * math.pi * angle)


def exponential(key: Tensor, n: int) -> Tensor:
    """Draw exponential float32 numbers with rate 1, shape ``key.shape + (n,)``."""
    return -torch.log1p(-uniform(key, n))


def integers(key: Tensor, n: int, high: int) -> Tensor:
    """Draw int64 numbers, uniform over 0 … high - 1 (high ≤ 2^24), shape ``key.shape + (n,)``."""
    return (uniform(key, n) * high).to(torch.int64).clamp_max(high - 1)


def choice(key: Tensor, probs: Tensor) -> Tensor:
    """Draw one index per key, int64 ``key.shape``, with probabilities `probs` ``key.shape + (n,)`` that sum to 1."""
    u = uniform(key, 1)
    return (probs.cumsum(-1) <= u).sum(-1).clamp_max(probs.shape[-1] - 1)


def permutation(key: Tensor, n: int) -> Tensor:
    """Draw a permutation of 0 … n - 1 per key: int64, shape ``key.shape + (n,)``."""
    bits = fold(key[..., None], torch.arange(n, device=key.device))
    return bits.argsort(-1)
