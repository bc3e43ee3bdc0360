"""Saving and loading: safetensors for the tensors, JSON for the counters, no pickle anywhere.

A checkpoint is one file, replaced in one step: the counters are JSON in the header of the safetensors file, so that
counters and tensors always belong to the same iteration. A checksum in the header is compared when the file is read.
``python -m metarl.training.checkpoint RUN_DIR NAME`` copies a trained agent into the package, from where
``load("pretrained:NAME")`` loads it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shlex
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from metarl.core.agent import LearningAgent
from metarl.core.errors import brief, nearest, unknown
from metarl.evaluation.finite import to_json
from metarl.report.console import Parser, at_home, in_words
from metarl.training.config import parsing as configuration
from metarl.training.config.errors import ConfigError
from metarl.training.config.file import check_regular

FORMAT = 1
"""The version of the file format; it grows whenever older files can no longer be read."""


KEYS = {"format", "counters", "sha256"}
"""Entries of a file's header; former files have no checksum."""


CHECKPOINT, AGENT = "checkpoint.safetensors", "agent.safetensors"  # of a run; of a trained agent in the package


BEST = "best.safetensors"
"""The file of a run's agent that scored best on `valid`, without the optimiser's state."""


PRETRAINED = Path(__file__).parents[1] / "pretrained"


SEE_AGENTS = "metarl.training.checkpoint.pretrained()"


@dataclass(frozen=True)
class Counters:
    """The progress of a run."""

    iteration: int = 0  # iterations done
    env_steps: int = 0  # environment steps of training, padding not counted
    seconds: float = 0.0  # of training, evaluations included
    best_score: float | None = None  # on `valid`, of the evaluations so far; None: there was none
    best_iteration: int = 0


def save(run_dir: str | Path, agent: LearningAgent, counters: Counters) -> Path:
    """Replace the run's checkpoint. A crash at any moment leaves either the old or the new file complete."""
    agent.export(Path(run_dir))
    return _write(Path(run_dir) / CHECKPOINT, agent.state_dict(), counters)


def save_best(run_dir: str | Path, agent: LearningAgent, counters: Counters) -> Path:
    """Replace the file of the run's best agent."""
    kept = {key: value for key, value in agent.state_dict().items() if not key.startswith("optimizer.")}
    return _write(Path(run_dir) / BEST, kept, counters)


