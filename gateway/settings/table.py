"""The table of settings: name, type, bounds, default and one sentence for each.

``--help``, ``gateway config`` and the page of settings are made from it. Secrets are masked
wherever settings are shown.
"""

import os
import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, NamedTuple, Union, get_args, get_origin

from msgspec import Meta, Struct, field
from msgspec.structs import fields

_PATH: Final = re.compile(r"[/~]|\.{1,2}/|.*\.pem$")  # what a jwt_key must look like to be a path
_MASK: Final = "********"

ScopeName = Literal["connect", "read", "write", "close", "admin"]
Algorithm = Literal[
    "HS256",
    "HS384",
    "HS512",
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
]
Seconds = Annotated[float, Meta(gt=0, le=3600)]
Line = Annotated[str, Meta(min_length=1, max_length=1024, pattern=r"^[^\x00-\x1f\x7f]+$")]
# What can stand behind "Bearer" in a header: visible ASCII.
Secret = Annotated[str, Meta(min_length=1, max_length=1024, pattern=r"^[!-~]+$(?!\n)")]
Word = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$(?!\n)")]
Mounted = Annotated[str, Meta(pattern=r"^(neko|plex|webida|gameye|maxscale)=/$(?!\n)")]
KeyText = Annotated[str, Meta(min_length=1, max_length=65536)]
Partitions = Annotated[int, Meta(ge=1, le=1024)]
Workers = Annotated[int, Meta(ge=1, le=64)]
Count = Annotated[int, Meta(ge=1, le=10_000_000)]
Rate = Annotated[float, Meta(ge=0, le=1_000_000)]
PositiveRate = Annotated[float, Meta(gt=0, le=1_000_000)]


def _say(text: str, *, default: str | None = None, secret: bool = False) -> Meta:
    return Meta(description=text, extra={"default": default, "secret": secret})


