"""The pure core: model, decisions and messages; no clock, log, socket or randomness."""
