"""metarl-bench: agents on families by a fixed, versioned protocol; results as a file, a table and a page."""
