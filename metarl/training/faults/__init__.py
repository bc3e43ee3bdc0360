"""Faults while a run goes on: each is skipped, warned of, or ends the run in one sentence."""
