"""Data sets of learning histories: who plays (`sources`), and how it is written down (`recording`)."""