class ApiKey(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key that a program shows as its token; only its SHA-256 is kept."""

    name: Line
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
    scopes: tuple[ScopeName, ...]
    workspace: Line | None = None
    account: Line | None = None


def default_data_dir(environ: Mapping[str, str]) -> Path:
    """Return the default data directory (XDG Base Directory Specification)."""
    home = environ.get("XDG_DATA_HOME") or Path(environ.get("HOME") or Path.home(), ".local/share")
    return Path(home, "session-gateway")


def default_node_name() -> str:
    """Return the host's name, as far as its characters may stand in a node's name."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname())[:64] or "node"


class Settings(Struct, frozen=True, kw_only=True):
    """The settings of a gateway; :func:`load` makes and checks them."""

    host: Annotated[Line, _say("Address to listen on; without auth only a loopback one")] = (
        "127.0.0.1"
    )
    port: Annotated[int, Meta(ge=0, le=65535), _say("TCP port; 0 takes a free one")] = 8080
    tls_cert: Annotated[Path | None, _say("PEM file of the certificates to serve TLS with")] = None
    tls_key: Annotated[Path | None, _say("PEM file of their private key")] = None
    allowed_origins: Annotated[
        tuple[Line, ...], _say("Web origins whose pages may use this gateway, besides our own")
    ] = ()
    trusted_proxies: Annotated[
        tuple[Line, ...], _say("Addresses and networks whose `X-Forwarded-*` headers are believed")
    ] = ()
    ops_host: Annotated[
        Line, _say("Address of the operations port; whoever reaches it is asked for no credential")
    ] = "127.0.0.1"
    ops_port: Annotated[
        Annotated[int, Meta(ge=0, le=65535)] | None,
        _say("TCP port of `/metrics`, `/livez` and `/readyz` of all workers; 0 takes a free one"),
    ] = None
    metrics_addresses: Annotated[
        tuple[Line, ...],
        _say("Addresses and networks that may read `/metrics` without a token, as `admin` may"),
    ] = ()
    redis_url: Annotated[
        Line | None, _say("Redis or Valkey; without it one is run in `data_dir`", secret=True)
    ] = None
    data_dir: Annotated[
        Path,
        _say(
            "Folder of our own Valkey, `users.json` and a generated admin key; mode 700",
            default="session-gateway in $XDG_DATA_HOME or ~/.local/share",
        ),
    ] = field(default_factory=lambda: default_data_dir(os.environ))
    key_prefix: Annotated[
        Word, _say("PREFIX of every key in Redis, which are named {PREFIX:N}:…")
    ] = "gateway"
    partitions: Annotated[
        Partitions | None,
        _say("Partitions of the data, fixed when it is created", default="1; in a cluster 16"),
    ] = None
    node_name: Annotated[
        Word, _say("Name of this node in records, lists and logs", default="the host's name")
    ] = field(default_factory=default_node_name)
    workers: Annotated[
        Workers, _say("Processes that serve the port; several are nodes `name-1`, `name-2`, …")
    ] = 1
    admin_key: Annotated[
        Secret | None, _say("Token for everything, and password of user `admin`", secret=True)
    ] = None
    api_keys: Annotated[
        tuple[ApiKey, ...],
        Meta(max_length=1000),
        _say("Tables of `name`, `sha256`, `scopes`, maybe `workspace`, `account`", secret=True),
    ] = ()
    jwt_key: Annotated[
        KeyText | None,
        _say(
            "Key of JWTs: a secret, PEM text, or a path (`/…`, `./…`, `~…`, `….pem`)", secret=True
        ),
    ] = None
    jwt_algorithm: Annotated[
        Algorithm | None,
        _say("The one algorithm for a key that names none", default="HS256, RS256, … by the key"),
    ] = None
    jwks: Annotated[Line | None, _say("Key set (JWKS) of JWTs: a file or an https URL")] = None
    jwt_issuer: Annotated[Line | None, _say("What `iss` of a JWT must be")] = None
    jwt_audience: Annotated[
        Line | None, _say("What `aud` of a JWT must hold; unset: it must have none")
    ] = None
    claim_account: Annotated[Line, _say("Claim of a JWT that holds the account")] = "sub"
    claim_scope: Annotated[Line, _say("Claim of a JWT that holds the scopes")] = "scope"
    claim_workspace: Annotated[Line, _say("Claim of a JWT that holds the workspace")] = "workspace"
    users_file: Annotated[
        Path | None,
        _say("File of people who log in with a password", default="users.json in data_dir"),
    ] = None
    heartbeat_s: Annotated[Seconds, _say("Seconds between heartbeats of a socket, ± 10 %")] = 15.0
    pong_s: Annotated[Seconds, _say("Seconds a client has to answer a heartbeat")] = 5.0
    keep_alive_s: Annotated[
        Seconds,
        _say("Seconds an idle HTTP connection is kept; more than a load balancer's idle time"),
    ] = 75.0
    linger_ms: Annotated[
        int,
        Meta(ge=0, le=366 * 86_400_000),
        _say("Milliseconds a session opened by a socket waits for its lost client"),
    ] = 15_000
    max_connections: Annotated[Count, _say("Connections this node accepts at a time")] = 16_000
    max_sessions: Annotated[Count, _say("Open sessions of all nodes together")] = 200_000
    messages_per_s: Annotated[
        PositiveRate, _say("Messages a second from one socket; twice as many in a burst")
    ] = 20.0
    requests_per_s: Annotated[Rate, _say("Requests a second from one caller; 0: no limit")] = 0.0
    dialect: Annotated[
        Mounted | None,
        _say("`NAME=/` answers one product's own paths at the root; ours move to `/gateway`"),
    ] = None
    neko_merciful_reconnect: Annotated[
        bool, _say("neko: a second socket with the same token displaces the first")
    ] = True
    neko_cookie: Annotated[bool, _say("neko: log in by cookie instead of a bearer token")] = False
    webida_generation: Annotated[
        Literal["A", "C"], _say("Webida: the wire generation that clients speak")
    ] = "A"
    gameye_stop_after_s: Annotated[
        Seconds, _say("Gameye: seconds between a stop and the end, shown as draining")
    ] = 10.0
    gameye_start_within_s: Annotated[
        float,
        Meta(ge=0, le=86_400),
        _say("Gameye: seconds a started session waits for its host, then it is dead; 0: for ever"),
    ] = 600.0  # the most that Amazon GameLift gives a game session to become active
    gameye_host: Annotated[
        Line, _say("Gameye: the address that a session without one is said to be on")
    ] = "127.0.0.1"
    maxscale_generation: Annotated[
        Literal["current", "seed"], _say("MaxScale: form of dates and links")
    ] = "current"
    log_format: Annotated[Literal["text", "json"], _say("Log lines for people or for programs")] = (
        "text"
    )
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], _say("The least important that is logged")
    ] = "info"

    @property
    def has_auth(self) -> bool:
        """Whether authentication is configured; if not, the gateway serves the loopback only."""
        return any((self.admin_key, self.api_keys, self.jwt_key, self.jwks, self.users_file))

    @property
    def users_path(self) -> Path:
        """The file of people who log in; it need not exist."""
        return self.users_file or self.data_dir / "users.json"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach ``host``."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def read_jwt_key(self) -> str:
        """Return the secret or the PEM text, from its file if ``jwt_key`` names one.

        Raises:
            SettingsError: The file cannot be read.
        """
        text = self.jwt_key or ""
        if not _PATH.match(text):
            return text
        try:
            return Path(text).expanduser().read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            raise SettingsError([f"jwt_key: cannot read {text}: {error}"]) from None

    def shown(self) -> dict[str, str]:
        """Return every value as text for people, secrets masked, by name."""
        return {name: row.show(getattr(self, name)) for name, row in TABLE.items()}

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={text!r}" for name, text in self.shown().items())
        return f"Settings({shown})"

    def __rich_repr__(self) -> list[tuple[str, str]]:  # rich prints this instead of repr
        return list(self.shown().items())


