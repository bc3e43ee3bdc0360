"""The core: tasks and families, batch environments, rollouts, agents, and shared tools."""
