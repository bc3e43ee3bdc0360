"""Faults during a run: each is skipped, causes a warning, or ends the run with one sentence."""
