"""How fast an agent adapts: the evaluator, its curves, their statistics and comparisons."""
