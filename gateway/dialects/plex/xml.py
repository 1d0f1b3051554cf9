"""XML: Plex's other spelling of the same words; the one it uses unless JSON is asked for.

Scalars become attributes, objects become elements, true is ``1``; the items of a library are
called ``Video``, ``Track`` or ``Photo`` by what they are. Characters that XML 1.0 cannot carry are
dropped.
"""

import re
from collections.abc import Iterable
from typing import Any, Final

from msgspec import to_builtins

from gateway.dialects.plex.words import Word

HEADER: Final = '<?xml version="1.0" encoding="UTF-8"?>\n'
METADATA: Final = "Metadata"  # the JSON name that has no element of its own

_ELEMENTS: Final = {"track": "Track", "photo": "Photo"}
# Extensible Markup Language 1.0, section 2.2: the production Char, negated.
_ILLEGAL: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ESCAPED: Final = str.maketrans(
    {
        "&": "&amp;",
        "<": "&lt;",
        ">": "&gt;",
        '"': "&quot;",
        "\t": "&#9;",  # section 3.3.3: a parser would turn these three into blanks
        "\n": "&#10;",
        "\r": "&#13;",
    }
)


def document(container: Word, children: Iterable[str] = ()) -> bytes:
    """Return a ``MediaContainer`` with *children*, which are elements already."""
    inner = "".join(children)
    return (HEADER + _element("MediaContainer", to_builtins(container), inner)).encode()


def element(name: str, word: Word) -> str:
    """Return *word* as an element; :data:`METADATA` is called by its ``type``."""
    return _element(name, to_builtins(word))


def _element(name: str, fields: dict[str, Any], inner: str = "") -> str:
    if name == METADATA:
        name = _ELEMENTS.get(fields["type"], "Video")
    parts = [f"<{name}"]
    children: list[str] = []
    for field, value in fields.items():
        if isinstance(value, dict):
            children.append(_element(field, value))
        elif isinstance(value, list | tuple):
            children.extend(_element(field, item) for item in value)
        else:
            parts.append(f' {field}="{_text(value)}"')
    children.append(inner)
    content = "".join(children)
    parts.append(f">{content}</{name}>" if content else "/>")
    return "".join(parts)


def _text(value: str | float) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, str):
        return _ILLEGAL.sub("", value).translate(_ESCAPED)
    return str(value)
