"""The benchmarks of Meta-World (`pip install 'metarl[metaworld]'` in a separate virtual environment)."""
