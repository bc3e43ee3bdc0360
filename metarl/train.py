"""Meta-train an agent: ``python -m metarl.train [--config FILE_OR_PRESET] [--agent.lr 1e-3 …] [--resume RUN_DIR]``.

All of a run is in `train` and `_iterate`: sample tasks, play a trial on each, update the agent, evaluate on held-out
tasks, log, save.
"""

from __future__ import annotations

import json
import math
import shlex
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from metarl import checkpoint, rng
from metarl.agent import LearningAgent
from metarl.behaviour import pictures
from metarl.capture import Captured
from metarl.checkpoint import Counters
from metarl.config import Parsed, TrainConfig, parse, reported_split
from metarl.config_errors import ConfigError
from metarl.config_line import read_line
from metarl.console import in_words, make_console, make_folder, new_folder, show, text_of
from metarl.curve import AdaptationCurve
from metarl.evaluator import evaluate
from metarl.family import Key, has_picture
from metarl.finite import not_finite
from metarl.log import Logger, family_card, memory_metrics, trial_metrics
from metarl.profiling import Profile, phase, record_function
from metarl.provenance import versions
from metarl.replay import watch
from metarl.rollout import check_endings, first_not_finite, run_trial
from metarl.runtime import resolve_device, tune
from metarl.seeds import train_seeds
from metarl.table import adaptation_table
from metarl.testing import quick_check

TRAINING = 0
"""The address of all randomness of training: ``fold(key(seed), TRAINING)``; evaluations have one of their own."""


class Diverged(RuntimeError):
    """A metric is not a finite number."""


def train(parsed: Parsed, console: Console) -> int:
    """Do the run `parsed`, or the rest of it if it is being resumed. Returns the program's exit code."""
    config = parsed.config
    family, agent_config = config.family, config.agent
    settings = tune(config.num_threads)
    _ask_contract(config)
    _ask_names(parsed)
    try:
        device = resolve_device(config.device)
        agent = agent_config.build(family, config.seed, device)
        agent.train_split = config.train_split
    except ValueError as mistake:  # options that do not fit each other, or the machine
        raise ConfigError(" ".join(str(mistake).split())) from mistake
    try:
        run_dir = _run_dir(parsed)
    except ValueError as problem:
        raise ConfigError(str(problem)) from problem
    done = Counters()
    if parsed.resume and (run_dir / checkpoint.CHECKPOINT).exists():
        done = checkpoint.restore(run_dir, agent)
        agent.trained = checkpoint.progress(config.seed, done)
        if done.iteration > config.total_iterations:
            raise ConfigError(
                f"total_iterations must be at least {done.iteration}, which the run in {str(run_dir)!r} has done, "
                f"got {config.total_iterations}."
            )
    texts = _write_run_files(run_dir, parsed) | {"runtime": json.dumps(settings | {"device": str(device)}, indent=1)}
    root = rng.fold(rng.key(config.seed, device), TRAINING)
    play = Captured(lambda tasks, key: run_trial(agent, family, tasks, key), device)

    with Logger(run_dir, parsed.values, done, texts, console, family.splits if config.final_eval_tasks else ()) as log:
        log.say(f"Training in {run_dir} on {device}, {settings['threads']} threads")
        with _Stop(log) as stop:
            profiled = done.iteration + 1 if config.profile else None  # the second iteration: the first warms up
            while done.iteration < config.total_iterations and not stop.exit_code:
                recorded = Profile() if done.iteration == profiled else None
                with nullcontext() if recorded is None else recorded.recording(device):
                    done, metrics, curves, first = _iterate(agent, config, play, root, done)
                    done = _keep_best(agent, run_dir, done, curves)
                    with record_function(phase("logging")):
                        log.iteration(done, metrics, curves)
                if recorded is not None:
                    recorded.save(run_dir / "trace.json")
                    log.console.print(recorded.table())
                    log.say(f"Trace of the iteration, for https://ui.perfetto.dev: {run_dir / 'trace.json'}")
                if not _finite(metrics):
                    raise Diverged(_what_diverged(metrics, first, done.iteration, run_dir))
                if done.iteration % config.checkpoint_every == 0:
                    checkpoint.save(run_dir, agent, done)
            checkpoint.save(run_dir, agent, done)
        for what, captured in {"Rollouts": play, **agent.captured}.items():
            if device.type == "cuda" and captured.why_not is not None:
                log.say(f"{what} were not recorded as a CUDA graph, which would be faster: {captured.why_not}")
        if stop.exit_code:
            command = checkpoint.resume_command(run_dir, config.allow)
            log.say(f"Stopped after iteration {done.iteration}; go on by: {command}")
        elif config.final_eval_tasks:
            _finish(agent, config, run_dir, done, log)
    console.print(f"Curves: tensorboard --logdir {shlex.quote(str(run_dir))}", markup=False, soft_wrap=True)
    return stop.exit_code


