"""Long-lived connections of clients: handshake, states, sessions, subscriptions, event streams."""
