"""Pictures of embeddings: where an agent's vectors for the tasks lie, next to what the tasks are."""