def _ask_contract(config: TrainConfig) -> None:
    """Raise ConfigError for a family that breaks its contract.

    This comes before anything is built or written. What would spoil only an evaluation or a picture is said, and the
    run goes on.
    """
    try:
        spoiled = quick_check(config.family, config.train_split)
    except AssertionError as broken:
        raise ConfigError(str(broken)) from broken
    for sentence in spoiled:
        _warn(sentence)


def _ask_names(parsed: Parsed) -> None:
    """Raise ConfigError for a family or an agent that the program itself registers."""
    if "__main__" in parsed.config.allow:
        raise ConfigError(
            "The family or the agent is registered in the program itself (__main__), where no other program finds it, "
            "so the run could not be loaded: register it in a module, and give --allow MODULE."
        )


def _warn(sentence: str) -> None:
    """Say on standard error, with --quiet too, what a user must know of the results."""
    print(f"metarl.train: warning: {sentence}", file=sys.stderr)


def _iterate(
    agent: LearningAgent, config: TrainConfig, play: Captured, root: Key, done: Counters
) -> tuple[Counters, dict[str, float], dict[str, AdaptationCurve], str | None]:
    """One iteration: sample tasks, play a trial on each, update the agent, evaluate if it is due.

    Beside counters, metrics and curves: what was the first to be not finite, where a metric is not (`_what_diverged`).
    """
    family, start = config.family, time.perf_counter()
    key = rng.fold(root, done.iteration)
    with record_function(phase("rollout")):
        trial = []
        if not agent.own_loop:
            tasks = family.sample_tasks(rng.fold(key, 0), config.agent.meta_batch_size, config.train_split)
            trial = play(tasks, rng.fold(key, 1))
            try:
                check_endings(family, trial)
            except ValueError as undeclared:  # too seldom for `_ask_contract` to have seen it
                raise ConfigError(f"Training stopped in iteration {done.iteration + 1}: {undeclared}") from undeclared
    collected = time.perf_counter()
    with record_function(phase("update")):
        loss = agent.update(trial, done.iteration / config.total_iterations)
    updated = time.perf_counter()
    steps = int(loss.pop("env_steps", 0.0) + sum(rollout.mask.sum() for rollout in trial))
    metrics = (trial_metrics(trial, agent.protocol.episodes or family.episodes_per_trial) if trial else {}) | loss
    now = replace(done, iteration=done.iteration + 1, env_steps=done.env_steps + steps)
    agent.trained = checkpoint.progress(config.seed, now)
    with record_function(phase("evaluation")):
        curves = _evaluations(agent, config, now.iteration) if _finite(metrics) else {}
    end = time.perf_counter()
    metrics |= {
        "time/steps_per_second": steps / (updated - start),
        "time/collect": collected - start,
        "time/update": updated - collected,
        "time/evaluate": end - updated,
    } | memory_metrics(root.device)
    first = None
    if not _finite(metrics):
        first = (first_not_finite(trial) or "update") if trial else None
    return replace(now, seconds=done.seconds + end - start), metrics, curves, first


def _evaluations(agent: LearningAgent, config: TrainConfig, iteration: int) -> dict[str, AdaptationCurve]:
    """The curves on held-out tasks, if they are due. The evaluation at the end stands in for the last one."""
    last = iteration == config.total_iterations and config.final_eval_tasks > 0
    if last or not config.eval_every or iteration % config.eval_every:
        return {}
    return {
        split: evaluate(agent, config.family, split, config.eval_tasks, repeats=config.eval_repeats, step_curve=False)
        for split in config.eval_splits
    }


def _keep_best(agent: LearningAgent, run_dir: Path, done: Counters, curves: dict[str, AdaptationCurve]) -> Counters:
    """Save the agent if it has just scored higher on `valid` than ever before in this run; what it scored is noted."""
    if "valid" not in curves:
        return done
    score = float(curves["valid"].scores.mean(dtype="float64"))
    if done.best_score is not None and not score > done.best_score:
        return done
    done = replace(done, best_score=score, best_iteration=done.iteration)
    checkpoint.save_best(run_dir, agent, done)
    return done


