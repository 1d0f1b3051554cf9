"""``gateway config``: the effective settings, a check of them, or a file with every default.

Secrets are masked.
"""

from collections.abc import Iterator
from contextlib import closing
from typing import Annotated, Any

from cyclopts import Parameter
from msgspec import NODEFAULT, to_builtins
from msgspec.json import encode
from msgspec.structs import fields

from gateway.cli.options import Json, SettingFlags, read_settings
from gateway.cli.output import for_people, put, put_document, put_table
from gateway.settings import TABLE, Setting, Settings, SettingsError


def config(
    *,
    check: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="Only say whether a gateway would start."),
    ] = False,
    default: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="Write a TOML file with every setting."),
    ] = False,
    flags: SettingFlags | None = None,
    json: Json = False,
) -> int:
    """Show the effective settings, and where each came from.

    With --check only what is wrong is told, as at a start: the setting, where it was set, and why;
    the exit code is 2. With --default a file with every setting, its meaning and its default is
    written, and nothing else is read.
    """
    if default:
        put("\n".join(_file()))
        return 0
    settings, sources = read_settings(flags)
    if check:
        _check(settings)
        put("the settings are good")
        return 0
    shown = settings.shown()
    if json:
        values = {name: _value(row, getattr(settings, name)) for name, row in TABLE.items()}
        put_document(
            {name: {"value": values[name], "source": sources[name].value} for name in TABLE}
        )
        return 0
    put_table(
        ("SETTING", "VALUE", "FROM"),
        [
            (name, shown[name] or ("-" if for_people() else ""), sources[name].value)
            for name in TABLE
        ],
    )
    return 0


def _value(row: Setting, value: object) -> Any:  # noqa: ANN401 - JSON
    if row.secret:
        return row.show(value) or None
    return to_builtins(value, enc_hook=str)


def _check(settings: Settings) -> None:
    """Read what the settings name, as a start does; nothing is reached over the network."""
    from gateway.auth.principals import Authenticator  # noqa: PLC0415 - only a check needs them
    from gateway.auth.users import Users  # noqa: PLC0415
    from gateway.transport import server_context  # noqa: PLC0415

    with closing(Users(settings.users_path)) as users:
        users.read_all()
    try:
        Authenticator(settings)
        if settings.tls_cert:
            server_context(settings.tls_cert, settings.tls_key)
    except OSError as error:  # also what OpenSSL says
        raise SettingsError([f"tls_cert, tls_key: {error.strerror or error}"]) from None


def _file() -> Iterator[str]:
    known = {one.name: one.default for one in fields(Settings)}
    yield "# Every setting of Session Gateway. Those without a fixed default are comments."
    for row in TABLE.values():
        value = known[row.name]
        named = f"one of {', '.join(row.kind.split())}" if " " in row.kind else row.kind
        kind = "true or false" if row.kind == "true false" else named
        yield ""
        yield f"# {row.description}."
        yield f"# ({kind}; default: {row.default or 'none'})"
        # Tables cannot follow an empty list of them (TOML 1.0, "Array of Tables").
        if value in (None, NODEFAULT) or row.kind == "tables":
            yield f"# {row.name} ="
        else:
            yield f"{row.name} = {encode(value).decode()}"
        if row.secret:
            yield f"# {row.name}_file ="
