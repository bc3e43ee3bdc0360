"""Learning histories: what an agent did on a task from its first episode to its last, in files, for other learners."""
