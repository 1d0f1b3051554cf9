"""Loads the settings: flags take precedence over variables, a TOML file and defaults.

An unknown name is an error with a suggestion. Contradictions are found here and not at the first
request, and all problems are reported at once.
"""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from msgspec import ValidationError, convert

from gateway.settings.table import (
    SECRETS,
    TABLE,
    Setting,
    Settings,
    SettingsError,
    Source,
    default_data_dir,
)

PREFIX: Final = "GATEWAY_"
SECRET_MAX_BYTES: Final = 262_144  # of a file with a secret; a thousand API keys take less
CONFIG_VARIABLE: Final = "GATEWAY_CONFIG"  # names the TOML file when no flag does
_COMMAND_VARIABLES: Final = frozenset({CONFIG_VARIABLE, "GATEWAY_URL", "GATEWAY_TOKEN"})
# Kubernetes tells every pod about a Service called "gateway" in variables of these names
# (Service links: https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables).
_SERVICE_LINK: Final = re.compile(r"GATEWAY_(SERVICE_(HOST|PORT)|PORT_\d+_(TCP|UDP|SCTP))(_.*)?")
_SERVICE_URL: Final = re.compile(r"(tcp|udp|sctp)://")
_ORIGIN: Final = re.compile(
    r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?", re.IGNORECASE
)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def load(
    flags: Mapping[str, Any], environ: Mapping[str, str], file: Path | None = None
) -> tuple[Settings, dict[str, Source]]:
    """Return the effective settings and where each came from.

    Args:
        flags: Values by name, typed or as text; ``None`` is not given.
        environ: The environment; lists have commas, tables are JSON, an empty text is not given.
        file: A TOML file; if ``None``, ``GATEWAY_CONFIG`` may name one.

    Raises:
        SettingsError: With every problem that was found.
    """
    if file is None and (path := environ.get(CONFIG_VARIABLE)):
        file = Path(path)
    problems: list[str] = []
    sources = dict.fromkeys(TABLE, Source.DEFAULT)
    given: dict[str, Any] = {"data_dir": str(default_data_dir(environ))}
    for source, values in (
        (Source.FILE, _read(file, problems) if file else {}),
        (Source.ENVIRONMENT, _variables(environ)),
        (Source.FLAG, {name: value for name, value in flags.items() if value is not None}),
    ):
        for name, value in _with_files(values, source, problems).items():
            if name in TABLE:
                given[name], sources[name] = value, source
            else:
                problems.append(_unknown(name, source))
    spelled = {name: TABLE[name].spelled(source) for name, source in sources.items()}
    spelled |= {name: f"{name} in {file}" for name in TABLE if sources[name] is Source.FILE}
    settings, wrong = _typed(given, spelled, problems)
    for names, text in _conflicts(settings):
        if wrong.isdisjoint(names):
            chosen = [
                spelled[name] for name in TABLE if name in names if sources[name] != "default"
            ]
            problems.append(f"{text} (set: {', '.join(chosen)})" if chosen else text)
    if problems:
        raise SettingsError(problems, settings.log_format)
    return settings, sources


def _typed(
    given: Mapping[str, Any], spelled: Mapping[str, str], problems: list[str]
) -> tuple[Settings, set[str]]:
    """Return the settings as far as values are good, and the names of those that are not."""
    values: dict[str, Any] = {}
    for name, value in given.items():
        row = TABLE[name]
        try:
            values[name] = _value(row, value)
        except ValidationError as error:
            problems.append(f"{spelled[name]}: {error}")
    return Settings(**values), given.keys() - values.keys()


def _value(row: Setting, value: Any) -> Any:  # noqa: ANN401 - of any setting
    if isinstance(value, str) and row.kind == "list":
        value = [item.strip() for item in value.split(",") if item.strip()]
    elif isinstance(value, str) and row.kind == "tables":
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValidationError(f"is not JSON: {error}") from None
    # Only these are read leniently: elsewhere msgspec would take the text "null" for None.
    strict = not (isinstance(value, str) and row.kind in ("integer", "number", "true false"))
    return convert(value, row.type, strict=strict, dec_hook=_path)


def _path(_kind: type, value: object) -> Path:
    if isinstance(value, str | Path) and str(value):
        return Path(value).expanduser()
    raise ValueError("Expected a path")


def _variables(environ: Mapping[str, str]) -> dict[str, str]:
    return {
        name.removeprefix(PREFIX).lower(): value
        for name, value in environ.items()
        if name.startswith(PREFIX) and value and name not in _COMMAND_VARIABLES
        if not _SERVICE_LINK.fullmatch(name)
        if not (name == "GATEWAY_PORT" and _SERVICE_URL.match(value))
    }


