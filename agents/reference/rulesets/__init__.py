"""Reference players for rulesets."""
