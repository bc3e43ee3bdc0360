"""The meta-training loop: sample tasks, play a trial on each, update the agent, evaluate on held-out tasks, save.

`train` and `Iteration` contain the whole run. ``python -m metarl.train`` and `metarl.run` are thin wrappers of `train`.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console

from metarl.core import rng
from metarl.core.agent import LearningAgent, OwnLoopAgent
from metarl.core.family import Key
from metarl.core.rollout import Rollout, check_endings, play_rounds, run_trial
from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.evaluator import evaluate
from metarl.fast.capture import Captured
from metarl.fast.profiling import ProfiledIteration, phase, record_function
from metarl.fast.runtime import resolve_device, tune
from metarl.learning import ranks
from metarl.learning.samplers.fresh import Fresh, FreshOptions
from metarl.learning.samplers.sampler import Proposal, TaskSampler, of_this_rank
from metarl.report.console import silent_console
from metarl.training import checkpoint, ring_files
from metarl.training.checkpoint import Counters
from metarl.training.config.errors import ConfigError
from metarl.training.config.line import resume_command
from metarl.training.config.parsing import Parsed, missing_paths
from metarl.training.config.run_config import TrainConfig
from metarl.training.divergence import Culprit, check_finite, finite
from metarl.training.faults.endings import in_a_sentence
from metarl.training.faults.iterations import Skipping, check_before_saving, culprit_of, warn_of_curves
from metarl.training.final_evaluation import evaluate_at_the_end, show_again
from metarl.training.log.logger import Logger, NoLog
from metarl.training.log.metrics import memory_metrics, trial_metrics
from metarl.training.run_checks import check_run
from metarl.training.run_folder import (
    check_same,
    claim,
    finished,
    first_difference,
    keep_best,
    saved_run,
    write_run_files,
)
from metarl.training.stopping import Stop, reached

TRAINING = 0
"""The address of all randomness in training, ``fold(key(seed), TRAINING)``; evaluations have another address."""


OnIteration = Callable[[int, dict[str, float]], Any]
"""Callback after each iteration, with its number, from 1, and its metrics; returning a true value ends training."""


@dataclass(frozen=True)
class Run:
    """A training run that has finished or was stopped."""

    agent: LearningAgent
    """The agent at the end of training."""
    curves: dict[str, AdaptationCurve]
    """The final evaluation by split; empty if there was none or it was stopped."""
    directory: Path
    """The folder with the configuration, checkpoints, metrics, curves and plots."""
    counters: Counters
    """The run's progress: iterations, environment steps, seconds, the best score on `valid`."""
    signal: int = 0
    """The signal that stopped the run; 0: none."""


def train(
    parsed: Parsed, console: Console, warn: Callable[[str], None], on_iteration: OnIteration | None = None
) -> Run:
    """Do the run `parsed`, or the rest of it if it is resumed, or nothing if it is finished.

    Raises ConfigError for a user's mistake, before anything is written, and Diverged if a metric is not finite.
    """
    config, device = parsed.config, find_device(parsed.config)
    ranks.start(device)
    first = ranks.rank() == 0  # the rank that prints, and writes files
    console, warn = (console, warn) if first else (silent_console(), lambda sentence: None)
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)  # a command stays one line
    settings = tune(config.num_threads)
    check_run(parsed, warn)
    agent = _build(config, device)
    sampler = _build_sampler(config, agent)
    before = saved_run(parsed)
    if before and (done_already := _find_finished(agent, parsed, before, console, warn)):
        return done_already
    _prepare(agent, config, new=not before)

    with contextlib.ExitStack() as held, Stop(say) as stop:
        run_dir = ranks.on_rank_zero(lambda: held.enter_context(claim(parsed, say)))
        done = _restore(agent, config, run_dir, warn, sampler)
        texts = ranks.on_rank_zero(lambda: write_run_files(run_dir, parsed))
        texts |= {"runtime": json.dumps(settings | {"device": str(device), "processes": ranks.world_size()}, indent=1)}
        iterate, warned = Iteration(agent, config, device, sampler), set[str]()
        skipping = Skipping(agent, config, sampler)
        second = done.iteration + 1 if config.profile else None  # the first warms up
        profiled = ProfiledIteration(second, device, run_dir / "trace.json")

        make_log = Logger if first else NoLog
        with (
            in_a_sentence(config, run_dir, lambda: iterate.doing),
            make_log(run_dir, parsed.values, done, texts, console, _final_splits(config), warn) as log,
        ):
            log.say(f"Training in {run_dir} on {device}, {settings['threads']} threads{_processes()}")
            while not _limit(config, done) and not ranks.any_of(stop.asked):
                with profiled.around(done.iteration, log.console):
                    skipping.keep()
                    done, metrics, evaluated, culprit = iterate(done)
                    skipping.judged(metrics, culprit, warn)
                    warn_of_curves(evaluated, done.iteration, warned, warn)
                    if first:
                        done = keep_best(run_dir, agent, done, evaluated)
                    with record_function(phase("logging")):
                        logged = log.iteration(done, metrics, evaluated)
                check_finite(metrics, culprit, done.iteration, run_dir)
                if done.iteration % config.checkpoint_every == 0 or ranks.any_of(stop.save_asked()):
                    _save(run_dir, agent, done, config, sampler, log)
                if on_iteration is not None and ranks.any_of(bool(on_iteration(done.iteration, logged))):
                    break
            _save(run_dir, agent, done, config, sampler, log)
            _say_unrecorded({"Rollouts": iterate.play, **agent.captured}, log)
            curves = _end(agent, config, run_dir, done, stop, log, warn)
    return Run(agent, curves, run_dir, done, stop.signal)


