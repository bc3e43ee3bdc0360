"""Probing: linear decoders from a frozen agent's memory to the exact belief and to the task."""

from metarl.evaluation.probing.probe import Probe, probe

__all__ = ["Probe", "probe"]
