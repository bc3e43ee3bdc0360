"""Sample efficiency: performance during training, by environment steps or seconds."""
