"""Options that several commands share.

The flags of settings are made from their table, so a new setting is a flag at once. Values are
passed on as text, because the settings give better error messages.
"""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, make_dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, get_args
from urllib.parse import urlsplit

from cyclopts import Parameter, Token

from gateway.core.model import State
from gateway.core.query import Filter
from gateway.settings import SECRETS, TABLE, Settings, Source, load
from gateway.settings.table import ScopeName, default_data_dir

DEFAULT_URL: Final = "http://127.0.0.1:8080"

_UNITS_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION: Final = re.compile(r"(?:(?:\d+(?:\.\d+)?)(?:ms|s|m|h|d))+", re.ASCII)
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)
_OF_TOKENS: Final = (
    *("data_dir", "admin_key", "api_keys", "jwt_key", "jwt_algorithm", "jwks"),
    *("jwt_issuer", "jwt_audience", "claim_account", "claim_scope", "claim_workspace"),
)
_PLAIN: Final = re.compile(r"\d+(?:\.\d+)?", re.ASCII)


def seconds(text: str) -> float:
    """Return a duration in seconds: ``90``, ``30s``, ``2m``, ``1h30m``, ``500ms``, ``1d``.

    Raises:
        ValueError: It is none.
    """
    if _PLAIN.fullmatch(text):
        return float(text)
    if not _DURATION.fullmatch(text):
        raise ValueError(f'"{text}" is no duration such as 30s, 2m, 1h30m or plain seconds.')
    return sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(text))


def _to_seconds(_kind: type, tokens: Sequence[Token]) -> float:
    return seconds(tokens[0].value)


def _to_label(_kind: type, tokens: Sequence[Token]) -> dict[str, str]:
    labels = {}
    for token in tokens:
        name, equals, value = token.value.partition("=")
        if not (name and equals):
            raise ValueError(f'"{token.value}" is no label; write NAME=VALUE.')
        labels[name] = value
    return labels


Duration = Annotated[
    float, Parameter(converter=_to_seconds, n_tokens=1, accepts_keys=False, metavar="DURATION")
]
Json = Annotated[
    bool, Parameter(negative="", show_default=False, help="Write JSON, one line a thing.")
]
Scopes = Annotated[
    tuple[ScopeName, ...],
    Parameter(
        name="--scope", negative="", show_default=False, help="What may be done; may be repeated."
    ),
]
Account = Annotated[str | None, Parameter(help="Whose account it is.")]
Workspace = Annotated[
    str | None, Parameter(help="The only workspace that the scopes are good for.")
]
Wide = Annotated[
    bool,
    Parameter(negative="", show_default=False, help="Do not shorten ids and long texts."),
]
SessionId = Annotated[
    str,
    Parameter(metavar="ID", help="The session's id, or its end as lists on a terminal show it."),
]
_CONFIG: Final = Annotated[
    Path | None,
    Parameter(
        metavar="FILE",
        help="TOML file of settings; GATEWAY_CONFIG names it, too.",
        group="Settings",
    ),
]


def _flag(name: str) -> tuple[str, Any, None]:
    row = TABLE[name]
    if get_args(row.type)[0] is bool:
        said = Parameter(name=row.flag, help=f"{row.description}.", group="Settings")
        return name, Annotated[bool | None, said], None
    choices = row.kind.split()
    among = f": {', '.join(choices)}" if choices[1:] else ""
    said = Parameter(
        name=row.flag,
        help=f"{row.description}{among}.",
        metavar="CHOICE" if among else row.kind.upper(),
        show_default=row.default or False,
        group="Settings",
    )
    return name, Annotated[str | None, said], None


def _file_flag(name: str) -> tuple[str, Any, None]:
    said = Parameter(
        name=f"{TABLE[name].flag}-file",
        help=f"File with {name}.",
        metavar="FILE",
        show_default=False,
        group="Settings",
    )
    return f"{name}_file", Annotated[str | None, said], None


