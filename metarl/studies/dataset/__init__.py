"""Data sets of learning histories: the players (`sources`), and the recording (`recording`)."""
