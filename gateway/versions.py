"""Versions of the libraries whose private parts we override; checked when a gateway starts.

A library may change its private parts in any minor version, so ``pyproject.toml`` pins these to
one. Another one would fail later, under load, with a message that names neither library nor reason.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import Final

__all__ = ["EXPECTED", "UnexpectedVersion", "check_versions"]

EXPECTED: Final = {
    "httptools": "0.9",  # transport/http.py: the parser behind uvicorn's protocol class
    "redis": "8.1",  # store/connection.py: the bare connection below its clients
    "uvicorn": "0.54",  # transport/uvicorn_internals.py: its protocol class and request cycle
    "websockets": "17.4",  # transport/parser.py: frames of the sans-I/O protocol
}
"""The minor version of each, and the one file that overrides it."""


class UnexpectedVersion(Exception):
    """A library has another version than the gateway was made for; it does not start."""


def check_versions() -> None:
    """Raise if a library has another minor version than the one that was expected.

    Raises:
        UnexpectedVersion: Says which is installed, which is expected, and what to do.
    """
    for name, expected in EXPECTED.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            found = "none"
        if found != expected and not found.startswith(f"{expected}."):
            raise UnexpectedVersion(
                f"{name} {found} is installed, but this gateway overrides private parts of"
                f" {name} {expected}: pip install '{name}~={expected}.0'"
            )
