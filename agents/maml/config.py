"""The configuration of MAML; `metarl.agents.maml.agent` lists which values give which variant."""

from __future__ import annotations

from dataclasses import dataclass

from metarl.core.agent import AgentConfig, Schedule
from metarl.core.options import (
    FRACTION,
    NOT_NEGATIVE,
    POSITIVE_FINITE,
    SHARE,
    Part,
    at_least,
    between,
    one_of,
    option,
    part,
)
from metarl.learning.nets import ACTIVATIONS


@dataclass(frozen=True)
class TRPOStep(Part):
    """A natural-gradient step within a bound on the KL divergence (Schulman et al. 2015)."""

    max_kl: float = option(0.01, POSITIVE_FINITE)
    """Bound on the mean KL divergence between the policies before and after the outer step."""
    trust: str = option("adapted", one_of("adapted", "all"))
    """Policies whose divergence `max_kl` bounds: adapted (after the gradient steps), or all (also before each of them).
    Choose all if adapted policies are nearly deterministic: they hardly change even if the initial policy drifts
    far."""
    cg_iters: int = option(10, at_least(1))
    """Iterations of conjugate gradients."""
    cg_damping: float = option(1e-5, NOT_NEGATIVE)
    """Damping added to the diagonal of the Fisher matrix."""
    ls_max_steps: int = option(15, at_least(1))
    """Largest number of step sizes that the line search tries."""
    ls_backtrack_ratio: float = option(0.8, FRACTION)
    """Ratio of each step size of the line search to the one before it."""
    fisher_share: float | None = option(None, SHARE)
    """Fraction of each task's trajectories from which Fisher products are estimated; null: enough for 10,000 steps over
    all tasks (all trajectories if there are fewer)."""


@dataclass(frozen=True)
class PPOStep(Part):
    """Adam on the clipped surrogate (Schulman et al. 2017)."""

    lr: Schedule = option(1e-3, between(0, 1))
    """Adam's learning rate."""
    update_epochs: int = option(5, at_least(1))
    """Passes over the batch per iteration."""
    num_minibatches: int = option(1, at_least(1))
    """Minibatches of a pass; each holds some of the tasks."""
    clip_coef: float = option(0.2, POSITIVE_FINITE)
    """Clipping range of the likelihood ratio of the adapted policies."""
    inner_kl_coef: float = option(0.0, NOT_NEGATIVE)
    """Initial weight of a penalty on the KL divergence of the policies before each gradient step (ProMP); 0: none."""
    inner_kl_target: float = option(0.01, POSITIVE_FINITE)
    """Target of that KL divergence: the weight doubles (halves) when the KL is more than 1.5 times above (below) it."""
    max_grad_norm: float = option(0.5, POSITIVE_FINITE)
    """The meta-gradient is scaled down to at most this norm."""


@dataclass(frozen=True)
class SupervisedStep(Part):
    """Adam on the supervised loss after adaptation (Finn et al. 2017, algorithm 2)."""

    lr: Schedule = option(1e-3, between(0, 1))
    """Adam's learning rate."""
    update_epochs: int = option(1, at_least(1))
    """Passes over the batch per iteration."""
    num_minibatches: int = option(1, at_least(1))
    """Minibatches of a pass; each holds some of the tasks."""
    max_grad_norm: float = option(10.0, POSITIVE_FINITE)
    """The meta-gradient is scaled down to at most this norm."""


@dataclass(frozen=True)
class ReptileStep(Part):
    """A step towards the mean of the adapted parameters (Nichol et al. 2018)."""

    lr: Schedule = option(1e-3, between(0, 1))
    """Fraction of the distance to that mean that a step covers."""


