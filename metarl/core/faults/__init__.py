"""Faults of what a family returns, and of what a user asks for: sentences that say what is wrong, and where."""
