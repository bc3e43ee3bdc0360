"""The configuration of VariBAD; `metarl.agents.varibad.agent` describes the algorithm."""

from __future__ import annotations

from dataclasses import dataclass

from metarl.agents.belief.config import PPOOnBeliefConfig
from metarl.core.agent import Schedule
from metarl.core.options import NOT_NEGATIVE, Rule, at_least, between, one_of, option

DECODED = ("reward", "state", "task")

ONE_OF_THEM = Rule(f"be {', '.join(DECODED[:-1])} or {DECODED[-1]}", lambda value: str(value) in DECODED)


@dataclass
class VariBADConfig(PPOOnBeliefConfig):
    """VariBAD. A schedule is a number, or points [[progress, value], …] joined by straight lines."""

    latent_size: int = option(5, at_least(1))
    """Dimensions of the latent task m; the belief about it is a Gaussian with a diagonal covariance."""
    gru_size: int = option(64, at_least(1))
    """Units of the encoder's recurrent memory."""
    state_embed_size: int = option(16, at_least(0))
    """ReLU units between the observation and the encoder's memory; 0: the encoder does not see it."""
    action_embed_size: int = option(16, at_least(0))
    """ReLU units between the previous action and the encoder's memory; 0: the encoder does not see it."""
    reward_embed_size: int = option(16, at_least(0))
    """ReLU units between the previous reward (with the end of an episode) and the encoder's memory; 0: the encoder does
    not see it."""
    decode: tuple[str, ...] = option(("reward",), ONE_OF_THEM)
    """Targets that the decoder predicts from m, one or several of: reward, state (the next observation), and task (the
    true task, which training then uses: task inference, Humplik et al. 2019)."""
    decoder_sizes: tuple[int, ...] = option((32, 32), at_least(1))
    """Units of the hidden layers of each decoder."""
    reward_likelihood: str = option("gaussian", one_of("gaussian", "bernoulli"))
    """The decoder's distribution of a reward: gaussian (with fixed variance ½ in units of the rewards' running size: a
    squared error), or bernoulli (which predicts only whether the reward is positive)."""
    reward_head: str = option("shared", one_of("shared", "per_observation"))
    """Input of the reward's decoder besides m: shared (the observation, the action and the next observation), or
    per_observation (nothing: the decoder has one output per observation, and the output of the next observation is the
    reward; only for bounded observations, which are rounded to whole numbers, such as the cells of a grid)."""
    kl_weight: float = option(0.1, NOT_NEGATIVE)
    """Weight of the KL divergence of a belief from the belief before it."""
    norm_latent: bool = True
    """Standardise the belief's mean and log-variance by running moments before policy and critic see them, as the
    published code does."""
    stop_gradient: bool = True
    """Train the encoder on the ELBO only. If false, PPO's loss trains it, too."""
    vae_lr: Schedule = option(1e-3, between(0, 1))
    """Adam's learning rate for encoder and decoder."""
    vae_updates: int = option(3, at_least(0))
    """Gradient steps on the ELBO per iteration, after PPO's update."""
    vae_batch: int = option(25, at_least(1))
    """Trials per gradient step on the ELBO, drawn from the buffer."""
    buffer_size: int = option(1000, at_least(1))
    """Capacity of the buffer in trials; the newest ones are kept."""
    elbo_terms: int | None = option(None, at_least(1))
    """Prefixes of each trial to draw for the ELBO, which saves memory on long trials; null: all."""
    decoded_steps: int | None = option(None, at_least(1))
    """Steps of each trial, past and future, to draw and decode from every prefix; null: all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.decode:
            raise ValueError(f"decode must contain at least one of {', '.join(DECODED)}, got none.")
        if not self.state_embed_size + self.action_embed_size + self.reward_embed_size:
            raise ValueError("state_embed_size, action_embed_size and reward_embed_size must not all be 0.")
