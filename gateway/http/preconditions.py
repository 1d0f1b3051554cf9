"""Preconditions: whether a request may be done only if something did or did not change.

RFC 9110 section 13. The header is judged against the validator of what the caller would see.
"""

import re
from typing import Final

from gateway.core.errors import BadRequest, RevisionMismatch
from gateway.http.request import Request

IF_MATCH: Final = r'^(\*|(W/)?"[!#-~]*")$'  # section 13.1.1; a list of tags makes no sense here

_ENTITY_TAG: Final = re.compile(r'(?:W/)?"([^"]*)"')
_REVISION: Final = re.compile(r'"([0-9]{1,16})"')


def matches_tag(request: Request, tag: str) -> bool:
    """Whether ``If-None-Match`` names *tag*, compared weakly (section 13.1.2)."""
    wanted = request.header("if-none-match")
    if wanted is None:
        return False
    return wanted.strip() == "*" or tag.removeprefix("W/").strip('"') in _ENTITY_TAG.findall(wanted)


def expected_revision(request: Request) -> int | None:
    """Return the revision that ``If-Match`` asks for; ``*`` is any.

    Raises:
        BadRequest: It is no entity tag.
        RevisionMismatch: It is the tag of something else, or a weak one: no session has it.
    """
    text = request.header("if-match")
    if text is None or text == "*":
        return None
    if not re.fullmatch(IF_MATCH, text):
        raise BadRequest("If-Match is one entity tag in quotes, or an asterisk.")
    match = _REVISION.fullmatch(text)
    if match is None:
        raise RevisionMismatch
    return int(match[1])