def _end(
    agent: LearningAgent,
    config: TrainConfig,
    run_dir: Path,
    done: Counters,
    stop: Stop,
    log: Logger | NoLog,
    warn: Callable[[str], None],
) -> dict[str, AdaptationCurve]:
    """Play the final evaluation, unless the run was stopped, and say why it ended and how it continues."""
    if (limit := _limit(config, done)) in ("max_seconds", "max_env_steps"):
        log.say(f"Training has reached {limit} after iteration {done.iteration}")
    curves, asked = {}, ranks.any_of(stop.asked)
    if config.final_eval_tasks and not asked:
        with stop.at_once():  # a resume plays it again
            curves = evaluate_at_the_end(agent, config, run_dir, done, log, warn)
    if asked or stop.asked:
        log.say(f"Stopped after iteration {done.iteration}; continue with: {resume_command(run_dir, config.allow)}")
    return curves


def _save(
    run_dir: Path, agent: LearningAgent, done: Counters, config: TrainConfig, sampler: TaskSampler, log: Logger | NoLog
) -> None:
    """Save the run: the agent's replay buffer, then its checkpoint; remove files that no checkpoint needs."""
    check_before_saving(agent, done.iteration, run_dir)
    ring_files.save(run_dir, agent.ring, done.iteration)  # first: the checkpoint is worth nothing without them
    if isinstance(log, Logger):  # of the first rank
        log.flush()
        checkpoint.save(run_dir, agent, done, config.keep_checkpoints, sampler)
    ring_files.prune(run_dir, agent.ring, checkpoint.oldest(run_dir, done.iteration))


class Iterated(NamedTuple):
    """The result of one iteration."""

    done: Counters  # the progress after it
    metrics: dict[str, float]
    curves: dict[str, AdaptationCurve]  # on held-out tasks, by split; empty if no evaluation was due
    culprit: Culprit | None  # what was first not finite, if a metric is not finite