@dataclass
class MAMLConfig(AgentConfig):
    """MAML with policy gradients, and its variants. A schedule is a number, or points [[progress, value], …].

    The policy is an MLP. A recurrent policy would need second derivatives through every step of its memory; use RL² to
    adapt through a memory.
    """

    meta_batch_size: int = option(20, at_least(1))
    """Tasks per iteration."""
    hidden_sizes: tuple[int, ...] = option((64, 64), at_least(1))
    """Units of the hidden layers."""
    activation: str = option("tanh", one_of(*ACTIVATIONS))
    """Activation function of the hidden layers: tanh, relu, elu or silu."""
    init_std: float = option(1.0, POSITIVE_FINITE)
    """Initial standard deviation of continuous actions, in units of half the action range."""
    min_std: float = option(0.01, POSITIVE_FINITE)
    """Lower bound of the standard deviation, in the same units."""
    obs_unit: float | None = option(None, POSITIVE_FINITE)
    """Divisor of the observations; null: half the range of a bounded space."""
    norm_obs: bool = False
    """Normalise observations by the mean and standard deviation of those seen so far, not by the space's bounds."""
    fast_batch_size: int = option(20, at_least(1))
    """Trajectories per task for each gradient step."""
    test_fast_batch_size: int | None = option(None, at_least(1))
    """Trajectories per task for each gradient step in evaluations; null: as in training."""
    inner_steps: int = option(1, at_least(1))
    """Gradient steps on a task in training."""
    test_steps: int = option(3, at_least(1))
    """Gradient steps on a task in evaluations."""
    inner_loss: str = option("vpg", one_of("vpg", "likelihood_ratio", "dice", "supervised"))
    """Objective of the gradient steps. The first three have the same gradient but different Hessians, which the
    meta-gradient needs. vpg: log-likelihoods weighted by advantages (Finn et al. 2017), whose Hessian is not that of
    the return; likelihood_ratio (ProMP, Rothfuss et al. 2019): the return's Hessian without the terms between actions
    of one episode; dice (Foerster et al. 2018): the return's Hessian, with more variance. supervised: instead of the
    return, the squared error of the mean action or the cross-entropy, for families that know the correct actions (Finn
    et al. 2017, section 5.1). It does not train the standard deviation of actions: make `init_std` and `min_std` small,
    and evaluate classes with --greedy."""
    exploration: float = option(0.0, NOT_NEGATIVE)
    """Weight of E-MAML's term (Stadie et al. 2018), which credits the policy before each gradient step for the return
    after it; 0: MAML. With weight 1 and vpg, the meta-gradient is the gradient of the expected return after adaptation
    to sampled trajectories."""
    first_order: bool = False
    """Omit the second derivatives from the meta-gradient: FOMAML."""
    adapted: str = option("all", one_of("all", "head"))
    """Parameters that the gradient steps change: all, or head (only the last layer: ANIL)."""
    fast_lr: float = option(0.1, NOT_NEGATIVE)
    """Step size of the gradient steps, or the initial value of learned step sizes."""
    rates: str = option("fixed", one_of("fixed", "scalar", "per_step", "per_parameter"))
    """Step sizes of the gradient steps: fixed, or learned: one scalar, one per_step, or one per_parameter
    (Meta-SGD)."""
    later_rate: float = option(0.5, NOT_NEGATIVE)
    """Factor on the step size of gradient steps beyond `inner_steps`, in evaluations (Finn et al. halve it)."""
    baseline: str = option("linear", one_of("linear", "network"))
    """Baseline subtracted from returns: linear (fitted to each task's round) or network (one learned value
    function)."""
    critic_epochs: int = option(10, at_least(1))
    """Steps of Adam on all samples per iteration, with baseline network."""
    critic_lr: float = option(1e-3, POSITIVE_FINITE)
    """Adam's learning rate for baseline network."""
    gamma: float = option(0.99, between(0, 1))
    """Discount factor."""
    gae_lambda: float = option(1.0, between(0, 1))
    """λ of GAE, which trades bias against variance of the advantage estimates."""
    norm_adv: bool = True
    """Normalise the advantages of each task's round to mean 0 and standard deviation 1; if false, only divide them by
    the running size of the rewards."""
    outer: TRPOStep | PPOStep | ReptileStep | SupervisedStep = part(
        trpo=TRPOStep, ppo=PPOStep, reptile=ReptileStep, supervised=SupervisedStep
    )
    """Outer step, with its own options: trpo (trust region), ppo (Adam on the clipped surrogate), reptile (towards the
    mean of the adapted parameters), or supervised (Adam on the supervised loss of the adapted policies)."""
    meta_rounds: str = option("last", one_of("last", "all"))
    """Rounds whose return the outer step improves: last, or all after the first gradient step, with equal weights
    (multi-step loss, Antoniou et al. 2019)."""
    task_chunk: int | None = option(None, at_least(1))
    """Tasks whose meta-gradient is computed at once; fewer save memory and give the same result. null: all, or with ppo
    on a CPU as many as fit its cache."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.norm_obs and self.obs_unit is not None:
            raise ValueError(f"obs_unit must be null where norm_obs scales the observations, got {self.obs_unit}.")
        if self.exploration and self.supervised:
            raise ValueError("exploration must be 0 with a supervised loss, which has no return to credit.")
        if self.exploration and self.inner_loss != "vpg":
            raise ValueError(
                f"inner_loss must be 'vpg' where exploration is not 0, got {self.inner_loss!r}, whose derivative "
                "already credits the samples before a gradient step."
            )
        if self.exploration and isinstance(self.outer, ReptileStep):
            raise ValueError("exploration must be 0 with outer 'reptile', which follows no gradient of the return.")
        parts = self.outer.num_minibatches if isinstance(self.outer, (PPOStep, SupervisedStep)) else 1
        if parts > self.meta_batch_size:
            raise ValueError(f"num_minibatches must not exceed meta_batch_size = {self.meta_batch_size}, got {parts}.")

    @property
    def supervised(self) -> bool:
        """True if the inner or the outer loss needs the correct actions."""
        return self.inner_loss == "supervised" or isinstance(self.outer, SupervisedStep)

    @property
    def title(self) -> str:
        """The variant's name in tables and figures, with differences from Finn et al. 2017 in parentheses."""
        if isinstance(self.outer, ReptileStep):
            return "Reptile (supervised)" if self.supervised else "Reptile"
        by_ppo = isinstance(self.outer, PPOStep)
        if isinstance(self.outer, PPOStep) and self.inner_loss == "likelihood_ratio" and self.outer.inner_kl_coef:
            return "ProMP"
        variants = {
            "ANIL": self.adapted == "head",
            "Meta-SGD": self.rates == "per_parameter",
            "FOMAML": self.first_order,
            "E-MAML": self.exploration > 0,
        }
        variant = next((name for name, is_it in variants.items() if is_it), "MAML")
        names = {"vpg": [], "likelihood_ratio": ["likelihood ratio"], "dice": ["DiCE"], "supervised": ["supervised"]}
        outside = ["PPO"] * by_ppo + ["supervised outer loss"] * isinstance(self.outer, SupervisedStep)
        if self.inner_loss == "supervised":
            outside = {"": ["TRPO outside"], "PPO": ["PPO outside"]}.get("".join(outside), [])
        others = [*names[self.inner_loss], *outside]
        return f"{variant} ({', '.join(others)})" if others else variant
