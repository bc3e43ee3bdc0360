"""The configuration of recurrent soft actor-critic; `metarl.agents.recurrent_sac.agent` describes the algorithm."""

from __future__ import annotations

from dataclasses import dataclass

from metarl.core.agent import AgentConfig, Schedule
from metarl.core.options import NOT_NEGATIVE, POSITIVE, SHARE, Rule, at_least, between, one_of, option
from metarl.learning.memories import MEMORIES


@dataclass
class RecurrentSACConfig(AgentConfig):
    """Recurrent SAC and TD3. A schedule is a number or points [[progress, value], …] joined by straight lines."""

    meta_batch_size: int = option(16, at_least(1))
    """Tasks, and so new trials, of one iteration."""
    algorithm: str = option("sac", one_of("sac", "td3"))
    """sac, which is SAC-Discrete for Discrete actions; or td3, a deterministic policy with noise, only for a Box."""
    memory: str = option("gru", one_of(*MEMORIES))
    """Memory of the actor, and another one of the critics: gru, lstm, rnn, transformer or fast_weights; none: no
    memory, but they see the last step; or reactive: they see only the observation."""
    hidden_size: int = option(128, at_least(1))
    """Units of each memory."""
    obs_embed_size: int = option(32, at_least(1))
    """ReLU units for the observation, between the inputs and each memory."""
    action_embed_size: int = option(16, at_least(1))
    """ReLU units for the previous action."""
    reward_embed_size: int = option(16, at_least(1))
    """ReLU units for the previous reward and the end of an episode."""
    head_sizes: tuple[int, ...] = option((128, 128), at_least(1))
    """Units of the hidden ReLU layers of the policy, and of those of each critic."""
    critic: str = option("history", one_of("history", "task"))
    """Input of the critics next to their memory: history (nothing more), or task (the true task, as in asymmetric
    actor-critic, Pinto et al. 2018; the policy never sees it, and acting does not need it)."""
    num_critics: int = option(2, at_least(2))
    """Critics' heads, which share a memory. With more than two the policy follows their mean (REDQ, Chen et al. 2021);
    with two their minimum."""
    target_critics: int = option(2, at_least(1))
    """A target is the minimum of this many critics, drawn anew at every gradient step."""
    policy_lr: Schedule = option(3e-4, between(0, 1))
    """Adam's learning rate of the policy's head."""
    q_lr: Schedule = option(3e-4, between(0, 1))
    """Adam's learning rate of the critics' heads."""
    memory_lr: Schedule = option(1e-4, between(0, 1))
    """Adam's learning rate of both memories and what is before them: smaller ones, since a small change of a memory
    changes all the later steps of a trial (RESeL, Luo et al. 2024)."""
    alpha_lr: Schedule = option(3e-4, between(0, 1))
    """Adam's learning rate of the temperature's logarithm."""
    init_alpha: float = option(0.1, POSITIVE)
    """Temperature at the start, in units of the rewards' running size per nat of entropy."""
    target_entropy: Schedule = option(-1.0, between(-100, 100))
    """Box: the entropy that the temperature aims at, in nats per coordinate of the action, whose range is [-1, 1]."""
    target_entropy_share: Schedule = option(0.3, between(0, 1))
    """Discrete: the entropy that the temperature aims at, as a share of that of the uniform policy."""
    gamma: Schedule = option(0.99, between(0, 1))
    """Discount factor of the trial, across the ends of its episodes."""
    bootstrap_end: bool = False
    """Add the value of the observation after the trial's last step to the target of that step, as the code of Ni et al.
    does; if not, the trial's end is a terminal."""
    tau: float = option(0.005, SHARE)
    """Share by which target networks move towards the others after every gradient step."""
    buffer_size: int = option(2000, at_least(1))
    """Trials that are kept for learning, the newest ones."""
    learning_starts: int = option(64, at_least(0))
    """Trials that are played with uniform random actions before the first gradient step."""
    random_repeat: float = option(1.0, Rule("be at least 1", lambda value: value >= 1))
    """Steps of an episode for which such an action stays, in the mean (Dabney et al. 2021); 1: each is a new one.
    Actions that stay reach what independent ones, whose effects cancel, hardly ever do."""
    updates_per_iteration: int = option(50, at_least(1))
    """Gradient steps of an iteration."""
    batch_size: int = option(32, at_least(1))
    """Trials of a gradient step. A new trial is replayed updates_per_iteration × batch_size / meta_batch_size times in
    the mean over its time in the buffer (less where chunk_length shows only a part of it)."""
    policy_frequency: int = option(1, at_least(1))
    """The policy and the temperature learn at every so many-th gradient step (TD3: 2)."""
    chunk_length: int | None = option(None, at_least(1))
    """A gradient step learns from this many successive steps of its trials, drawn anew; None: from whole trials."""
    burn_in: int = option(40, at_least(0))
    """With chunk_length: steps before the chunk that fill the memories, without gradient (R2D2, Kapturowski et al.
    2019); as many as a trial has: the memories are those of the whole trial."""
    max_grad_norm: float = option(10.0, POSITIVE)
    """The gradients of memory and head, of actor and critics, are each scaled down to at most this norm."""
    norm_obs: bool = False
    """Scale observations by the mean and standard deviation of those seen so far, not by the space's bounds.
    Images keep their bounds."""
    exploration_noise: float = option(0.1, NOT_NEGATIVE)
    """td3: standard deviation of the noise on the actions that are played, in units of half the action range."""
    policy_noise: float = option(0.2, NOT_NEGATIVE)
    """td3: standard deviation of the noise on the actions of a target."""
    noise_clip: float = option(0.5, NOT_NEGATIVE)
    """td3: that noise is cut off at ± this."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target_critics > self.num_critics:
            raise ValueError(
                f"target_critics must not exceed num_critics = {self.num_critics}, got {self.target_critics}."
            )
        if not self.head_sizes:
            raise ValueError("head_sizes must have at least one layer, such as [128].")
        if self.memory == "transformer" and self.chunk_length is not None:
            raise ValueError(
                "chunk_length must be null with memory 'transformer', which counts steps from the trial's start."
            )
        if self.buffer_size < self.meta_batch_size:
            raise ValueError(
                f"buffer_size must be at least meta_batch_size = {self.meta_batch_size}, got {self.buffer_size}."
            )
