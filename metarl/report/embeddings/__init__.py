"""Pictures of embeddings: an agent's vectors for the tasks, compared with the true tasks."""
