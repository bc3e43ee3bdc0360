"""The configurations of DPT, DAgger and AD; `agent.py` and `distillation.py` describe the algorithms."""

from __future__ import annotations

from dataclasses import dataclass

from metarl.agents.rl2.config import RL2Config
from metarl.core.agent import AgentConfig, Schedule
from metarl.core.options import POSITIVE, POSITIVE_FINITE, Rule, at_least, between, is_run_path, one_of, option
from metarl.learning.memories import MEMORIES


def is_run(teacher: str) -> bool:
    """Return True if the teacher is a trained agent: ``pretrained:NAME``, or the path of a run directory."""
    return teacher.startswith("pretrained:") or "/" in teacher


FOLDER = Rule("be a path", lambda value: isinstance(value, str), is_path=bool)
NAME = Rule(
    "be the name of a ready-made agent, such as 'oracle', or of a run",
    lambda value: isinstance(value, str) and value != "",
    is_path=lambda teacher: is_run(teacher) and is_run_path(teacher),
)


@dataclass
class ImitationConfig(AgentConfig):
    """A policy with a memory that is trained on a teacher's actions."""

    memory: str = option("gru", one_of(*MEMORIES))
    """Memory of the policy, as in RL²: gru, lstm, rnn, transformer or fast_weights; none (no memory, but the policy
    still sees the previous action, reward and end of an episode); or reactive (the policy sees only the
    observation)."""
    hidden_size: int = option(128, at_least(1))
    """Units of the memory."""
    transition_input: bool = False
    """Also show the policy the observation before its previous action, so that one input holds the whole transition."""
    embed_size: int = option(0, at_least(0))
    """ReLU units between the inputs and the memory; 0: the memory reads the inputs as they are."""
    head_size: int = option(0, at_least(0))
    """Hidden ReLU units of the policy's head; 0: a linear head."""
    norm_obs: bool = False
    """Normalise observations by the mean and standard deviation of those seen so far, not by the space's bounds."""
    init_std: float = option(0.6, POSITIVE_FINITE)
    """Initial standard deviation of continuous actions, in units of half the action range."""
    lr: Schedule = option(1e-3, between(0, 1))
    """Adam's learning rate."""
    num_minibatches: int = option(4, at_least(1))
    """Minibatches per pass; each holds whole trials of some of the tasks."""
    update_epochs: int = option(1, at_least(1))
    """Passes over the trials of an iteration."""
    max_grad_norm: float = option(1.0, POSITIVE)
    """Largest norm of the gradient; a larger gradient is scaled down."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.network()  # raises ValueError for options that RL² does not accept together

    def network(self) -> RL2Config:
        """Return the configuration of the network as one of RL², which can continue from it (``--init_from``)."""
        return RL2Config(
            memory=self.memory, hidden_size=self.hidden_size, transition_input=self.transition_input,
            embed_size=self.embed_size, head_size=self.head_size, norm_obs=self.norm_obs, init_std=self.init_std,
            meta_batch_size=self.meta_batch_size, num_minibatches=self.num_minibatches,
        )  # fmt: skip


@dataclass
class DPTConfig(ImitationConfig):
    """The decision-pretrained transformer. A schedule is a number, or points [[progress, value], …]."""

    memory: str = option("transformer", one_of(*MEMORIES))
    """Model of the context: transformer, as published, or another memory of RL²."""
    behaviour: str = option("mixed", one_of("mixed", "uniform", "policy"))
    """Play that fills the contexts: uniform; mixed (a distribution over actions drawn for each trial, between a random
    one and a single action, as published for bandits); or that of the policy itself. Only for Discrete actions."""
    labels: str = option("sampled", one_of("greedy", "sampled"))
    """Label of a step where several actions are optimal: sampled (one of them at random) or greedy (always the same
    one, `TaskFamily.optimal_action`)."""
    context: str = option("step", one_of("step", "episode"))
    """Part of a trial that the policy sees: step (all steps so far) or, as published for MDPs, episode (all earlier
    episodes and the current observation)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.context == "episode" and self.memory in ("none", "reactive"):
            raise ValueError(f"context=episode needs a memory of earlier episodes, which memory={self.memory} lacks.")


@dataclass
class DAggerConfig(ImitationConfig):
    """Distillation by DAgger. A schedule is a number, or points [[progress, value], …] joined by straight lines."""

    teacher: str = option("oracle", NAME)
    """Teacher whose actions are the labels: a ready-made agent of the family (``metarl envs FAMILY`` lists them), such
    as oracle, gittins or bayes_optimal; a trained agent, such as ``pretrained:rl2_gridnavi`` or the path of a run
    directory; or optimal, the best action given the task."""
    beta: Schedule = option(0.0, between(0, 1))
    """Probability that the teacher, not the student, acts at a step of training. A schedule from 1 to 0 starts with the
    teacher's own trials."""
    labels: str = option("greedy", one_of("greedy", "sampled"))
    """Labels of the steps: greedy (the teacher's most likely action), or sampled (an action drawn from the teacher's
    policy, so that the student learns the whole distribution)."""


@dataclass
class ADConfig(ImitationConfig):
    """Algorithm Distillation. A schedule is a number, or points [[progress, value], …] joined by straight lines."""

    meta_batch_size: int = option(64, at_least(1))
    """Histories per iteration."""
    memory: str = option("transformer", one_of(*MEMORIES))
    """Model of the context: transformer, as published, or another memory of RL²."""
    histories: str = option("", FOLDER)
    """Folder of the learning histories that metarl dataset writes, read only in training. ~ is your home directory."""
    stride: int | None = option(None, at_least(1))
    """Keep one of this many episodes of a history, with a random offset, so that learning appears sped up by this
    factor; null: the stride that makes a history as long as a trial."""
    context: int | None = option(None, at_least(2))
    """Largest number of steps that the policy looks back, across episodes; when the context is full, its older half is
    forgotten. null: the length of a trial."""
