"""Saving and loading: safetensors for the tensors, JSON for the counters, no pickle.

A checkpoint is a single file (`metarl.training.state_file`) that is replaced atomically, so counters and tensors always
belong to the same iteration. ``python -m metarl.training.checkpoint RUN_DIR NAME`` copies a trained agent into the
package, from where ``load("pretrained:NAME")`` loads it.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metarl.agents.ensemble import Ensemble
from metarl.core.agent import AgentConfig, LearningAgent
from metarl.core.errors import brief, nearest, short, unknown
from metarl.core.family import TaskFamily
from metarl.core.faults.given import device_here
from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.files import curve_files, partial_name, read_json, replace_file, sync_folder, to_json
from metarl.interop.export.manifest import MANIFEST
from metarl.interop.export.playing import OnnxAgent
from metarl.learning.samplers.sampler import TaskSampler
from metarl.report.console import Parser, at_home, in_words
from metarl.training import ring_files, state_file
from metarl.training.config import parsing as configuration
from metarl.training.config.errors import ConfigError
from metarl.training.config.file import check_regular, complete, read_yaml
from metarl.training.config.line import below_here, start_command
from metarl.training.state_file import Counters, Damaged

CHECKPOINT, AGENT = "checkpoint.safetensors", "agent.safetensors"  # of a run; of a trained agent in the package


BEST = "best.safetensors"
"""File of the agent of a run with the best score on `valid`, without the optimiser's state."""


ENSEMBLE = "ensemble.yaml"
"""File with the options of a saved ensemble, next to the folders ``member_1``, ``member_2`` … of its members."""


NUMBERED = re.compile(r"checkpoint_(0|[1-9]\d{0,15})\.safetensors", re.ASCII).fullmatch
"""Matches the names of the files of kept checkpoints."""


PRETRAINED = Path(__file__).parents[1] / "pretrained"


SEE_AGENTS = "metarl.training.checkpoint.pretrained()"


def save(
    run_dir: str | Path, agent: LearningAgent, counters: Counters, keep: int = 1, sampler: TaskSampler | None = None
) -> Path:
    """Replace the run's checkpoint atomically: a crash leaves either the old or the new file complete.

    With `keep` above 1, the last `keep` checkpoints are also kept as ``checkpoint_<iteration>.safetensors``. The
    checkpoint includes the state of the run's task sampler.
    """
    folder = Path(run_dir)
    _export(agent, folder)
    content = state_file.pack(agent.state_dict(), counters, sampler.state_dict() if sampler else None)
    if keep > 1:
        replace_file(folder / f"checkpoint_{counters.iteration}.safetensors", content)
    replace_file(folder / CHECKPOINT, content)
    if keep > 1:
        for number, path in enumerate(_numbered(folder, counters.iteration).values()):
            if number >= keep:
                path.unlink()
    return folder / CHECKPOINT


def save_best(run_dir: str | Path, agent: LearningAgent, counters: Counters) -> Path:
    """Replace the file of the run's best agent."""
    path = Path(run_dir) / BEST
    replace_file(path, state_file.pack(state_file.without_optimiser(agent.state_dict()), counters))
    return path


