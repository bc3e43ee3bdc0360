"""Reference players: classical, scripted and exact ones, which learned agents are compared with."""
