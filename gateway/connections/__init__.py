"""The long-lived connections of this process: the life of one, and the registry of all."""