def _export(agent: LearningAgent, folder: Path) -> None:
    """Replace the files that the agent writes for other libraries, which it first writes to a temporary folder."""
    if type(agent).export is LearningAgent.export:
        return
    partial = partial_name(folder / "export")
    partial.mkdir()
    try:
        agent.export(partial)
        for made in [path for path in sorted(partial.rglob("*")) if path.is_file()]:
            target = folder / made.relative_to(partial)
            target.parent.mkdir(parents=True, exist_ok=True)
            with made.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(made, target)
        sync_folder(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _numbered(folder: Path, until: int | None = None) -> dict[int, Path]:
    """Return the kept checkpoints of a run up to iteration `until`, by iteration, latest first."""
    found = {int(match[1]): path for path in folder.glob("checkpoint_*.safetensors") if (match := NUMBERED(path.name))}
    return {number: found[number] for number in sorted(found, reverse=True) if until is None or number <= until}


def newest(run_dir: str | Path) -> Path | None:
    """Return the checkpoint from which a run continues; None if it has none yet.

    It is a numbered one if the run was killed at its first checkpoint, after writing the numbered one.
    """
    return next(iter(_last_first(Path(run_dir))), None)


def _last_first(folder: Path) -> list[Path]:
    """Return the checkpoints from which a run can continue, in the order in which they are tried."""
    last = [folder / CHECKPOINT] if (folder / CHECKPOINT).exists() else []
    return [*last, *_numbered(folder).values()]


def oldest(run_dir: Path, iteration: int) -> int:
    """Return the iteration of the oldest checkpoint that a run keeps if its last checkpoint is of `iteration`."""
    return min(_numbered(run_dir, iteration), default=iteration)


def load_state(
    run_dir: str | Path, device: torch.device | str = "cpu", which: str | int = "last"
) -> tuple[dict[str, Tensor], Counters]:
    """Load tensors and counters of a run's last or best checkpoint, or of the folder of an agent in the package.

    `which` may also be the iteration of a kept checkpoint. Raises ConfigError if the checkpoint does not exist or
    cannot be read.
    """
    saved = state_file.read(_path_of(Path(run_dir), which), device)
    return saved.state, saved.counters


def _path_of(folder: Path, which: str | int) -> Path:
    if type(which) is int:
        kept = _numbered(folder)
        if which not in kept:
            there = f"it has those of {', '.join(map(str, kept))}" if kept else "train with --keep_checkpoints above 1"
            raise ConfigError(f"The run in {str(folder)!r} keeps no checkpoint of iteration {which}: {there[:100]}.")
        return kept[which]
    if which not in ("last", "best"):
        raise ConfigError(f"which must be 'last', 'best' or the number of an iteration, got {which!r}.")
    names = (CHECKPOINT, AGENT) if which == "last" else (BEST,)
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None and (folder / MANIFEST).is_file():
        raise ConfigError(f"The folder {str(folder)!r} is an export, not a run: only metarl evaluate can play it.")
    if path is None and which == "best":
        raise ConfigError(
            f"The run in {str(folder)!r} has no best checkpoint, since it was not evaluated on 'valid': "
            "load the last one, or train with eval_splits that contain valid."
        )
    if path is None:
        raise ConfigError(
            f"The run in {str(below_here(folder))!r} has no checkpoint yet; start it again with: "
            f"{start_command(folder)}"
        )
    return path


def restore(run_dir: str | Path, agent: LearningAgent, which: str | int = "last") -> Counters:
    """Load the state of a checkpoint into `agent`, which must have the same configuration.

    Raises ConfigError if there is no checkpoint, it is damaged, or it does not match the agent.
    """
    return _restore(_path_of(Path(run_dir), which), agent)


def restore_last_good(
    run_dir: str | Path, agent: LearningAgent, warn: Callable[[str], None], sampler: TaskSampler | None = None
) -> Counters:
    """Load the state of the last undamaged checkpoint into `agent` and the run's task sampler.

    Warns if it is not the last checkpoint. Returns zero counters if the run has no checkpoint yet. Raises ConfigError
    if all checkpoints are damaged, if the last good one does not match the agent, or if the agent's replay files are
    missing.
    """
    folder = Path(run_dir)
    first: Damaged | None = None
    for path in _last_first(folder):
        try:
            counters = _restore(path, agent, sampler)
            ring_files.restore(folder, agent.ring, counters.iteration, agent.device)
        except Damaged as error:
            first = first or error
            continue
        if first is not None:
            warn(f"{first} The run continues from {path.name!r} instead, after iteration {counters.iteration}.")
        return counters
    if first is not None:
        raise first
    return Counters()


def _restore(path: Path, agent: LearningAgent, sampler: TaskSampler | None = None) -> Counters:
    saved = state_file.read(path, agent.device)
    reason = state_file.put(saved, agent, agent.load_state_dict)
    if reason is None:
        own = agent.state_dict()
        if not any(name.startswith("optimizer.") for name in saved.state):  # an agent made only for acting
            own = state_file.without_optimiser(own)
        reason = state_file.misfit(saved, state_file.kinds(own))
    if reason is None and sampler is not None:
        reason = state_file.put_sampler(saved, sampler)
    if reason is not None:
        raise ConfigError(f"The checkpoint {str(path)!r} does not fit its config.yaml: {reason}.")
    return saved.counters


def start_from(name: str, agent: LearningAgent) -> None:
    """Initialise `agent` from the agent of a run or of ``pretrained:NAME``; only tensors are read.

    Raises ConfigError if there is no such agent or the two do not match.
    """
    saved = state_file.read(_path_of(find(name), "last"), agent.device)
    saved = saved._replace(state=agent.starting_state(state_file.without_optimiser(saved.state)))
    reason = state_file.put(saved, agent, agent.start_from)
    if reason is None:
        reason = state_file.misfit(saved, state_file.kinds(state_file.without_optimiser(agent.state_dict())))
    if reason is not None:
        raise ConfigError(
            f"init_from must name an agent of the same kind and sizes on the same spaces; that of {str(name)!r} does "
            f"not fit: {reason}."
        )


def load(
    name: str | Path, device: torch.device | str = "cpu", which: str | int = "last", allow: Sequence[str] = ()
) -> LearningAgent:
    """Load the agent of a run directory, or a trained one that ships with the package: ``"pretrained:rl2_gridnavi"``.

    `which` is "last", the agent at the end of training, "best", the agent with the best score on `valid`, or the
    iteration of a kept checkpoint (`keep_checkpoints`). The agent has the attributes `config` and `family`. A run
    directory is only data: nothing but the packages in `allow` is imported for it. The folder of an export can be
    loaded, too, as an `OnnxAgent`, and so can that of an `Ensemble` (`metarl.ensemble`). Raises ConfigError if there is
    no such agent.
    """
    if not isinstance(name, (str, Path)):
        raise TypeError(f"name must be a run directory or pretrained:NAME, got {short(name)}.")
    allow = [allow] if isinstance(allow, str) else allow
    device = device_here(device)
    folder = find(name, ensembles=True)
    if (folder / ENSEMBLE).is_file():
        return _ensemble(folder, device, which, allow)
    try:
        config = configuration.read(folder / "config.yaml", [f"--allow={package}" for package in allow])
    except ConfigError as error:
        raise ConfigError(f"The run in {str(folder)!r} cannot be loaded: {error}") from error
    if (folder / MANIFEST).is_file():
        return _exported(folder, config.agent, config.family, which)
    agent = config.agent.build(config.family, config.seed, torch.device(device))
    counters = restore(folder, agent, which)
    agent.trained = progress(config.seed, counters)
    return agent


def members_of(folder: Path) -> list[Path]:
    """Return the folders of the members of a saved ensemble, in order; none for a run."""
    found = [path.parent for path in folder.glob("member_*/config.yaml") if path.parent.name[7:].isdigit()]
    return sorted(found, key=lambda path: int(path.name[7:])) if (folder / ENSEMBLE).is_file() else []


def _ensemble(folder: Path, device: torch.device | str, which: str | int, allow: Sequence[str]) -> Ensemble:
    """Load the ensemble in a folder."""
    if which != "last":
        raise ConfigError(f"An ensemble holds one checkpoint of each member: leave out which={which!r}.")
    options = read_yaml(folder / ENSEMBLE)
    members = [load(path, device, allow=allow) for path in members_of(folder)]
    try:
        agent = Ensemble(members, **options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"The ensemble in {str(folder)!r} cannot be loaded: {error}") from error
    agent.trained = {**members[0].trained, "env_steps": sum(member.trained["env_steps"] for member in members)}
    return agent


def _exported(folder: Path, config: AgentConfig, family: TaskFamily, which: str | int) -> OnnxAgent:
    """Open the program in the folder of an export."""
    if which != "last":
        raise ConfigError(f"The export in {str(folder)!r} has a single checkpoint: leave out which={which!r}.")
    try:
        return OnnxAgent(folder, family, config)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def progress(seed: int, counters: Counters) -> dict[str, int]:
    """Return an agent's training progress, which its curves record."""
    return {"seed": seed, "iteration": counters.iteration, "env_steps": counters.env_steps}


def runs_of(name: str | Path) -> Sequence[str | Path]:
    """Return the run itself, or the runs ``seed_1``, ``seed_2`` … in a folder with several training seeds, in order."""
    if isinstance(name, str) and name.startswith("pretrained:"):
        return [name]
    folder = Path(at_home(name))
    seeds = [path.parent for path in folder.glob("seed_*/config.yaml") if path.parent.name[5:].isdigit()]
    if (folder / "config.yaml").is_file() or not seeds:
        return [name]
    return sorted(seeds, key=lambda path: int(path.name[5:]))


def find(name: str | Path, ensembles: bool = False) -> Path:
    """Return the folder of a run, of ``pretrained:NAME``, or, if `ensembles`, of an ensemble.

    Raises ConfigError if there is no such folder.
    """
    if isinstance(name, str) and name.startswith("pretrained:"):
        known = pretrained()
        if name not in known:
            raise ConfigError(unknown("trained agent", name, known, see=SEE_AGENTS))
        return PRETRAINED / name.removeprefix("pretrained:")
    folder = Path(at_home(name))
    if not folder.is_dir():
        known = pretrained()
        near = nearest(str(name), known, see=SEE_AGENTS, width=60) if known else ""
        also = f", and no agent of that name comes with the package. {near}" if known else "."
        also = also if len(str(name)) <= 40 else "."  # a longer one is a path
        raise ConfigError(f"There is no run directory {brief(str(folder), 160)!r}{also}")
    ensemble = (folder / ENSEMBLE).is_file()
    if ensemble and not ensembles:
        raise ConfigError(f"The folder {str(folder)!r} is an ensemble, not a run: name one of its members.")
    if not ensemble and not (folder / "config.yaml").is_file():
        raise ConfigError(f"The folder {str(folder)!r} is not a run: it has no config.yaml.")
    check_regular(folder)
    return folder


def pretrained() -> list[str]:
    """Return the names of the trained agents in the package, for `load`."""
    return sorted(f"pretrained:{path.parent.name}" for path in PRETRAINED.glob(f"*/{AGENT}"))


def export_pretrained(run_dir: str | Path, name: str, into: str | Path = PRETRAINED) -> Path:
    """Copy a run's agent (without optimiser), configuration and final curves to ``into/name``; return that folder."""
    if not re.fullmatch(r"\w[\w.+-]*", name):
        raise ConfigError(f"The name of a trained agent must consist of letters, digits and -_.+, got {name!r}.")
    source, target = find(run_dir), Path(into) / name
    curves = {path.stem: _document(path) for path in curve_files(source / "evaluation")}
    if not curves:
        raise ConfigError(f"The run in {str(source)!r} has no evaluation: finish it, or run metarl evaluate on it.")
    copy_agent(source, target)
    replace_file(target / "curve.json", to_json(curves, indent=1, ensure_ascii=False) + "\n")
    return target


def copy_agent(source: Path, target: Path, which: str | int = "last", allow: Sequence[str] = ()) -> None:
    """Copy the agent of a run (without optimiser) and its configuration into the folder `target`."""
    state, counters = load_state(source, which=which)
    target.mkdir(parents=True, exist_ok=True)
    replace_file(target / AGENT, state_file.pack(state_file.without_optimiser(state), counters))
    # The agent does not depend on the run's folder and number of threads.
    allowed = [f"--allow={package}" for package in allow]
    config = configuration.portable(configuration.parse(["--config", str(source / "config.yaml"), *allowed]))
    config |= {"run_dir": None, "num_threads": None}
    replace_file(target / "config.yaml", complete(configuration.as_yaml(config)))


def _document(path: Path) -> dict[str, Any]:
    """Read a curve's JSON file, without the checksums of files that are not copied. Raises ValueError if damaged."""
    AdaptationCurve.load(path)
    return {name: value for name, value in read_json(path).items() if name not in ("checksum", "checksums")}


def main(args: Sequence[str] | None = None) -> int:
    """Run the program. Returns 0, or 2 after a message on standard error for a user's mistake."""
    parser = Parser(
        prog="python -m metarl.training.checkpoint", description="Put a run's trained agent into the package."
    )
    parser.add_argument("run_dir", metavar="RUN_DIR", help="the folder of a finished run")
    parser.add_argument("name", metavar="NAME", help="it will be known as pretrained:NAME")
    given = parser.read(args)
    try:
        print(f"Wrote {export_pretrained(given.run_dir, given.name)}")
    except (ValueError, OSError) as mistake:
        print(
            f"metarl.training.checkpoint: {in_words(mistake) if isinstance(mistake, OSError) else mistake}",
            file=sys.stderr,
        )
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
