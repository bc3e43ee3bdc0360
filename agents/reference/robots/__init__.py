"""Reference agents for robots."""
