"""Reads: one session, a page of 100, the same page unchanged (304), and a filtered page.

Requests over kept connections, the next when one is answered. What is told is requests for each
second of the server's processor time, which is what a core gives, whoever shares the machine.
"""

from machine import Broken, Clock
from peers import Contestant, Gateway
from peers.gateway import BEARER
from swarm import NUMBER, Swarm, request

from scenarios.base import Figure, Figures, Scenario, Size, only_gateway

WAYS = 16
MANY = 10_000_000  # more requests than there is time for
WITHIN_S = 120
WORKSPACES = 10
JSON = b"Content-Type: application/json"
PAGES = {
    "page": "/v1/sessions?limit=100",
    "filtered": "/v1/sessions?limit=100&workspace=w3&label.env=prod",
}


def fill(gateway: Gateway, swarm: Swarm, count: int, name: bytes = b"w") -> None:
    """Open sessions over REST, spread over workspaces; their ids begin with *name*."""
    for workspace in range(WORKSPACES):
        body = (
            b'{"id":"%b%d-%b","workspace":"w%d","account":"ann","name":"Ann","labels":{"env":"prod"},'
            b'"attributes":{"image":"desktop:7","host":"10.0.0.7"}}'
        ) % (name, workspace, NUMBER, workspace)
        ask = request("POST", b"/v1/sessions", body, BEARER, JSON)
        swarm.ask(gateway.port, ask, total=count // WORKSPACES, ways=64, for_s=WITHIN_S)


def measure(kind: type[Contestant], swarm: Swarm, size: Size) -> Figures:
    """Fill a gateway and read it."""
    figures: Figures = {}
    with kind() as gateway:
        if not isinstance(gateway, Gateway):
            raise Broken("it keeps no sessions")
        fill(gateway, swarm, size.listed)
        one = b"/v1/sessions/w3-000007"
        etag = gateway.get(PAGES["page"])[1]["etag"].encode()
        asked = {
            "one": request("GET", one, b"", BEARER),
            "page": request("GET", PAGES["page"].encode(), b"", BEARER),
            "same": request("GET", PAGES["page"].encode(), b"", BEARER, b"If-None-Match: " + etag),
            "filtered": request("GET", PAGES["filtered"].encode(), b"", BEARER),
        }
        for name, ask in asked.items():
            swarm.ask(gateway.port, ask, total=100, ways=WAYS, for_s=5)
            clock = Clock(gateway.server)
            done = swarm.ask(gateway.port, ask, total=MANY, ways=WAYS, for_s=size.asking_s)
            if done["unchanged"] != (done["done"] if name == "same" else 0):
                raise Broken(f"{name}: {done['unchanged']:.0f} answers of 304")
            figures[name] = done["done"] / clock.spent_s()
            figures[f"{name}_p99"] = done["p99_us"] / 1000
    return figures


TITLES = {
    "one": "one session",
    "page": "page of 100",
    "same": "the same page, 304",
    "filtered": "filtered page of 100",
}

READS = Scenario(
    "reads",
    {
        **{name: Figure(title, "/s a core", less=False) for name, title in TITLES.items()},
        **{
            f"{name}_p99": Figure(f"{title}: p99, {WAYS} at once", "ms")
            for name, title in TITLES.items()
        },
    },
    measure,
    only_gateway,
)
