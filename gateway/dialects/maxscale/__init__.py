"""MaxScale: sessions as MariaDB MaxScale's REST API shows them, in JSON:API.

Its clients are MaxCtrl, exporters, and scripts that watch and end the connections of a database
proxy. There is no live channel: they poll, and conditional requests make that cheap.
"""

from gateway.context import Context
from gateway.dialects.maxscale.routes import application

__all__ = ["application", "run"]


async def run(_context: Context) -> None:
    """Do nothing: whatever this dialect needs happens while it answers."""
