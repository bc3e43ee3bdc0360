"""The configuration of PEARL; `metarl.agents.pearl.agent` describes the algorithm."""

from __future__ import annotations

from dataclasses import dataclass

from metarl.core.agent import AgentConfig, Schedule
from metarl.core.options import NOT_NEGATIVE, POSITIVE, SHARE, at_least, between, option


@dataclass
class PEARLConfig(AgentConfig):
    """PEARL. A schedule is a number or points [[progress, value], …] joined by straight lines."""

    meta_batch_size: int = option(16, at_least(1))
    """Tasks, and so new trials, of one iteration."""
    rounds: int = option(3, at_least(2))
    """Episodes of a trial; the agent adapts after each of them. An evaluation may play more or fewer."""
    prior_rounds: int = option(1, at_least(1))
    """The first episodes of a trial act on a latent from the prior, to explore, and later ones on the posterior."""
    latent_size: int = option(5, at_least(1))
    """Dimensions of the latent task."""
    encoder_sizes: tuple[int, ...] = option((128, 128), at_least(1))
    """Units of the hidden ReLU layers of the encoder."""
    hidden_sizes: tuple[int, ...] = option((128, 128), at_least(1))
    """Units of the hidden ReLU layers of the policy, and of those of each critic."""
    next_obs: bool = False
    """The encoder sees the next observation of a transition, too: for tasks that change what actions do."""
    kl_weight: float = option(0.1, NOT_NEGATIVE)
    """Weight of the KL divergence of the posterior from the prior, next to losses in units of the rewards' size."""
    context_size: int = option(64, at_least(1))
    """Transitions of a task from which a gradient step infers its latent (the paper: 64 to 1024)."""
    context_episodes: int | None = option(None, at_least(1))
    """Newest episodes of a task from which these are drawn; None: as many as `rounds`, those of its last trial."""
    task_batch: int = option(8, at_least(1))
    """Tasks of a gradient step, drawn from those in the buffer."""
    batch_size: int = option(128, at_least(1))
    """Transitions of each of these tasks for actor and critics, from all of its episodes in the buffer."""
    updates_per_iteration: int = option(50, at_least(1))
    """Gradient steps of an iteration."""
    encoder_lr: Schedule = option(3e-4, between(0, 1))
    """Adam's learning rate of the encoder."""
    policy_lr: Schedule = option(3e-4, between(0, 1))
    """Adam's learning rate of the policy."""
    q_lr: Schedule = option(3e-4, between(0, 1))
    """Adam's learning rate of the critics."""
    alpha_lr: Schedule = option(3e-4, between(0, 1))
    """Adam's learning rate of the temperature's logarithm."""
    init_alpha: float = option(0.1, POSITIVE)
    """Temperature at the start, in units of the rewards' running size per nat of entropy."""
    target_entropy: Schedule = option(-1.0, between(-100, 100))
    """Box: the entropy that the temperature aims at, in nats per coordinate of the action, whose range is [-1, 1]."""
    target_entropy_share: Schedule = option(0.3, between(0, 1))
    """Discrete: the entropy that the temperature aims at, as a share of that of the uniform policy."""
    gamma: Schedule = option(0.99, between(0, 1))
    """Discount factor of an episode."""
    tau: float = option(0.005, SHARE)
    """Share by which the target critics move towards the critics after every gradient step."""
    buffer_size: int = option(4000, at_least(1))
    """Episodes that are kept for learning, the newest ones of all tasks."""
    learning_starts: int = option(32, at_least(0))
    """Trials that are played before the first gradient step."""
    max_grad_norm: float = option(10.0, POSITIVE)
    """The gradients of encoder, policy and critics are each scaled down to at most this norm."""
    norm_obs: bool = False
    """Scale observations by the mean and standard deviation of those seen so far, not by the space's bounds."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("encoder_sizes", "hidden_sizes"):
            if not getattr(self, name):
                raise ValueError(f"{name} must have at least one layer, such as [128].")
        if self.prior_rounds >= self.rounds:
            raise ValueError(
                f"prior_rounds must be below rounds = {self.rounds}, so that the posterior is used, got "
                f"{self.prior_rounds}."
            )
        if self.buffer_size < self.meta_batch_size * self.rounds:
            raise ValueError(
                f"buffer_size must be at least meta_batch_size × rounds = {self.meta_batch_size * self.rounds}, got "
                f"{self.buffer_size}."
            )
