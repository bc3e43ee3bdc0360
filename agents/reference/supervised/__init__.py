"""Reference players for supervised few-shot learning."""
