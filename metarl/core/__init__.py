"""The five nouns: tasks and families, batch environments, rollouts, agents; and what they stand on."""
