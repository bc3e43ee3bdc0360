"""The losses of soft actor-critic (Haarnoja et al. 2018, "Soft Actor-Critic Algorithms and Applications", §5 and §6).

Each loss is a sum over steps, weighted by `weight` ``(…)``, which is 0 for padding. `Choices` hold one sampled action
(K = 1) or all K actions (SAC-Discrete, Christodoulou 2019). With temperature 0 the losses are those of TD3 (Fujimoto et
al. 2018). All functions check the shapes of their arguments, so that nothing broadcasts by accident.
"""

from __future__ import annotations

from torch import Tensor

from metarl.learning.soft import Choices


def soft_value(q: Tensor, choices: Choices, alpha: Tensor | float) -> Tensor:
    """Return the soft value ``(…)``, E[q - α log π], given the action values `q` ``(…, K)`` (eq. 3).

    Raises ValueError if the shapes differ.
    """
    _check(q=q, prob=choices.prob, log_prob=choices.log_prob)
    return (choices.prob * (q - alpha * choices.log_prob)).sum(-1)


def td_target(reward: Tensor, next_value: Tensor, following: Tensor, gamma: Tensor | float) -> Tensor:
    """Return the critics' target ``(T, B)``: r + γ V(next step) where `following` is 1, and r where it is 0.

    Raises ValueError if the shapes differ.
    """
    _check(reward=reward, next_value=next_value, following=following)
    return reward + gamma * following * next_value


def critic_loss(q: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return ½ (q - target)² summed over the N critics ``(N, …)``, a scalar (eq. 5).

    Raises ValueError if the shapes of `target`, `weight` and of one critic differ.
    """
    _check(q=q[0], target=target, weight=weight)
    return (0.5 * (q - target) ** 2 * weight).sum()


def actor_loss(q: Tensor, choices: Choices, alpha: Tensor | float, weight: Tensor) -> Tensor:
    """Return E[α log π - q], a scalar (eq. 9); `q` ``(…, K)`` holds the values of the policy's own `choices`.

    Raises ValueError if the shapes differ.
    """
    value = soft_value(q, choices, alpha)
    _check(value=value, weight=weight)
    return -(value * weight).sum()


def temperature_loss(log_alpha: Tensor, entropy: Tensor, target: Tensor | float, weight: Tensor) -> Tensor:
    """Return α · (entropy - target), a scalar (eq. 18); its descent raises α while the entropy is below the target.

    `entropy` ``(…)`` is that of the policy; no gradient flows into it. Raises ValueError if the shapes differ.
    """
    _check(entropy=entropy, weight=weight)
    return log_alpha.exp() * ((entropy.detach() - target) * weight).sum()


def _check(**tensors: Tensor) -> None:
    if len({tensor.shape for tensor in tensors.values()}) > 1:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
        raise ValueError(f"Shapes differ: {shapes}.")
