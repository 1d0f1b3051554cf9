"""Validation of opaque JSON: objects that the gateway stores and shows but does not interpret.

All doors use these checks, because every node must be able to show what is in the log: no null in a
map (a merge patch could not carry it), no nesting so deep that recursion fails, nothing too large.
"""

from typing import Any, Final

from msgspec import ValidationError, convert, to_builtins
from msgspec.json import encode

from gateway.core.command import UPDATABLE, Updatable
from gateway.core.errors import Invalid, excerpt
from gateway.core.model import (
    ATTRIBUTES_MAX_BYTES,
    Object,
    Profile,
    Session,
    Stream,
    Watch,
    check_object,
)
from gateway.core.public import merge

_UPDATABLE: Final = frozenset(UPDATABLE)


def check_content(*parts: Object | Profile | Watch | Stream | None) -> None:
    """Raise if a part holds JSON that cannot be stored; a bare object stands for attributes.

    Raises:
        Invalid: An object in it holds null in a map, is nested too deep or too large.
    """
    for part in parts:
        match part:
            case None:
                pass
            case Profile():
                check_object(part.plugins, "plugins")
            case Watch():
                check_object(part.item, "item")
            case Stream():
                check_object(part.data, "data")
            case attributes:
                check_object(attributes, "attributes")
                if len(encode(attributes)) > ATTRIBUTES_MAX_BYTES:
                    raise Invalid(f"`attributes` hold at most {ATTRIBUTES_MAX_BYTES} bytes.")


def patched_fields(session: Session, patch: Object) -> dict[str, Any]:
    """Return the new values of the fields that the merge patch (RFC 7396) names.

    Raises:
        Invalid: It names a field that cannot be changed, or makes one that is not acceptable.
    """
    check_object(patch, "changes", nulls=True)
    if not patch.keys() <= _UPDATABLE:
        raise Invalid(f"Only these fields can be changed: {', '.join(UPDATABLE)}.")
    former = {
        name: to_builtins(value) for name in patch if (value := getattr(session, name)) is not None
    }
    try:
        wanted = convert(merge(former, patch), Updatable)
    except ValidationError as error:
        raise Invalid(excerpt(str(error))) from error
    return {name: getattr(wanted, name) for name in patch}
