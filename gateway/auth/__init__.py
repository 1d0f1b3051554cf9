"""Authentication and authorization: credentials, tokens, keys, users and rate limits."""
