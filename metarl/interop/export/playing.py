"""An exported program as an agent, which the evaluator plays like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metarl.core.agent import AgentConfig, LearningAgent
from metarl.core.batch_env import Step
from metarl.core.family import AnyFamily, Key, Task
from metarl.core.rollout import Acted, Memory, Rollout, TrialProtocol
from metarl.core.units import ActionUnits
from metarl.interop.export.manifest import read_manifest
from metarl.interop.export.program import STEP, policy_of
from metarl.interop.export.writing import FILES, NEEDED
from metarl.learning.soft import SquashedGaussian


class OnnxAgent(LearningAgent):
    """A policy from the folder of an export, run by onnxruntime. It samples actions as the original agent does.

    Its memory is a dictionary of tensors. It does not learn from `adapt`, nor from `update`.
    """

    def __init__(self, folder: str | Path, family: AnyFamily, config: AgentConfig | None = None) -> None:
        """Open the export in `folder`, of an agent that was trained on `family`.

        Raises ValueError if it cannot be opened, does not fit the family, or onnxruntime is missing.
        """
        self.manifest, self.family = read_manifest(Path(folder)), family
        self.config, self.device = config or AgentConfig(), torch.device("cpu")
        self.actions = ActionUnits(family.action_space)
        self.session = open_session(Path(folder), self.manifest)
        self.names = [put.name for put in self.session.get_outputs()]
        self.protocol = TrialProtocol(episodes=self.manifest["episodes"])
        self.trained = self.manifest["trained"]
        expected = ["rows", *family.observation_space.shape]
        shapes = {each["name"]: each["shape"] for each in self.manifest["inputs"]}
        if shapes["obs"] != expected or self.manifest["action_space"] != str(family.action_space):
            raise ValueError(f"The export in {str(folder)!r} is for {self.manifest['family']}, not {family}.")

    @property
    def title(self) -> str:
        pruned = f", {self.manifest['pruned']:.0%} pruned" if self.manifest["pruned"] else ""
        return f"{self.manifest['agent']} (ONNX, {self.manifest['weights']}{pruned})"

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        found = {}
        for each in self.manifest["inputs"]:
            if each["name"] in self.manifest["memory"]:
                found[each["name"]] = torch.zeros(num_tasks, *each["shape"][1:], dtype=getattr(torch, each["type"]))
        return found

    def run(self, memory: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        """Return the program's outputs ``(B, …)`` by name.

        A quantised program gets the rows one by one, as on a device, since it uses one range for a whole batch.
        """
        inputs = {name: x.numpy() for name, x in (*zip(STEP, step, strict=True), *memory.items())}
        if self.manifest["weights"] != "int8":
            outputs = self.session.run(None, inputs)
        else:
            rows = [
                self.session.run(None, {name: x[row : row + 1] for name, x in inputs.items()})
                for row in range(len(inputs["obs"]))
            ]
            outputs = [np.concatenate(parts) for parts in zip(*rows, strict=True)]
        return {name: torch.from_numpy(np.asarray(x)) for name, x in zip(self.names, outputs, strict=True)}

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        outputs = self.run(memory, step)
        policy = policy_of(self.manifest["policy"]["kind"], outputs, self.actions)
        action = outputs["action"]
        if policy is not None and not greedy:
            own = policy.draw(key)[0] if isinstance(policy, SquashedGaussian) else policy.sample(key)
            action = self.actions.to_family(own)
        zeros = torch.zeros(len(key))  # no training, so log-probabilities are unused
        return Acted(action, zeros, zeros), {name: outputs[after] for name, after in self.manifest["memory"].items()}

    def adapt(self, memory: Memory, rollout: Rollout) -> Memory:
        return memory

    def update(self, trial: list[Rollout], progress: float = 0.0) -> dict[str, float]:
        """Raise TypeError: an export does not learn."""
        raise TypeError("An export does not learn: train the agent that it was made from.")


def open_session(folder: Path, manifest: dict[str, Any]) -> Any:
    """Open the program of an export in onnxruntime, with one thread. Raises ValueError if that fails."""
    try:
        import onnxruntime  # an extra
    except ImportError as error:
        raise ValueError(NEEDED) from error
    if manifest["format"] != "onnx":
        raise ValueError(f"The export in {str(folder)!r} has the format {manifest['format']}; only onnx can be played.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    path = folder / FILES["onnx"]
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common class
        raise ValueError(f"The program {str(path)!r} cannot be opened: it is missing or damaged.") from error
