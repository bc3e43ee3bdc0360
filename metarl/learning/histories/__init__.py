"""Learning histories: everything that an agent did on a task while it learned, in files, as data for other learners."""