class Iteration:
    """One iteration: sample tasks, play a trial on each, update the agent, evaluate if it is due."""

    def __init__(
        self, agent: LearningAgent, config: TrainConfig, device: torch.device, sampler: TaskSampler | None = None
    ) -> None:
        self.agent, self.config, self.sampler = agent, config, sampler or Fresh(agent, config.train_split)
        self.root = rng.fold(rng.key(config.seed, device), TRAINING)
        self.mine = ranks.part(config.agent.meta_batch_size)
        self.player = functools.cache(self._player)
        self.play = self.player(agent)
        self.doing = "before the first iteration"

    def __call__(self, done: Counters) -> Iterated:
        self.doing = f"iteration {done.iteration + 1} on {self.config.train_split!r}"
        agent, config, start = self.agent, self.config, time.perf_counter()
        progress = done.iteration / config.total_iterations
        trial, played = list[Rollout](), list[Rollout]()
        if isinstance(agent, OwnLoopAgent):
            collected = start
            with record_function(phase("update")):
                metrics, steps = agent.learn(config.train_split, progress)
        else:
            with record_function(phase("rollout")):
                trial, played = self._collect(done.iteration)
            collected = time.perf_counter()
            with record_function(phase("update")):
                loss = agent.update(trial, progress) | self.sampler.learn(progress)
            metrics = trial_metrics(trial, agent.protocol.episodes or config.family.episodes_per_trial) | loss
            if found := self.sampler.metrics():
                metrics |= found | {"tasks/scored": (len(played) - len(trial)) / len(trial)}
            steps = sum(ranks.all_gather(int(sum(rollout.mask.sum() for rollout in played))))
        updated = time.perf_counter()
        now = replace(done, iteration=done.iteration + 1, env_steps=done.env_steps + steps)
        agent.trained = checkpoint.progress(config.seed, now)
        with record_function(phase("evaluation")):
            curves = _evaluations(agent, config, now.iteration) if finite(metrics) else {}
        end = time.perf_counter()
        metrics |= {
            "time/steps_per_second": steps / (updated - start),
            "time/collect": collected - start,
            "time/update": updated - collected,
            "time/evaluate": end - updated,
        } | memory_metrics(self.root.device)
        culprit = None if finite(metrics) else culprit_of(agent, trial, config.train_split)
        return Iterated(replace(now, seconds=done.seconds + end - start), metrics, curves, culprit)

    def _player(self, agent: LearningAgent) -> Captured:
        """Return the function that plays a trial of an agent (this one or the sampler's) on this rank's tasks."""
        family, first = self.config.family, self.mine.start
        return Captured(lambda tasks, key: run_trial(agent, family, tasks, key, first_task=first), self.root.device)

    def _collect(self, number: int) -> tuple[list[Rollout], list[Rollout]]:
        """Play trials on tasks that the sampler proposes, up to the first from which the agent learns.

        Returns the rollouts of that trial and those of all trials, whose steps count as training steps.
        """
        key, played = rng.fold(self.root, number), list[Rollout]()
        for attempt in itertools.count():
            at = key if attempt == 0 else rng.fold(rng.fold(key, 2), attempt)
            proposal = self.sampler.propose(rng.fold(at, 0), self.config.agent.meta_batch_size)
            trial = self._trial(proposal, rng.fold(at, 1), number)
            self.sampler.score(proposal, trial)
            played += trial
            if proposal.learn:
                return trial, played
        raise AssertionError("the loop above ends only by its return")

    def _trial(self, proposal: Proposal, key: Key, number: int) -> list[Rollout]:
        """Play a trial on each of this rank's tasks. Raises ConfigError for an undeclared ending."""
        agent, family, tasks = proposal.player or self.agent, self.config.family, of_this_rank(proposal.tasks)
        if self.sampler.watch is None or proposal.learn:
            trial: list[Rollout] = self.player(agent)(tasks, key)
        else:
            first, watch = self.mine.start, self.sampler.watch
            trial = [played for played, _, _ in play_rounds(agent, family, tasks, key, first_task=first, watch=watch)]
        try:
            check_endings(family, trial)
        except ValueError as undeclared:  # too rare for `check_run` to notice
            raise ConfigError(f"Training stopped in iteration {number + 1}: {undeclared}") from undeclared
        return trial


def _evaluations(agent: LearningAgent, config: TrainConfig, iteration: int) -> dict[str, AdaptationCurve]:
    """Evaluate on held-out tasks if it is due. The final evaluation replaces that of the last iteration."""
    last = iteration == config.total_iterations and config.final_eval_tasks > 0
    if last or not config.eval_every or iteration % config.eval_every:
        return {}
    return {
        split: evaluate(agent, config.family, split, config.eval_tasks, repeats=config.eval_repeats, step_curve=False)
        for split in config.eval_splits
    }


def find_device(config: TrainConfig) -> torch.device:
    """Return the run's device. Raises ConfigError if there is none."""
    try:
        return resolve_device(config.device)
    except ValueError as mistake:
        raise ConfigError(str(mistake)) from mistake