def _with_files(values: Mapping[str, Any], source: Source, problems: list[str]) -> dict[str, Any]:
    """Return values in which each ``<secret>_file`` is replaced by the secret in that file."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        secret = name.removesuffix("_file")
        if name == secret or secret not in SECRETS:
            found[name] = value
        elif secret in values:
            problems.append(f"{secret}, {name}: set one of them")
        elif (text := _secret_in(value, name, source, problems)) is not None:
            found[secret] = text
    return found


def _secret_in(path: object, name: str, source: Source, problems: list[str]) -> str | None:
    spelled = Setting(name, None, "", "", "", secret=False).spelled(source)
    try:
        with _path(Path, path).open("rb") as file:
            text = file.read(SECRET_MAX_BYTES + 1).decode()
    except (OSError, ValueError) as error:
        problems.append(f"{spelled}: {path}: {_reason(error)}")
        return None
    if len(text) > SECRET_MAX_BYTES or not text.strip():
        why = "it is empty" if not text.strip() else f"it is longer than {SECRET_MAX_BYTES} bytes"
        problems.append(f"{spelled}: {path}: {why}")
        return None
    return text.removesuffix("\n").removesuffix("\r")


def _read(file: Path, problems: list[str]) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        problems.append(f"{file}: {_reason(error)}")
        return {}


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _unknown(name: str, source: Source) -> str:
    spelled = {row.spelled(source): row for row in TABLE.values()}
    wrong = Setting(name, None, "", "", "", secret=False).spelled(source)
    close = get_close_matches(wrong, spelled, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"{wrong}: there is no such setting{hint}"


def parse_origin(text: str) -> tuple[str, str, int | None] | None:
    """Return scheme, host and port of a web origin (RFC 6454), or ``None`` if *text* is none."""
    match = _ORIGIN.fullmatch(text)
    if match is None:
        return None
    scheme, host, port = match[1].lower(), match[2].lower(), match[3]
    return scheme, host, int(port) if port else _DEFAULT_PORTS.get(scheme)


def _conflicts(it: Settings) -> Iterator[tuple[set[str], str]]:
    """Yield what does not fit, with the names of the settings that say so."""
    if not it.has_auth and not it.is_loopback:
        names = {"host", "admin_key", "api_keys", "jwt_key", "jwks", "users_file"}
        yield names, f"host: {it.host} is open to others, so set admin_key or another kind of auth"
    if (it.tls_cert is None) != (it.tls_key is None):
        yield {"tls_cert", "tls_key"}, "tls_cert, tls_key: one needs the other"
    for name in ("tls_cert", "tls_key"):
        if (path := getattr(it, name)) is not None and not path.is_file():
            yield {name}, f"{name}: there is no file {path}"
    try:
        it.read_jwt_key()
    except SettingsError as error:
        yield {"jwt_key"}, str(error)
    if it.jwt_key and it.jwks:
        yield {"jwt_key", "jwks"}, "jwt_key, jwks: set one of them"
    for name in ("jwt_issuer", "jwt_audience", "jwt_algorithm"):
        if getattr(it, name) and not (it.jwt_key or it.jwks):
            yield {name, "jwt_key", "jwks"}, f"{name}: does nothing without jwt_key or jwks"
    if it.jwks and not _is_key_set(it.jwks):
        yield {"jwks"}, "jwks: neither a file nor an https URL (http only on the loopback)"
    if it.pong_s >= it.heartbeat_s:
        yield {"pong_s", "heartbeat_s"}, "pong_s: must be less than heartbeat_s"
    if it.redis_url and not re.match(r"(redis|rediss|unix)(\+[a-z]+)?://", it.redis_url):
        yield {"redis_url"}, "redis_url: must begin with redis://, rediss:// or unix://"
    for origin in it.allowed_origins:
        if parse_origin(origin) is None:
            yield {"allowed_origins"}, f"allowed_origins: {origin} is not scheme://host[:port]"
    for name in ("metrics_addresses", "trusted_proxies"):
        for network in getattr(it, name):
            try:
                ip_network(network)
            except ValueError as error:
                yield {name}, f"{name}: {error}"
    for name in ("name", "sha256"):
        values = [getattr(key, name) for key in it.api_keys]
        if len(set(values)) < len(values):
            yield {"api_keys"}, f"api_keys: two have the same {name}"
    for key in it.api_keys:
        if key.workspace is not None and "admin" in key.scopes:
            wanted = "give it connect, read, write and close, or no workspace"
            yield {"api_keys"}, f"api_keys: {key.name}: admin is not for one workspace; {wanted}"


def _is_key_set(text: str) -> bool:
    try:
        url = urlsplit(text)
        local = url.hostname == "localhost" or ip_address(url.hostname or "").is_loopback
    except ValueError:
        url, local = urlsplit(""), False
    if "://" not in text:
        return Path(text).expanduser().is_file()
    return text.startswith("https://") or (url.scheme == "http" and local)
