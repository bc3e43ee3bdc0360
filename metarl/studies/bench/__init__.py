"""metarl-bench: evaluates agents on families by a fixed, versioned protocol; results are a file, a table and a page."""
