"""Settings: everything an operator can choose, in one typed table.

The same name is a flag (``--redis-url``), a variable (``GATEWAY_REDIS_URL``) and a key of one TOML
file (``redis_url``). ``table`` says what there is; ``loading`` reads, converts and cross-checks it.

Not here: what the values do. This package imports nothing of the gateway.
"""

from gateway.settings.loading import CONFIG_VARIABLE, load, parse_origin
from gateway.settings.table import (
    SECRETS,
    TABLE,
    Algorithm,
    ApiKey,
    Setting,
    Settings,
    SettingsError,
    Source,
    settings_table,
)

__all__ = [
    "CONFIG_VARIABLE",
    "SECRETS",
    "TABLE",
    "Algorithm",
    "ApiKey",
    "Setting",
    "Settings",
    "SettingsError",
    "Source",
    "load",
    "parse_origin",
    "settings_table",
]
