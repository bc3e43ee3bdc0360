"""Tasks of a family: the splits from which they are drawn, and pictures of trials."""
