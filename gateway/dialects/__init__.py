"""Five products' session APIs over the gateway's one state, each in a package of its own.

``routes`` has the table of a product's endpoints and ``style`` the port of its HTTP API, ``codec``
the port of its live channel if it has one. ``endpoints_*`` handle requests, ``schema`` has the
types of the API, and ``render`` makes them of sessions. Dialects do not import each other.
"""
