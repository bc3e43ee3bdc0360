"""The probe: the information in an agent's memory, compared with the information in the exact belief.

`probe` plays trials of a frozen agent, fits linear decoders to some of them, and scores the decoders on the others
(Alain & Bengio 2016). The targets are the exact belief of `TaskFamily.belief` on the same history, and the task itself.
A memory cannot contain more information on the task than the belief, which is the ceiling; memories of other trials at
the same step are the floor. Decodable information is not necessarily used by the agent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from metarl.core import rng
from metarl.core.agent import LearningAgent
from metarl.core.errors import unknown
from metarl.core.family import Task, TaskFamily
from metarl.core.tree import num_rows, take
from metarl.evaluation.arguments import as_int, check_size
from metarl.evaluation.evaluator import choose_tasks, describe, training_of
from metarl.evaluation.probing.belief_agent import Lost, check_belief_agent, return_lost
from metarl.evaluation.probing.decoders import folds
from metarl.evaluation.probing.decoding import Split
from metarl.evaluation.probing.scores import (
    Decoded,
    Estimate,
    Every,
    Target,
    accuracy,
    ceiling_of_guesses,
    estimate,
    every_step,
    explained,
    mean_estimate,
    mean_of,
    posterior_mean,
    repeated,
    shuffled,
    standardised,
    units,
)
from metarl.evaluation.probing.trials import Trials, Watch, has_masses, play
from metarl.evaluation.provenance import versions

PROBE = 0x70726F62  # "prob" in ASCII
"""RNG address of all probes, ``fold(key(seed), PROBE)``, distinct from evaluations and training."""


STEPS = 12
"""Default number of probed steps, which are closer together at the start of the trial."""


LEAST_TASKS = 60
"""Fewest trials of a probe; a third of them is held out."""


TASKS, TRIALS = "tasks", "trials"
"""The possible units that are held out."""


@dataclass(frozen=True, eq=False)
class Probe:
    """The information in a memory at some steps of a trial.

    Arrays of estimates have S + 1 numbers: one per step of the S `steps`, and one for a single decoder of all steps.
    """

    agent: str
    family: str
    split: str
    part: str  # of the memory
    size: int  # numbers of this part
    steps: tuple[int, ...]  # (S,) actions taken before
    tasks: int  # distinct tasks
    fitted: tuple[int, ...]  # (S,) training trials that last until the step
    held: tuple[int, ...]  # (S,) held-out trials that do
    repeated: tuple[float, ...]  # (S,) fraction of held-out memories that also occur in training trials, see `repeated`
    held_out: str  # "tasks", or "trials" of the same tasks
    seed: int
    belief: Decoded | None  # the exact posterior; None: the family has none
    task: Decoded
    divergence: Estimate | None  # nats between the agent's actions and the belief agent's on the same histories
    lost: Lost | None  # return of a trial, against the belief agent's
    training: tuple[dict[str, Any], ...]
    versions: dict[str, str]


class Played(NamedTuple):
    """Trials and the tasks that they were played on."""

    trials: Trials
    split: Split
    held_out: str
    distinct: int


def probe(
    agent: LearningAgent,
    split: str = "test",
    tasks: int = 1000,
    steps: Sequence[int] | None = None,
    part: str | None = None,
    hold_out: str | None = None,
    belief_agent: LearningAgent | None = None,
    seed: int = 0,
) -> Probe:
    """Probe the memory of a frozen agent on tasks of a split of its family.

    **Trials.** As many as `tasks`, on distinct tasks if the split has enough, else several on each task. Two thirds
    of them are for fitting decoders, the others are held out.

    **Held out** (`hold_out`) are whole "tasks", or "trials" of tasks that decoders were fitted to. The default is
    tasks. If the belief is a distribution over the finitely many tasks of the split, it is trials, since no decoder can
    predict a task that is not in its training rows.

    **Memory.** `part` is a part of `LearningAgent.memory_features`, by default the first one.

    **Decoders** are linear. If the belief is a distribution over finitely many tasks, its masses are decoded by a
    softmax, and its score is the share of the mean KL divergence between the posterior and the mean posterior that the
    decoder explains; the task's is the posterior mass of the task that the decoder holds for the likeliest. Otherwise
    ridge regression decodes the belief's features and the task's numbers, each in units of its standard deviation, and
    scores are R² against the mean at the step.

    **Steps** are numbers of actions taken before; by default `STEPS` of them. With a `belief_agent`, such as BeliefPPO,
    the divergence of the agent's actions from its actions on the same histories, and the return lost against it, stand
    next to what is known.

    Everything depends only on the arguments, and nothing is shared with training or evaluations.
    Raises ValueError for an agent without a readable memory, an unknown split or part, too few tasks, a step beyond
    the trial, or if scikit-learn is missing.
    """
    family = agent.family
    tasks, seed = as_int("tasks", tasks, least=LEAST_TASKS), as_int("seed", seed, least=0)
    if split not in family.splits:
        raise ValueError(unknown("split", split, family.splits, where=f" of {type(family).__name__}"))
    check_size(family, split, tasks)
    folds(np.arange(2))  # raises if scikit-learn is missing
    part = _part(agent, part)
    belief = family.belief(split)
    if belief_agent is not None:
        check_belief_agent(agent, belief_agent, split)
    watch = Watch(_steps(agent, steps), part, belief, belief_agent)
    played = _play(agent, split, tasks, seed, watch, hold_out)
    return _result(agent, split, seed, watch, played)


def _result(agent: LearningAgent, split: str, seed: int, watch: Watch, played: Played) -> Probe:
    trials, parts = played.trials, played.split
    root = rng.fold(rng.key(seed), PROBE)
    mixed = shuffled(trials.memory, trials.alive, parts, rng.fold(root, 4))
    belief, task = _decoded(trials, parts, mixed, has_masses(watch.belief))
    other = watch.other
    return Probe(
        agent=agent.title,
        family=describe(agent.family),
        split=split,
        part=watch.part,
        size=trials.memory.shape[2],
        steps=watch.steps,
        tasks=played.distinct,
        fitted=tuple((trials.alive & parts.fit).sum(axis=1).tolist()),
        held=tuple((trials.alive & ~parts.fit).sum(axis=1).tolist()),
        repeated=tuple(repeated(trials.memory, trials.alive, parts).tolist()),
        held_out=played.held_out,
        seed=seed,
        belief=belief,
        task=task,
        divergence=None if trials.divergence is None else mean_estimate(trials.divergence, trials.alive, parts),
        lost=None if other is None else return_lost(agent, other, split, int((~parts.fit).sum()), seed),
        training=training_of(agent),
        versions=versions(),
    )


def _decoded(trials: Trials, split: Split, mixed: Any, masses: bool) -> tuple[Decoded | None, Decoded]:
    """Return the scores of the belief, if there is one, and of the task."""
    alive, known = trials.alive, trials.belief
    if masses:
        assert known is not None
        target = Target(known, True)
        right, wrong, ideal = (every_step(memory, target, alive, split) for memory in (trials.memory, mixed, known))
        belief = _scores("belief", "explained KL", right, wrong, ideal)
        guessed = estimate(right, accuracy), estimate(wrong, accuracy)
        task = Decoded("task", "accuracy", *guessed, ceiling_of_guesses(right), belief.error, belief.constant)
        return belief, task
    numbers = np.broadcast_to(trials.task, (len(alive), *trials.task.shape))
    unit = units(numbers, alive, split)
    target, best = Target(standardised(numbers, unit), False), trials.best
    right, wrong = (every_step(memory, target, alive, split) for memory in (trials.memory, mixed))
    known_best = None if best is None else posterior_mean(standardised(best, unit), target, alive, split)
    task = _scores("task", "R²", right, wrong, known_best)
    if known is None:
        return None, task
    target = Target(standardised(known, units(known, alive, split)), False)
    right, wrong, ideal = (every_step(memory, target, alive, split) for memory in (trials.memory, mixed, known))
    return _scores("belief", "R²", right, wrong, ideal), task


def _scores(name: str, measure: str, right: Every, wrong: Every, ideal: Every | None) -> Decoded:
    """Collect the scores of memories, of shuffled memories, and of the exact belief."""
    ceiling = None if ideal is None else estimate(ideal, explained).mean
    of = estimate(right, explained), estimate(wrong, explained)
    return Decoded(name, measure, *of, ceiling, mean_of(right, "error"), mean_of(right, "constant"))


def _part(agent: LearningAgent, part: str | None) -> str:
    """Return the part of the memory to read. Raises ValueError if there is none, or the name is unknown."""
    one = agent.family.sample_tasks(rng.key(0, agent.device), 1)
    rounds = agent.protocol.test().rounds
    parts = None
    if rounds == 1 and type(agent).memory_features is not LearningAgent.memory_features:
        parts = agent.memory_features(agent.begin(1), _first_step(agent.family, one, agent.device))
    if not parts:
        raise ValueError(
            f"{agent.title} has no memory of the trial that can be probed; agents such as RL2 and Belief, which "
            "remember while they act, have one."
        )
    if part is not None and part not in parts:
        raise ValueError(unknown("part", part, parts, where=f" of the memory of {agent.title}"))
    return part or next(iter(parts))


def _first_step(family: TaskFamily, task: Task, device: torch.device) -> Any:
    from metarl.core.batch_env import make_env

    return make_env(family, task, rng.key(0, device)).reset()


def default_steps(last: int) -> tuple[int, ...]:
    """Return at most `STEPS` steps from 0 to `last`, closer together at the beginning."""
    return tuple(sorted({round(step) - 1 for step in np.geomspace(1, last + 1, STEPS).tolist()}))


def _steps(agent: LearningAgent, steps: Sequence[int] | None) -> tuple[int, ...]:
    family = agent.family
    last = (agent.protocol.test().episodes or family.episodes_per_trial) * family.horizon - 1
    if steps is None:
        return default_steps(last)
    chosen = sorted({as_int("steps", step, least=0) for step in steps})
    if not chosen or chosen[-1] > last:
        raise ValueError(f"steps must be numbers of actions from 0 to {last}, got {list(steps)}.")
    return tuple(chosen)


def _play(agent: LearningAgent, split: str, tasks: int, seed: int, watch: Watch, hold_out: str | None) -> Played:
    """Play the trials, and select the held-out ones."""
    if hold_out not in (None, TASKS, TRIALS):
        raise ValueError(unknown("hold_out", hold_out, (TASKS, TRIALS)))
    root = rng.fold(rng.key(seed), PROBE)
    task, distinct = choose_tasks(agent.family, root, split, tasks)
    count = num_rows(task)
    each = max(3, -(-tasks // count)) if distinct is not None and count < tasks else 1
    chosen = hold_out or (TRIALS if has_masses(watch.belief) and each > 1 else TASKS)
    if chosen == TRIALS and each == 1:
        raise ValueError("Every task is played once, so there are no further trials to hold out: hold out tasks.")
    if chosen == TASKS and count < 3:
        raise ValueError(f"The split {split!r} has {count} tasks, too few to hold out any: hold out trials.")
    numbers = torch.arange(count).repeat_interleave(each)
    if chosen == TASKS:
        fit = _two_thirds(count, rng.fold(root, 2))[numbers.numpy()]
        unit = numbers.numpy()
    else:
        fit = np.tile(_two_thirds(each, rng.fold(root, 2)), count)
        unit = np.arange(count * each)
    key = rng.fold(rng.fold(rng.key(seed, agent.device), PROBE), 1)
    trials = play(agent, agent.family, take(task, numbers), key, watch)
    return Played(trials, Split(fit, unit), chosen, count)


def _two_thirds(number: int, key: torch.Tensor) -> Any:
    """Choose two thirds of `number` items: bool ``(number,)``."""
    chosen = np.zeros(number, dtype=np.bool_)
    chosen[rng.permutation(key, number)[: number - max(1, number // 3)].numpy()] = True
    return chosen
