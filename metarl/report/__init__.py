"""What people look at: tables, figures, pictures of behaviour, videos, cards, the console."""