class Setting(NamedTuple):
    """One row of the table."""

    name: str
    type: Any
    kind: str
    default: str
    description: str
    secret: bool

    @property
    def flag(self) -> str:
        """Its spelling on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """Its spelling in the environment."""
        return "GATEWAY_" + self.name.upper()

    def spelled(self, source: "Source") -> str:
        """Its spelling where the value came from."""
        return {Source.FLAG: self.flag, Source.ENVIRONMENT: self.variable}.get(source, self.name)

    def show(self, value: object) -> str:
        """Return *value* as text for people; a secret is masked, a URL keeps what is none."""
        if value is None or value == ():
            return ""
        if self.name == "api_keys" and isinstance(value, tuple):
            return ", ".join(key.name for key in value)
        if self.name == "redis_url":
            url = re.sub(r"(?<=://).*@", f"{_MASK}@", str(value))
            return re.sub(r"(?<=password=)[^&]*", _MASK, url)
        if self.secret and not (self.name == "jwt_key" and _PATH.match(str(value))):
            return _MASK
        return ", ".join(value) if isinstance(value, tuple) else str(value)


class Source(StrEnum):
    """Where a value came from, the weakest first."""

    DEFAULT = "default"
    FILE = "file"
    ENVIRONMENT = "environment"
    FLAG = "flag"


class SettingsError(Exception):
    """The settings cannot be used; ``problems`` has a sentence for each reason."""

    def __init__(
        self, problems: Iterable[str], log_format: Literal["text", "json"] = "text"
    ) -> None:
        self.problems = tuple(problems)
        self.log_format = log_format
        super().__init__("\n".join(self.problems))


def _rows() -> Iterator[Setting]:
    for info in fields(Settings):
        metas = [meta for meta in get_args(info.type)[1:] if isinstance(meta, Meta)]
        said = metas[-1]
        extra = said.extra or {}
        default = extra["default"] or ("" if info.default is None else _text(info.default))
        yield Setting(
            *(info.name, info.type, _kind(info.type), default, said.description or ""),
            secret=extra["secret"],
        )


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else f"{value}"


def _kind(kind: Any) -> str:  # noqa: ANN401 - a type
    match get_origin(kind):
        case origin if origin is Annotated:
            return _kind(get_args(kind)[0])
        case origin if origin in (Union, UnionType):
            return _kind(next(arg for arg in get_args(kind) if arg is not NoneType))
        case origin if origin is Literal:
            return " ".join(get_args(kind))
        case origin if origin is tuple:
            return "tables" if get_args(kind)[0] is ApiKey else "list"
    return {bool: "true false", int: "integer", float: "number", Path: "path"}.get(kind, "text")


TABLE: Final[Mapping[str, Setting]] = {row.name: row for row in _rows()}
"""Every setting by its name, in the order people read them."""

SECRETS: Final = tuple(row.name for row in TABLE.values() if row.secret)
"""Settings that ``<name>_file`` may hold, so that neither flags nor variables show them."""


def settings_table() -> str:
    """Return the table of all settings in Markdown, as the page of settings shows it."""
    lines = ["| setting | type | default | meaning |", "|---|---|---|---|"]
    lines.extend(
        f"| `{row.name}` | {row.kind} | {row.default or '-'} | {row.description} |"
        for row in TABLE.values()
    )
    return "\n".join(lines) + "\n"
