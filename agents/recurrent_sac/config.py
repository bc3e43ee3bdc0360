"""The configuration of recurrent soft actor-critic; `metarl.agents.recurrent_sac.agent` describes the algorithm."""

from __future__ import annotations

from dataclasses import dataclass

from metarl.core.agent import AgentConfig, Schedule
from metarl.core.options import NOT_NEGATIVE, POSITIVE, SHARE, Rule, at_least, between, one_of, option
from metarl.learning.memories import MEMORIES


@dataclass
class RecurrentSACConfig(AgentConfig):
    """Recurrent SAC and TD3. A schedule is a number, or points [[progress, value], …] joined by straight lines."""

    meta_batch_size: int = option(16, at_least(1))
    """Tasks, and hence new trials, per iteration."""
    algorithm: str = option("sac", one_of("sac", "td3"))
    """sac (SAC-Discrete for Discrete actions), or td3 (a deterministic policy with noise, only for Box actions)."""
    memory: str = option("gru", one_of(*MEMORIES))
    """Memory of the actor, and a separate one of the critics: gru, lstm, rnn, transformer or fast_weights; none (no
    memory, but they still see the previous action, reward and end of an episode); or reactive (they see only the
    observation)."""
    hidden_size: int = option(128, at_least(1))
    """Units of each memory."""
    obs_embed_size: int = option(32, at_least(1))
    """ReLU units for the observation, between the inputs and each memory."""
    action_embed_size: int = option(16, at_least(1))
    """ReLU units for the previous action."""
    reward_embed_size: int = option(16, at_least(1))
    """ReLU units for the previous reward and the end of an episode."""
    head_sizes: tuple[int, ...] = option((128, 128), at_least(1))
    """Units of the hidden ReLU layers of the policy and of each critic."""
    critic: str = option("history", one_of("history", "task"))
    """Additional input of the critics besides their memory: history (nothing more), or task (the true task, as in
    asymmetric actor-critic, Pinto et al. 2018; the policy never sees it, and acting does not need it)."""
    num_critics: int = option(2, at_least(2))
    """Number of critics, which share a memory. The policy maximises the minimum of two critics, or the mean of more
    (REDQ, Chen et al. 2021); with td3 the first critic."""
    target_critics: int = option(2, at_least(1))
    """Critics whose minimum is the target, drawn anew at every gradient step."""
    policy_lr: Schedule = option(3e-4, between(0, 1))
    """Adam's learning rate for the policy's head."""
    q_lr: Schedule = option(3e-4, between(0, 1))
    """Adam's learning rate for the critics' heads."""
    memory_lr: Schedule = option(1e-4, between(0, 1))
    """Adam's learning rate for both memories and their embeddings: smaller, because a small change of a memory changes
    all later steps of a trial (RESeL, Luo et al. 2024)."""
    alpha_lr: Schedule = option(3e-4, between(0, 1))
    """Adam's learning rate for the logarithm of the temperature."""
    init_alpha: float = option(0.1, POSITIVE)
    """Initial temperature, in units of the rewards' running size per nat of entropy."""
    target_entropy: Schedule = option(-1.0, between(-100, 100))
    """Box actions: target entropy, in nats per dimension of the action, whose range is [-1, 1]."""
    target_entropy_share: Schedule = option(0.3, between(0, 1))
    """Discrete actions: target entropy, as a fraction of the entropy of the uniform policy."""
    gamma: Schedule = option(0.99, between(0, 1))
    """Discount factor of the trial, across the ends of its episodes."""
    bootstrap_end: bool = False
    """Bootstrap at the end of the trial from the value of its last observation, as the code of Ni et al. does; if
    false, the end of the trial is a terminal."""
    tau: float = option(0.005, SHARE)
    """Fraction by which the target networks move towards the online networks after every gradient step."""
    buffer_size: int = option(2000, at_least(1))
    """Capacity of the buffer in trials; the newest ones are kept."""
    learning_starts: int = option(64, at_least(0))
    """Trials to play with uniformly random actions before the first gradient step."""
    random_repeat: float = option(1.0, Rule("be at least 1", lambda value: value >= 1))
    """Mean number of steps for which a random action is repeated (Dabney et al. 2021); 1: a new action at every step.
    Repeated actions reach states that independent ones, whose effects cancel, hardly ever reach."""
    updates_per_iteration: int = option(50, at_least(1))
    """Gradient steps per iteration."""
    batch_size: int = option(32, at_least(1))
    """Trials per gradient step. On average a trial is replayed updates_per_iteration × batch_size / meta_batch_size
    times while it is in the buffer (less where chunk_length replays only part of it)."""
    policy_frequency: int = option(1, at_least(1))
    """Gradient steps of the critics per step of the policy and the temperature (TD3: 2)."""
    chunk_length: int | None = option(None, at_least(1))
    """Consecutive steps of its trials from which a gradient step learns, drawn anew each time; null: whole trials."""
    burn_in: int = option(40, at_least(0))
    """Steps before the chunk of chunk_length that warm up the memories, without gradient (R2D2, Kapturowski et al.
    2019); with as many as a trial has, the memories are those of the whole trial."""
    max_grad_norm: float = option(10.0, POSITIVE)
    """Largest norm of each gradient, of memory and head, of actor and critics; larger gradients are scaled down."""
    norm_obs: bool = False
    """Normalise observations by the mean and standard deviation of those seen so far, not by the space's bounds. Images
    are always scaled by their bounds."""
    exploration_noise: float = option(0.1, NOT_NEGATIVE)
    """td3: standard deviation of the noise on played actions, in units of half the action range."""
    policy_noise: float = option(0.2, NOT_NEGATIVE)
    """td3: standard deviation of the noise on target actions, in the same units."""
    noise_clip: float = option(0.5, NOT_NEGATIVE)
    """td3: bound on the magnitude of that noise."""

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
