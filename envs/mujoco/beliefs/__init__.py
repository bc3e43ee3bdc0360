"""Exact beliefs over the tasks of robots, which only rewards reveal."""
