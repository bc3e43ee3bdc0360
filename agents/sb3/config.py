"""The configuration of SB3's agents; `metarl.agents.sb3.agent` lists which values give which baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from metarl.core.agent import AgentConfig, Schedule
from metarl.core.family import TaskFamily
from metarl.core.options import NOT_NEGATIVE, POSITIVE_FINITE, at_least, between, option


@dataclass
class PPOConfig(AgentConfig):
    """PPO from stable-baselines3 (Raffin et al. 2021). A schedule is a number, or points [[progress, value], …]."""

    agent_class: ClassVar = "metarl.agents.sb3.agent:SB3Agent"

    meta_batch_size: int = option(16, at_least(1))
    """Parallel environments in training; each draws a new task for every episode (recurrent: every trial)."""
    num_steps: int | None = option(None, at_least(1))
    """Steps of each environment per iteration; null: one episode (recurrent: one trial)."""
    recurrent: bool = False
    """Use RecurrentPPO from sb3-contrib on whole trials, with RL²'s inputs; if false, a policy without memory."""
    task_input: bool = False
    """Show the task to the policy: an oracle, for families without a scripted one."""
    fast_batch_size: int = option(20, at_least(1))
    """Episodes per task for each PPO update on it, in evaluations."""
    test_steps: int = option(0, at_least(0))
    """PPO updates on each task in evaluations, from the trained parameters (without training: from scratch)."""
    fast_lr: float | None = option(None, POSITIVE_FINITE)
    """Adam's learning rate for these updates; null: the initial `lr`."""
    hidden_sizes: tuple[int, ...] = option((64, 64), at_least(1))
    """Tanh units of the hidden layers of policy and critic, which are separate networks."""
    lstm_size: int = option(128, at_least(1))
    """Units of the LSTM that policy and critic share, if `recurrent`."""
    init_std: float = option(0.6, POSITIVE_FINITE)
    """Initial standard deviation of continuous actions, in units of half the action range."""
    reward_scale: float | None = option(None, POSITIVE_FINITE)
    """Factor on the rewards in training; null: 1 / (root mean square return of an episode of random actions), at most
    1. Without it, large returns would let the critic's gradient dominate under `max_grad_norm`."""
    lr: Schedule = option(3e-4, between(0, 1))
    """Adam's learning rate."""
    batch_size: int = option(64, at_least(2))
    """Steps per minibatch."""
    update_epochs: int = option(10, at_least(1))
    """Passes over the steps of an iteration."""
    gamma: float = option(0.99, between(0, 1))
    """Discount factor."""
    gae_lambda: float = option(0.95, between(0, 1))
    """λ of GAE, which trades bias against variance of the advantage estimates."""
    clip_coef: float = option(0.2, POSITIVE_FINITE)
    """PPO's clipping range of the likelihood ratio."""
    ent_coef: float = option(0.0, NOT_NEGATIVE)
    """Weight of the entropy bonus."""
    vf_coef: float = option(0.5, NOT_NEGATIVE)
    """Weight of the critic's squared error."""
    max_grad_norm: float = option(0.5, POSITIVE_FINITE)
    """Largest norm of the gradient; a larger gradient is scaled down."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.recurrent and (self.test_steps or self.task_input):
            raise ValueError("recurrent must be false with test_steps or task_input, since it adapts in its memory.")

    def steps_of(self, family: TaskFamily) -> int:
        """Return the steps of each environment per iteration.

        Raises ValueError if `batch_size` does not divide the steps of all environments.
        """
        whole = family.horizon * (family.episodes_per_trial if self.recurrent else 1)
        steps = whole if self.num_steps is None else self.num_steps
        if steps * self.meta_batch_size % self.batch_size:
            raise ValueError(
                f"batch_size must divide the {steps * self.meta_batch_size} steps of an iteration ({steps} of each of "
                f"{self.meta_batch_size} environments), got {self.batch_size}."
            )
        return steps
