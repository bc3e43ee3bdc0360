"""Tasks of a family: the splits they are drawn from, and pictures of trials on them."""
