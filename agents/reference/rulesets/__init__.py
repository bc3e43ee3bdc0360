"""Reference agents for rulesets."""
