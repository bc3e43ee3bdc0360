"""Exact inference about the task, from what an agent sees."""
