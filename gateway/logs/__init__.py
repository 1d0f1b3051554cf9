"""Logs: one line per fact, a constant message with fields, for people or for programs.

Every line of the gateway is a record of the standard library's ``logging``: the message is a
constant, what varies is a field (``extra``). ``formats`` writes both formats, ``request`` names the
request that is being handled, ``throttle`` bounds what clients can cause.

Not here: the table of all messages (``docs/logs.md``, which a test compares with the code).
"""
