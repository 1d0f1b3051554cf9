"""``gateway config``: the effective settings, and where each came from; secrets are masked."""

from typing import Any

from msgspec import to_builtins

from gateway.cli.options import Json, SettingFlags, read_settings
from gateway.cli.output import for_people, put_document, put_table
from gateway.settings import TABLE, Setting


def config(
    *,
    flags: SettingFlags | None = None,
    json: Json = False,
) -> int:
    """Show the effective settings."""
    settings, sources = read_settings(flags)
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
