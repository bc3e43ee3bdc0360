"""The configuration of PEARL; `metarl.agents.pearl.agent` describes the algorithm."""

from __future__ import annotations

from dataclasses import dataclass

from metarl.core.agent import AgentConfig, Schedule
from metarl.core.options import NOT_NEGATIVE, POSITIVE, POSITIVE_FINITE, SHARE, at_least, between, one_of, option


@dataclass
class PEARLConfig(AgentConfig):
    """PEARL. A schedule is a number, or points [[progress, value], …] joined by straight lines."""

    meta_batch_size: int = option(16, at_least(1))
    """Tasks, and hence new trials, per iteration."""
    rounds: int = option(3, at_least(2))
    """Episodes per trial; the agent adapts after each of them. An evaluation may play more or fewer."""
    prior_rounds: int = option(1, at_least(1))
    """First episodes of a trial that act on a latent from the prior, to explore; later ones act on the posterior. If
    there are prototypes, that of a random training task replaces the draw from the prior."""
    latent_size: int = option(5, at_least(1))
    """Dimensions of the latent task."""
    encoder_sizes: tuple[int, ...] = option((128, 128), at_least(1))
    """Units of the hidden ReLU layers of the encoder."""
    hidden_sizes: tuple[int, ...] = option((128, 128), at_least(1))
    """Units of the hidden ReLU layers of the policy and of each critic."""
    next_obs: bool = False
    """Also show the encoder the next observation of a transition, for tasks that differ in their dynamics."""
    embedding_loss: str = option("critic", one_of("critic", "contrastive", "siamese"))
    """Loss that trains the encoder. critic: the critics' loss and the KL divergence, as in PEARL. The others use only
    pairs of contexts, which they pull together if they are of one task, and the latent is the posterior's mean:
    contrastive repels contexts of different tasks by an inverse power of their distance (FOCAL, Li et al. 2021);
    siamese pushes them apart up to a margin (Hadsell et al. 2006)."""
    kl_weight: float = option(0.1, NOT_NEGATIVE)
    """critic: weight of the KL divergence of the posterior from the prior, relative to losses in units of the rewards'
    size."""
    distance: str = option("euclidean", one_of("euclidean", "cosine"))
    """Distance of two embeddings, for these losses and for `nearest`: euclidean, or cosine (between their directions,
    d² = 2 (1 - cos))."""
    repulsion: float = option(1.0, POSITIVE_FINITE)
    """contrastive: weight of the repulsion."""
    power: float = option(2.0, between(1, 8))
    """contrastive: power n of the distance in the repulsion 1 / (dⁿ + 0.1)."""
    margin: float = option(1.0, POSITIVE_FINITE)
    """siamese: distance beyond which contexts of different tasks no longer repel each other."""
    inference: str = option("posterior", one_of("posterior", "nearest"))
    """Latent of the policy after the first rounds: posterior (inferred from the trial), or nearest (the prototype
    nearest to the posterior's mean, as a classical reference)."""
    prototypes: int = option(100, at_least(1))
    """Largest number of training tasks whose embeddings are kept as prototypes, renewed in every iteration; random ones
    if the buffer has more tasks. There are none with `critic` and `posterior`."""
    context_size: int = option(64, at_least(1))
    """Transitions of a task from which a gradient step infers its latent (the paper: 64 to 1024)."""
    context_episodes: int | None = option(None, at_least(1))
    """Newest episodes of a task from which these are drawn; null: as many as `rounds`, those of its last trial."""
    task_batch: int = option(8, at_least(1))
    """Tasks per gradient step, drawn from those in the buffer."""
    batch_size: int = option(128, at_least(1))
    """Transitions of each of these tasks for actor and critics, from all of its episodes in the buffer."""
    updates_per_iteration: int = option(50, at_least(1))
    """Gradient steps per iteration."""
    encoder_lr: Schedule = option(3e-4, between(0, 1))
    """Adam's learning rate for the encoder."""
    policy_lr: Schedule = option(3e-4, between(0, 1))
    """Adam's learning rate for the policy."""
    q_lr: Schedule = option(3e-4, between(0, 1))
    """Adam's learning rate for the critics."""
    alpha_lr: Schedule = option(3e-4, between(0, 1))
    """Adam's learning rate for the logarithm of the temperature."""
    init_alpha: float = option(0.1, POSITIVE)
    """Initial temperature, in units of the rewards' running size per nat of entropy."""
    target_entropy: Schedule = option(-1.0, between(-100, 100))
    """Box actions: target entropy, in nats per dimension of the action, whose range is [-1, 1]."""
    target_entropy_share: Schedule = option(0.3, between(0, 1))
    """Discrete actions: target entropy, as a fraction of the entropy of the uniform policy."""
    gamma: Schedule = option(0.99, between(0, 1))
    """Discount factor of an episode."""
    tau: float = option(0.005, SHARE)
    """Fraction by which the target critics move towards the critics after every gradient step."""
    buffer_size: int = option(4000, at_least(1))
    """Capacity of the buffer in episodes; the newest ones of all tasks are kept."""
    learning_starts: int = option(32, at_least(0))
    """Trials to play before the first gradient step."""
    max_grad_norm: float = option(10.0, POSITIVE)
    """Largest norm of each gradient, of encoder, policy and critics; larger gradients are scaled down."""
    norm_obs: bool = False
    """Normalise observations by the mean and standard deviation of those seen so far, not by the space's bounds."""

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
        self._check_metric()

    def _check_metric(self) -> None:
        """Raise ValueError if the options of distances are incompatible."""
        if self.by_distance and self.task_batch < 2:
            raise ValueError(
                f"task_batch must be at least 2 with embedding_loss {self.embedding_loss!r}, which compares tasks, got "
                f"{self.task_batch}."
            )
        if self.distance == "cosine" and self.latent_size < 2:
            raise ValueError("latent_size must be at least 2 with distance 'cosine': one number has no direction.")
        if self.embedding_loss == "siamese" and self.distance == "cosine" and self.margin > 2.0:
            raise ValueError(f"margin must be at most 2, the largest distance, with 'cosine', got {self.margin}.")

    @property
    def by_distance(self) -> bool:
        """True if the encoder is trained on distances of contexts, not on the critics' loss."""
        return self.embedding_loss != "critic"

    @property
    def keeps_prototypes(self) -> bool:
        """True if embeddings of training tasks are kept as prototypes."""
        return self.by_distance or self.inference == "nearest"

    @property
    def title(self) -> str:
        """The variant's name in tables and figures."""
        parts = [self.embedding_loss] * self.by_distance + ["nearest task"] * (self.inference == "nearest")
        return f"PEARL ({', '.join(parts)})" if parts else "PEARL"
