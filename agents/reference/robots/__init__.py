"""Reference players for robots."""
