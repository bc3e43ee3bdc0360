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
    """VariBAD. A schedule is a number or points [[progress, value], …] joined by straight lines."""

    latent_size: int = option(5, at_least(1))
    """Dimensions of the latent task m, about which the belief is: a Gaussian with a diagonal covariance."""
    gru_size: int = option(64, at_least(1))
    """Units of the encoder's recurrent memory."""
    state_embed_size: int = option(16, at_least(0))
    """ReLU units between the observation and the encoder's memory; 0: the encoder does not see it."""
    action_embed_size: int = option(16, at_least(0))
    """ReLU units between the previous action and the encoder's memory; 0: the encoder does not see it."""
    reward_embed_size: int = option(16, at_least(0))
    """ReLU units between the previous reward (with the end of an episode) and the encoder's memory; 0: as above."""
    decode: tuple[str, ...] = option(("reward",), ONE_OF_THEM)
    """Things that m must explain, one or several of: reward, state (the next observation), and task (the task itself,
    which the learner is then told in training: task inference, Humplik et al. 2019)."""
    decoder_sizes: tuple[int, ...] = option((32, 32), at_least(1))
    """Units of the hidden layers of each decoder."""
    reward_likelihood: str = option("gaussian", one_of("gaussian", "bernoulli"))
    """The decoder's distribution of a reward: gaussian, of fixed variance ½ in units of the rewards' running size (a
    squared error), or bernoulli, which decodes only whether the reward is positive."""
    reward_head: str = option("shared", one_of("shared", "per_observation"))
    """Input of the reward's decoder next to m: shared (the observation, the action and the next observation), or
    per_observation (nothing: it has an output for each observation, and that of the next one counts; for observations
    within bounds, which are rounded to whole numbers, such as the cells of a grid)."""
    kl_weight: float = option(0.1, NOT_NEGATIVE)
    """Weight of the KL divergence of a belief from the one before it."""
    norm_latent: bool = True
    """Show policy and critic the belief's mean and log-variance standardised by running moments, as the published code
    does."""
    stop_gradient: bool = True
    """Train the encoder on the ELBO only. If false, PPO's loss teaches it as well."""
    vae_lr: Schedule = option(1e-3, between(0, 1))
    """Adam's learning rate of encoder and decoder."""
    vae_updates: int = option(3, at_least(0))
    """Steps of encoder and decoder on the ELBO in an iteration, after PPO's update."""
    vae_batch: int = option(25, at_least(1))
    """Trials of such a step, drawn from the buffer."""
    buffer_size: int = option(1000, at_least(1))
    """Trials that the buffer holds: the newest ones."""
    elbo_terms: int | None = option(None, at_least(1))
    """Draw so many prefixes of each trial for the ELBO, which saves memory on long trials; null: all."""
    decoded_steps: int | None = option(None, at_least(1))
    """Draw so many steps of each trial to be decoded from every prefix, past and future ones; null: all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.decode:
            raise ValueError(f"decode must hold one or several of {', '.join(DECODED)}, got none.")
        if not self.state_embed_size + self.action_embed_size + self.reward_embed_size:
            raise ValueError("state_embed_size, action_embed_size and reward_embed_size must not all be 0.")
