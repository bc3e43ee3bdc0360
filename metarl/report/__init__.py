"""Reports: tables, figures, comparisons, pictures of behaviour, videos, cards, the console."""
