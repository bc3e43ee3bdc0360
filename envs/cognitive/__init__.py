"""Tasks from cognitive science."""
