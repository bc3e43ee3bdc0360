"""The scripts that make the numbers in the README. Run from a checkout: ``python -m benchmarks.steps``."""
