"""What was wrong with a configuration, in one sentence that names the nearest right name.

Parsing itself is jsonargparse's; only when it has failed is the input looked through again, for the wrong name.
"""