def _flags(kind: str, names: Iterable[str]) -> Any:  # noqa: ANN401 - a type that is made
    rows = [*map(_flag, names), *(_file_flag(name) for name in names if name in SECRETS)]
    made = make_dataclass(
        kind,
        [("config", _CONFIG, None), *rows],
        namespace={"__module__": __name__},  # or cyclopts would not look into it
        frozen=True,
        kw_only=True,
    )
    return Parameter(name="*")(made)


if TYPE_CHECKING:

    class SettingFlags:
        """``--config`` and a flag for every setting; all are ``None`` unless given."""

    class TokenFlags(SettingFlags):
        """The same for what a token is made and checked with."""

    class UserFlags(SettingFlags):
        """The same for where people are kept."""

else:
    SettingFlags = _flags("SettingFlags", tuple(TABLE))
    TokenFlags = _flags("TokenFlags", _OF_TOKENS)
    UserFlags = _flags("UserFlags", ("data_dir", "users_file"))


def read_settings(flags: SettingFlags | None) -> tuple[Settings, dict[str, Source]]:
    """Return the effective settings and where each came from.

    Args:
        flags: What a command was given; ``None`` if nothing.

    Raises:
        SettingsError: With every problem that was found.
    """
    given: dict[str, Any] = dict(vars(flags)) if flags else {}
    return load(given, os.environ, given.pop("config", None))


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Reach:
    """The address of the gateway, and the token to use."""

    url: Annotated[
        str, Parameter(env_var="GATEWAY_URL", help="Where the gateway is.", group="Gateway")
    ] = DEFAULT_URL
    token: Annotated[
        str | None,
        Parameter(
            env_var="GATEWAY_TOKEN",
            help="Who asks.",
            show_default="the key of a gateway without auth on this machine",
            group="Gateway",
        ),
    ] = None

    def shown_token(self) -> str | None:
        """Return the token to use: the given one, or the key that ``serve`` made for itself.

        That key is for this machine, so it is never sent to another one.
        """
        if self.token or not is_loopback(self.url):
            return self.token or None
        return kept_key(data_dir())


def data_dir() -> Path:
    """Return the data directory of a gateway that got no flags."""
    return Path(os.environ.get("GATEWAY_DATA_DIR") or default_data_dir(os.environ)).expanduser()


def kept_key(folder: Path) -> str | None:
    """Return the admin key that a gateway without auth made in its data directory, if we may."""
    try:
        return (folder / "admin_key").read_text(encoding="ascii").strip() or None
    except (OSError, ValueError):
        return None


def is_loopback(url: str) -> bool:
    """Whether *url* leads to this machine."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Owners:
    """The filter options that the history has, too: sessions must match all that are given."""

    workspace: Annotated[str | None, Parameter(help="Of this workspace.", group="Filters")] = None
    account: Annotated[str | None, Parameter(help="Of this account.", group="Filters")] = None
    service: Annotated[str | None, Parameter(help="Opened on this service.", group="Filters")] = (
        None
    )
    label: Annotated[
        dict[str, str] | None,
        Parameter(
            converter=_to_label,
            n_tokens=1,
            accepts_keys=False,
            metavar="NAME=VALUE",
            help="With this label; may be repeated.",
            group="Filters",
        ),
    ] = None
    q: Annotated[str | None, Parameter(help="Whose name or id contains this.", group="Filters")] = (
        None
    )

    def filter(self) -> Filter:
        """Return them as the API's filter."""
        given = asdict(self)
        labels, state = given.pop("label"), given.pop("state", None)
        return Filter(**given, labels=labels or {}, state=State(state) if state else None)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Filters(Owners):
    """The filter options of open sessions."""

    state: Annotated[
        Literal["idle", "connected", "away", "closing"] | None,
        Parameter(help="In this state.", group="Filters"),
    ] = None
    connected: Annotated[
        bool | None, Parameter(help="With a live connection, or without.", group="Filters")
    ] = None
    watching: Annotated[
        bool | None, Parameter(help="Which watch something, or do not.", group="Filters")
    ] = None
    node: Annotated[
        str | None, Parameter(help="Connected to the node of this name.", group="Filters")
    ] = None
    member: Annotated[str | None, Parameter(help="With this member.", group="Filters")] = None
