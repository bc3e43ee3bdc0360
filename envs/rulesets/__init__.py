"""Rulesets: goals and production rules over coloured tiles in a room, after XLand-MiniGrid (Nikulin et al. 2023)."""
