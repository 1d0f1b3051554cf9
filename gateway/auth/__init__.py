"""Who may come in: tokens, keys, people, and what a request shows of itself."""
