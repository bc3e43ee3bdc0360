"""Bandits: an episode is one pull, a trial is n pulls (restless bandits: an episode is all pulls)."""
