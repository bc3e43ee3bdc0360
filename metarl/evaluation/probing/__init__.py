"""Linear decoders from a frozen agent's memory to the exact belief and to the task: knowledge that a memory holds."""

from metarl.evaluation.probing.probe import Probe, probe

__all__ = ["Probe", "probe"]
