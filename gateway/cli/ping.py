"""``gateway ping``: ask a gateway whether it is ready; for probes and scripts.

It uses no more than Python has, because a probe that runs each few seconds should cost little. It
never goes through a proxy of the environment: what is asked is the gateway itself.
"""

import json
from http.client import HTTPException
from typing import Annotated, Final
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

from cyclopts import Parameter

from gateway.cli import FAILED, USAGE
from gateway.cli.options import DEFAULT_URL, Duration
from gateway.cli.output import complain

ANSWER_BYTES_MAX: Final = 65_536  # of an answer that is read


def ping(
    *,
    url: Annotated[
        str,
        Parameter(env_var="GATEWAY_URL", help="Where the gateway or its operations port is."),
    ] = DEFAULT_URL,
    live: Annotated[
        bool, Parameter(negative="", show_default=False, help="Ask only whether it is alive.")
    ] = False,
    within: Annotated[Duration, Parameter(help="How long it may take to answer.")] = 2.0,
) -> int:
    """Ask a gateway whether it should get traffic: 0 if it does, 1 if not, and stderr says why.

    With --live a gateway that drains or has lost its store is well, too.
    """
    address = f"{url.rstrip('/')}/{'livez' if live else 'readyz'}"
    if not address.startswith(("http://", "https://")):
        complain(f"{url} is no http:// or https:// address.")
        return USAGE
    try:
        with build_opener(ProxyHandler({})).open(address, timeout=within):
            return 0
    except HTTPError as error:
        complain(_said(error.read(ANSWER_BYTES_MAX)) or f"{address} answers {error.code}")
    except (OSError, HTTPException, ValueError) as error:
        complain(f"{address} does not answer: {getattr(error, 'reason', error)}")
    return FAILED


def _said(answer: bytes) -> str:
    """Return why it is not ready: a problem, or the nodes of which the operations port says so."""
    try:
        found = json.loads(answer)
        if "nodes" in found:
            ill = (f"{name} is {word}" for name, word in found["nodes"].items() if word != "ok")
            return ", ".join(ill)
        return f"{found['code']}: {found['detail']}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""
