"""The evaluator, its adaptation curves, and their statistics."""
