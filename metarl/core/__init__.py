"""The core: tasks and families, batch environments, rollouts, agents, and the tools that these share."""