def _finish(agent: LearningAgent, config: TrainConfig, run_dir: Path, done: Counters, log: Logger) -> None:
    """Evaluate on all splits, show the table, and leave it in ``RUN_DIR/evaluation/``."""
    family, folder = config.family, run_dir / "evaluation"
    # A picture takes about half a second, so there are those of the split that the run is about, and of `ood`.
    shown = {reported_split(config), "ood"}
    curves, watched = {}, {}
    for number, split in enumerate(family.splits, start=1):
        log.say(f"Evaluating on {config.final_eval_tasks} tasks of {split} ({number} of {len(family.splits)} splits)")
        if split in shown:
            watched[split] = watch(agent, family, split, config.final_eval_tasks)
            curves[split] = watched[split][0]
        else:
            curves[split] = evaluate(agent, family, split, tasks=config.final_eval_tasks)
        curves[split].save(folder / split)
    log.evaluation(done, curves)
    log.bar.stop()
    table = adaptation_table(curves, log.console.width)
    show(log.console, table)
    for split, curve in curves.items():
        spoiled = not_finite(split, returns=curve.returns, random=curve.random, oracle=curve.oracle)
        if spoiled:
            _warn(spoiled)
    (folder / "table.txt").write_text(text_of(table), encoding="utf-8")
    for picture in pictures(family, watched, _warn):
        log.picture(done, picture.tag, picture.data)
        (folder / picture.file_name).write_bytes(picture.data)
    if not has_picture(family):
        log.say(f"No pictures of behaviour: {type(family).__name__} has no render(task, states)")
    log.console.print(f"Everything of this run: {run_dir}", markup=False, soft_wrap=True)


def _finite(metrics: dict[str, float]) -> bool:
    return all(map(math.isfinite, metrics.values()))


CAUSES = {
    "observation": "The observations of the family must be finite.",
    "reward": "The rewards of the family must be finite.",
    "action": "The agent's own numbers were no longer finite when it acted: a lower agent.lr may help.",
    "update": "All that was played is finite: a lower agent.lr may help.",
    None: "Either the family's numbers are not finite, or a lower agent.lr may help.",  # an agent that plays for itself
}
"""What to say of a run that diverged, by what was the first to be not finite. Parameters do not tell: an update from
rewards that are not numbers spoils them, too."""


def _what_diverged(metrics: dict[str, float], first: str | None, iteration: int, run_dir: Path) -> str:
    """The sentence of the end."""
    tag, value = next((tag, value) for tag, value in metrics.items() if not math.isfinite(value))
    kept = run_dir / checkpoint.CHECKPOINT
    then = f"The checkpoint before it is kept in {kept}." if kept.exists() else "There was no checkpoint yet."
    return f"Training stopped in iteration {iteration}, because {tag} became {value}. {then} {CAUSES[first]}"


class _Stop:
    """Ctrl-C or a scheduler's SIGTERM lets the iteration finish, so that a resume is exact; again, it ends at once."""

    def __init__(self, log: Logger) -> None:
        self.log, self.exit_code = log, 0
        self.before: dict[int, Any] = {}

    def __enter__(self) -> _Stop:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            self.before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.exit_code = 128 + number  # what shells report for a program that a signal ended
        self.log.say("Stopping after this iteration (again: at once)")
        self.__exit__()


def _run_dir(parsed: Parsed) -> Path:
    """The folder of the run, made. Raises ConfigError if it already holds one."""
    if parsed.resume:
        return parsed.resume
    if parsed.config.run_dir is None:
        name = f"{parsed.name}_{parsed.config.seed}_{time.strftime('%Y%m%d-%H%M%S')}"
        return new_folder(Path("runs") / name)
    run_dir = Path(parsed.config.run_dir)
    if (run_dir / "config.yaml").exists():
        raise _taken(run_dir)
    make_folder(run_dir)
    return run_dir


def _taken(run_dir: Path) -> ConfigError:
    how = f"continue it by --resume {shlex.quote(str(run_dir))}, or choose another --run_dir."
    return ConfigError(f"{str(run_dir)!r} already holds a run: {how}")


def _write_run_files(run_dir: Path, parsed: Parsed) -> dict[str, str]:
    """What is needed to repeat the run; returned as texts for the log."""
    command = f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {shlex.join(parsed.command)}\n"
    try:
        with (run_dir / "config.yaml").open("w" if parsed.resume else "x", encoding="utf-8") as file:
            file.write(parsed.text())
    except FileExistsError as error:  # of a run that started at the same moment
        raise _taken(run_dir) from error
    with (run_dir / "command.txt").open("a", encoding="utf-8") as file:
        file.write(command)
    text = json.dumps(versions(), indent=1)
    (run_dir / "versions.json").write_text(text + "\n", encoding="utf-8")
    return {"command": command, "versions": text, "family": family_card(parsed.config.family)}


def main(args: Sequence[str] | None = None) -> int:
    """The program: 0 when done; 2 for a mistake of the user's, 1 for a diverged run, 128 + signal when stopped."""
    given = list(sys.argv[1:] if args is None else args)
    try:
        line = read_line(given)
        console = make_console(line.quiet, width=120)
        return train_seeds(line, train, console) if line.seeds else train(parse(line), console)
    except ConfigError as mistake:
        print(f"metarl.train: {mistake}", file=sys.stderr)
        return 2
    except OSError as problem:  # a folder that may not be written to, a full disk
        print(f"metarl.train: {in_words(problem)}", file=sys.stderr)
        return 2
    except Diverged as reason:
        print(f"metarl.train: {reason}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nmetarl.train: stopped at once; the last checkpoint is kept.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
