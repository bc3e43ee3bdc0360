"""Do the surrogate losses of MAML's inner step have the right second derivatives? Measured where the truth is exact.

``python -m benchmarks.surrogate_hessians [--policies 50] [--samples 100000]``. On a bandit of three arms the expected
reward J(θ) = Σ π_θ(a) r(a) and its Hessian are sums of three terms. MAML's outer gradient goes through the Hessian of
the loss that its inner step descends on (Finn et al. 2017), so an error there is an error of the meta-gradient. Losses,
with the advantage A(a) = r(a) - J, each as an expectation over arms and from samples:

- `vpg`: E[log π(a) A(a)], what Finn et al. differentiate. Its gradient is right and its Hessian is not.
- `likelihood_ratio`: E[π(a) / π_old(a) A(a)] (Rothfuss et al. 2019, ProMP). With a single decision DiCE (Foerster et
  al. 2018) is the same.

The error is ‖H - H_exact‖ / ‖H_exact‖ (Frobenius), a mean over random policies: softmax of the parameters themselves
(linear), or a perceptron with one hidden layer of 8 tanh units.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

Policy = Callable[[Tensor], Tensor]  # parameters → log-probabilities of the three arms

ARMS, HIDDEN = 3, 8
SIZES = {"linear": ARMS, "one hidden layer": 2 * HIDDEN + ARMS * HIDDEN + ARMS}
"""Parameters of each policy."""


def linear(theta: Tensor) -> Tensor:
    return torch.log_softmax(theta, -1)


def perceptron(theta: Tensor) -> Tensor:
    """The input is always 1."""
    first, bias, last, out = theta.split([HIDDEN, HIDDEN, ARMS * HIDDEN, ARMS])
    return torch.log_softmax(last.reshape(ARMS, HIDDEN) @ torch.tanh(first + bias) + out, -1)


POLICIES: dict[str, Policy] = {"linear": linear, "one hidden layer": perceptron}


def vpg(log_prob: Tensor, advantage: Tensor) -> Tensor:
    return log_prob * advantage


def likelihood_ratio(log_prob: Tensor, advantage: Tensor) -> Tensor:
    return (log_prob - log_prob.detach()).exp() * advantage


LOSSES = {"vpg": vpg, "likelihood_ratio": likelihood_ratio}


def exact(policy: Policy, theta: Tensor, reward: Tensor) -> Tensor:
    """The Hessian of the expected reward."""
    return torch.autograd.functional.hessian(lambda t: (policy(t).exp() * reward).sum(), theta)  # type: ignore[return-value]


def of_loss(policy: Policy, theta: Tensor, reward: Tensor, loss: str, weight: Tensor) -> Tensor:
    """The Hessian of a surrogate; `weight` (3,) are the arms' probabilities, or how often each was drawn."""
    advantage = reward - (policy(theta).exp() * reward).sum()

    def surrogate(t: Tensor) -> Tensor:
        return (weight * LOSSES[loss](policy(t), advantage)).sum()

    return torch.autograd.functional.hessian(surrogate, theta)  # type: ignore[return-value]


def errors(name: str, loss: str, policies: int = 50, samples: int | None = None, seed: int = 0) -> Tensor:
    """Relative errors ``(policies,)`` of a loss's Hessian: expected over arms, or from so many sampled arms."""
    generator = torch.Generator().manual_seed(seed)
    policy, found = POLICIES[name], []
    for _ in range(policies):
        theta = torch.randn(SIZES[name], generator=generator, dtype=torch.float64)
        reward = torch.rand(ARMS, generator=generator, dtype=torch.float64)
        weight = policy(theta).exp()
        if samples is not None:
            drawn = torch.multinomial(weight, samples, replacement=True, generator=generator)
            weight = drawn.bincount(minlength=ARMS).double() / samples
        truth = exact(policy, theta, reward)
        found.append((of_loss(policy, theta, reward, loss, weight) - truth).norm() / truth.norm())
    return torch.stack(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policies", type=int, default=50)
    parser.add_argument("--samples", type=int, default=100_000)
    args = parser.parse_args()
    print(f"| policy | loss | expected over arms | from {args.samples:,} samples |\n|---|---|---:|---:|")
    for name in POLICIES:
        for loss in LOSSES:
            cells = [errors(name, loss, args.policies, samples) for samples in (None, args.samples)]
            row = " | ".join(f"{float(cell.mean()):.3g} (largest {float(cell.max()):.3g})" for cell in cells)
            print(f"| {name} | `{loss}` | {row} |")


if __name__ == "__main__":
    main()
