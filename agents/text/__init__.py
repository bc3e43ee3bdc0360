"""Agents that read and write text: `agent.py` is the agent, `prompt.py` writes prompts, `answers.py` parses answers."""

from metarl.agents.text.agent import Answers, TextAgent

__all__ = ["Answers", "TextAgent"]
