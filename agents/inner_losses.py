"""What MAML's gradient steps ascend: three objectives with one gradient, the policy gradient, and three Hessians.

Each is a function (log-probabilities of the actions under a policy, round) → ``(N, M)``, whose sum over a task's
steps, weighted by their advantages, is the objective. The first step needs its gradient alone, and that is the same
for all: Σ ∇log π · A. The meta-gradient goes through the step and needs its derivative, where they differ:

==================  ================================================================  ==========================
objective           its Hessian, as an expectation                                    source
==================  ================================================================  ==========================
`vpg`               not that of the return: blind to the step's own sampling          Williams 1992; Finn et al.
                                                                                      2017, section 4.2
`likelihood_ratio`  that of the return but for what an action owes to those before    Rothfuss et al. 2019
                    it in its episode: with one decision an episode exact             (ProMP), section 5
`dice`              that of the return; of more variance the longer the episode       Foerster et al. 2018
==================  ================================================================  ==========================

``python -m benchmarks.surrogate_hessians`` measures it. At the policy that acted, all ratios are 1. Elsewhere, in the
line search and in later epochs of PPO, they weigh the samples by how likely they still are.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from metarl.agents.rounds import Round


def vpg(log_prob: Tensor, round: Round) -> Tensor:
    """log π: the score function's objective (Williams 1992), as Finn et al. 2017 differentiate it."""
    return log_prob


def likelihood_ratio(log_prob: Tensor, round: Round) -> Tensor:
    """π / π_old of each step (Rothfuss et al. 2019, section 5, the low-variance curvature estimator)."""
    return torch.exp(log_prob - round.log_prob)


def dice(log_prob: Tensor, round: Round) -> Tensor:
    """☐(steps up to this one) - ☐(steps before it), ☐ being the ratio of a sequence of actions (Foerster et al. 2018).

    Summed with returns as advantages it is DiCE's Σ_t ☐(a_1 … a_t) r_t but for a constant; the difference is what lets
    a baseline in (Mao et al. 2019; Farquhar et al. 2019, Loaded DiCE). DiCE's ☐ divides by the value that the ratio has
    at the parameters themselves; here it divides by that of the policy that acted, which is the same where it acted.
    """
    log_ratio = (log_prob - round.log_prob) * (round.weight > 0)
    return torch.exp(_sum_before(log_ratio, round.time)) * torch.expm1(log_ratio)


def _sum_before(x: Tensor, time: Tensor) -> Tensor:
    """The sum over the earlier steps of the same episode; `x` and `time` are ``(N, M)``."""
    before = x.cumsum(1) - x
    start = torch.arange(x.shape[1], device=x.device) - time
    return before - before.gather(1, start)


INNER_LOSSES: dict[str, Callable[[Tensor, Round], Tensor]] = {
    "vpg": vpg,
    "likelihood_ratio": likelihood_ratio,
    "dice": dice,
}
