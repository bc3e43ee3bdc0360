"""The benchmarks of Meta-World, which `pip install 'metarl[metaworld]'` brings in a virtual environment of its own."""