def _build(config: TrainConfig, device: torch.device) -> LearningAgent:
    """Build the agent. Raises ConfigError for options that are incompatible, also with the number of processes."""
    try:
        agent = config.agent.build(config.family, config.seed, device)
    except ValueError as mistake:
        raise ConfigError(" ".join(str(mistake).split())) from mistake
    if ranks.is_distributed() and isinstance(agent, OwnLoopAgent):
        name = type(config.agent).__name__.removesuffix("Config")
        raise ConfigError(f"{name} trains in a single process: start it without torchrun.")
    if config.agent.meta_batch_size < ranks.world_size():
        raise ConfigError(
            f"agent.meta_batch_size must be at least the number of processes, {ranks.world_size()}, so that each has "
            f"a task, got {config.agent.meta_batch_size}."
        )
    return agent


def _prepare(agent: LearningAgent, config: TrainConfig, new: bool) -> None:
    """Prepare an agent with its own loop, and initialise a new run from `init_from`.

    Raises ConfigError if something is missing.
    """
    if isinstance(agent, OwnLoopAgent):
        try:
            agent.prepare(config.train_split, lambda name: checkpoint.load(name, agent.device))
        except ValueError as mistake:
            sentence = " ".join(str(mistake).split())
            raise ConfigError(f"{sentence}{missing_paths(config)}") from mistake
    if config.init_from is not None and new:
        checkpoint.start_from(config.init_from, agent)


def _build_sampler(config: TrainConfig, agent: LearningAgent) -> TaskSampler:
    """Build the task sampler. Raises ConfigError if it does not support the agent or the family."""
    if isinstance(agent, OwnLoopAgent) and not isinstance(config.task_sampler, FreshOptions):
        name = type(config.agent).__name__.removesuffix("Config")
        raise ConfigError(f"{name} draws its tasks itself, in its own loop: task_sampler must be fresh.")
    try:
        return config.task_sampler.build(agent, config.train_split)
    except ValueError as mistake:
        raise ConfigError(" ".join(str(mistake).split())) from mistake


def _limit(config: TrainConfig, done: Counters) -> str:
    """Return the limit that the run has reached, by the clock of rank 0; "" while it continues."""
    return ranks.on_rank_zero(lambda: reached(config, done))


def _processes() -> str:
    return f" in each of {ranks.world_size()} processes" if ranks.is_distributed() else ""


def _restore(
    agent: LearningAgent,
    config: TrainConfig,
    run_dir: Path,
    warn: Callable[[str], None],
    sampler: TaskSampler | None = None,
) -> Counters:
    """Load the run's checkpoint into the agent and the task sampler, if there is one; return the run's progress."""
    done = checkpoint.restore_last_good(run_dir, agent, warn, sampler)
    agent.trained = checkpoint.progress(config.seed, done)
    if done.iteration > config.total_iterations:
        raise ConfigError(
            f"total_iterations must be at least {done.iteration}, which the run in {str(run_dir)!r} has done, "
            f"got {config.total_iterations}."
        )
    return done


def _find_finished(
    agent: LearningAgent, parsed: Parsed, run_dir: Path, console: Console, warn: Callable[[str], None]
) -> Run | None:
    """Return the run in the folder and show its table, if it is finished and nothing else was requested.

    Raises ConfigError if `auto_resume` finds another run there.
    """
    if parsed.auto_resume:
        check_same(run_dir, parsed)
    elif first_difference(run_dir, parsed):  # --resume with an option that asks for more, or for other numbers
        return None
    if not finished(run_dir, parsed.config):
        return None
    done = _restore(agent, parsed.config, run_dir, warn)
    return Run(agent, show_again(run_dir, _final_splits(parsed.config), console), run_dir, done)


def _final_splits(config: TrainConfig) -> tuple[str, ...]:
    return config.family.splits if config.final_eval_tasks else ()


def _say_unrecorded(parts: dict[str, Captured], log: Logger | NoLog) -> None:
    """Print which parts were not captured as CUDA graphs, and why."""
    for name, part in parts.items():
        if part.device.type == "cuda" and part.why_not is not None:
            log.say(f"{name} were not recorded as a CUDA graph, which would be faster: {part.why_not}")
