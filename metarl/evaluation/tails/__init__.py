"""The tasks on which an agent is worst."""
