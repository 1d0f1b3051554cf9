"""Bodies: what MaxScale's clients send to change a session: a partial resource.

``id`` and ``type`` are not looked at: MaxCtrl leaves the one out and sends a wrong other. Of the
logs only switches that exist and are on or off are taken; of a filter only its name. Pure.
"""

from typing import Annotated, Any

from msgspec import UNSET, DecodeError, Meta, Struct, UnsetType, ValidationError, convert
from msgspec.json import Decoder

from gateway.core.errors import BadRequest, excerpt
from gateway.core.model import Object
from gateway.dialects.maxscale.facts import NAME, FilterName, Parameters

References = Annotated[tuple[Object, ...], Meta(max_length=256)]


class FilterList(Struct, frozen=True, kw_only=True):
    """A session's filters, all of them, in order."""

    data: References


class PartialAttributes(Struct, frozen=True, kw_only=True):
    """What may be changed: the log switches."""

    parameters: dict[str, Any] = {}


class PartialRelationships(Struct, frozen=True, kw_only=True):
    """What may be changed: the filters."""

    filters: FilterList | UnsetType = UNSET


class PartialResource(Struct, frozen=True, kw_only=True):
    """A part of a session."""

    attributes: PartialAttributes = PartialAttributes()
    relationships: PartialRelationships = PartialRelationships()


class PartialDocument(Struct, frozen=True, kw_only=True):
    """The body of a PATCH of a session."""

    data: PartialResource


_session = Decoder(PartialDocument)
_filters = Decoder(FilterList)


def session_patch(body: bytes) -> Object:
    """Return what a PATCH of a session asks for, as a merge patch of our attributes.

    Raises:
        BadRequest: The body cannot be read, or a filter's name is none.
    """
    data = _read(_session, body).data
    patch: Object = {}
    switches = {
        name: wanted
        for name in Parameters.__struct_fields__
        if isinstance(wanted := data.attributes.parameters.get(name), bool)
    }
    if switches:
        patch["parameters"] = switches
    if data.relationships.filters is not UNSET:
        patch["filters"] = _names(data.relationships.filters)
    return patch


def filters_patch(body: bytes) -> Object:
    """Return what a PATCH of the relationship to filters asks for; see :func:`session_patch`."""
    return {"filters": _names(_read(_filters, body))}


def in_attributes(patch: Object) -> Object:
    """Return a patch of our attributes as a patch of the session."""
    return {"attributes": {NAME: patch}}


def _names(wanted: FilterList) -> list[str] | None:
    """Return the names; ``None`` for none of them, which in a patch removes."""
    names = []
    for reference in wanted.data:
        name = reference.get("id")
        try:
            names.append(convert(name, FilterName))
        except ValidationError as error:
            raise BadRequest(f"Not a valid filter: {excerpt(str(name))}") from error
    return names or None


def _read(decoder: Any, body: bytes) -> Any:  # noqa: ANN401 - where JSON is parsed
    try:
        return decoder.decode(body)
    except RecursionError as error:
        raise BadRequest("Invalid JSON in request: it is nested too deep") from error
    except (DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"Invalid JSON in request: {excerpt(str(error))}") from error
