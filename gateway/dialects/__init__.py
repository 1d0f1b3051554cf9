"""Five products' session APIs over the gateway's one state, each in its own room.

A dialect is a package with two modules: ``shapes``, pure rendering in the product's words, and
``routes``, its paths, auth style, errors and live channel. Dialects do not know each other.
"""
