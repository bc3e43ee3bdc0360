"""Players that read and write text: read `agent.py` for the player, `prompt.py` for what it reads, `answers.py` for how
its answers are read.
"""

from metarl.agents.text.agent import Answers, TextAgent

__all__ = ["Answers", "TextAgent"]
