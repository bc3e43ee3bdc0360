"""Reference agents for supervised few-shot learning."""