def load_state(
    run_dir: str | Path, device: torch.device | str = "cpu", which: str = "last"
) -> tuple[dict[str, Tensor], Counters]:
    """Load tensors and counters of a run's last or best checkpoint, or of the folder of an agent in the package.

    Raises ConfigError (one sentence) if there is none, or it cannot be read.
    """
    if which not in ("last", "best"):
        raise ConfigError(f"which must be 'last' or 'best', got {which!r}.")
    folder = Path(run_dir)
    names = (CHECKPOINT, AGENT) if which == "last" else (BEST,)
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None and which == "best":
        raise ConfigError(
            f"The run in {str(folder)!r} has no best checkpoint, since it was not evaluated on 'valid': "
            "load the last one, or train with eval_splits that contain valid."
        )
    if path is None:
        raise ConfigError(f"The run in {str(folder)!r} has no checkpoint yet; continue it by: {resume_command(folder)}")
    try:
        with safetensors.safe_open(path, framework="pt", device=str(device)) as file:
            header = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no dictionary)
    except (safetensors.SafetensorError, OSError) as error:
        reason = textwrap.shorten(str(error), 100, placeholder=" …")
        raise ConfigError(f"The checkpoint {str(path)!r} cannot be read: {reason}.") from error
    stated = header.get("sha256")
    if header.keys() - KEYS or (stated is not None and stated != _digest(state, header.get("counters", ""))):
        raise ConfigError(
            f"The checkpoint {str(path)!r} is damaged: its content does not match its checksum. Use a copy of it."
        )
    if header.get("format") != str(FORMAT):
        found = header.get("format", "unknown")
        raise ConfigError(f"The checkpoint {str(path)!r} has format {found}; this version of metarl reads {FORMAT}.")
    try:
        return state, Counters(**json.loads(header["counters"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"The checkpoint {str(path)!r} cannot be read: its counters are damaged.") from error


def restore(run_dir: str | Path, agent: LearningAgent, which: str = "last") -> Counters:
    """Put the state of a checkpoint into `agent`, which was built from the same configuration."""
    state, counters = load_state(run_dir, agent.device, which)
    try:
        agent.load_state_dict(state)
    except (RuntimeError, KeyError) as error:
        reason = _first_reasons(error)
        raise ConfigError(f"The checkpoint in {str(run_dir)!r} does not fit its config.yaml: {reason}") from error
    return counters


def start_from(name: str, agent: LearningAgent) -> None:
    """Let `agent` begin with what the agent of a run, or of ``pretrained:NAME``, has learned; only tensors are read.

    Raises ConfigError (one sentence) if there is no such agent, or the two do not fit.
    """
    state, _ = load_state(find(name), agent.device)
    try:
        agent.start_from(state)
    except (RuntimeError, KeyError) as error:
        raise ConfigError(
            f"init_from must name an agent of the same kind and sizes on the same spaces; that of {name!r} does not "
            f"fit: {_first_reasons(error)}"
        ) from error


def _first_reasons(error: Exception) -> str:
    """The first of what torch says of every tensor that does not fit."""
    reasons = [line.strip() for line in str(error).splitlines() if line.strip()]
    more = f" And {len(reasons) - 2} more." if len(reasons) > 2 else ""
    return " ".join(reasons[:2]) + more


def load(
    name: str | Path, device: torch.device | str = "cpu", which: str = "last", allow: Sequence[str] = ()
) -> LearningAgent:
    """Load the agent of a run directory, or a trained one that comes with the package: ``"pretrained:rl2_gridnavi"``.

    `which` is "last", the agent at the end of training, or "best", the agent with the best score on `valid`. The agent
    has the attributes `config` and `family`. A run directory is data: only the packages in `allow` are imported for it.
    Raises ConfigError (one sentence) if there is no such agent.
    """
    folder = find(name)
    try:
        config = configuration.read(folder / "config.yaml", [f"--allow={package}" for package in allow])
    except ConfigError as error:
        raise ConfigError(f"The run in {str(folder)!r} cannot be loaded: {error}") from error
    agent = config.agent.build(config.family, config.seed, torch.device(device))
    counters = restore(folder, agent, which)
    agent.trained = progress(config.seed, counters)
    return agent


def resume_command(run_dir: str | Path, allow: Sequence[str] = ()) -> str:
    """Return the command that continues a run that needs the packages in `allow`."""
    allowed = [word for package in allow for word in ("--allow", package)]
    return shlex.join(["python", "-m", "metarl.train", "--resume", str(run_dir), *allowed])


def progress(seed: int, counters: Counters) -> dict[str, int]:
    """Return an agent's progress in training, which its curves note."""
    return {"seed": seed, "iteration": counters.iteration, "env_steps": counters.env_steps}


def runs_of(name: str | Path) -> Sequence[str | Path]:
    """Return the run itself, or the runs ``seed_1``, ``seed_2`` … in a folder of several training seeds, in order."""
    if isinstance(name, str) and name.startswith("pretrained:"):
        return [name]
    folder = Path(at_home(name))
    seeds = [path.parent for path in folder.glob("seed_*/config.yaml") if path.parent.name[5:].isdigit()]
    if (folder / "config.yaml").is_file() or not seeds:
        return [name]
    return sorted(seeds, key=lambda path: int(path.name[5:]))


def find(name: str | Path) -> Path:
    """Return the folder of a run, or of ``pretrained:NAME``. Raises ConfigError if it holds no run."""
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
    if not (folder / "config.yaml").is_file():
        raise ConfigError(f"The folder {str(folder)!r} holds no run: it has no config.yaml.")
    check_regular(folder)
    return folder


def pretrained() -> list[str]:
    """Return the names of the trained agents in the package, as `load` takes them."""
    return sorted(f"pretrained:{path.parent.name}" for path in PRETRAINED.glob(f"*/{AGENT}"))


def export_pretrained(run_dir: str | Path, name: str, into: str | Path = PRETRAINED) -> Path:
    """Copy a run's agent (without optimiser), configuration and final curves to ``into/name``; return that folder."""
    if not re.fullmatch(r"\w[\w.+-]*", name):
        raise ConfigError(f"The name of a trained agent is made of letters, digits and -_.+, got {name!r}.")
    source, target = find(run_dir), Path(into) / name
    curves = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(source.glob("evaluation/*.json"))}
    if not curves:
        raise ConfigError(f"The run in {str(source)!r} has no evaluation: finish it, or run metarl evaluate on it.")
    state, counters = load_state(source)
    target.mkdir(parents=True, exist_ok=True)
    kept = {key: value for key, value in state.items() if not key.startswith("optimizer.")}
    _write(target / AGENT, kept, counters)
    # The run's folder and its number of threads do not matter for the agent.
    config = configuration.parse(["--config", str(source / "config.yaml")]).values
    config |= {"run_dir": None, "num_threads": None}
    (target / "config.yaml").write_text(configuration.as_yaml(config), encoding="utf-8")
    (target / "curve.json").write_text(to_json(curves, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return target


def _write(path: Path, state: dict[str, Tensor], counters: Counters) -> Path:
    """Write a file next to `path`, flush it to the disk, then rename it to `path`."""
    # Copies: safetensors refuses tensors that share memory, such as views of one flat buffer of parameters.
    tensors = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in state.items()}
    header = {"format": str(FORMAT), "counters": json.dumps(dataclasses.asdict(counters))}
    header["sha256"] = _digest(tensors, header["counters"])
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        file.write(safetensors.torch.save(tensors, header))
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    return path


def _digest(state: dict[str, Tensor], counters: str) -> str:
    """Return the SHA-256 of names, types, shapes and bytes of all tensors, and of the counters, in hexadecimal."""
    found = hashlib.sha256(counters.encode())
    for name, value in sorted(state.items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        found.update(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def main(args: Sequence[str] | None = None) -> int:
    """Run the program. Returns 0, or 2 after one sentence on standard error for a mistake of the user's."""
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
