"""MaxScale: the sessions of MariaDB MaxScale's REST API, in the words of JSON:API.

For MaxCtrl, the vendor's GUI and scripts that watch and end the connections of a database proxy.
There is no live channel: MaxScale's clients poll, and conditional requests make that cheap.
"""

from gateway.context import Context
from gateway.dialects.maxscale.describe import describe
from gateway.dialects.maxscale.routes import routes

__all__ = ["describe", "routes", "run"]


async def run(_context: Context) -> None:
    """Do nothing: whatever this dialect needs happens while it answers."""
