"""Session Gateway: who is connected right now, told live, closed politely.

The server is run by the ``gateway`` command; Python programs talk to it through
``gateway.client``. Everything else in this package is the server's own and may change
between releases. The architecture is in ``README.md`` beside this file.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
