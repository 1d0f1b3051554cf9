"""``gateway audit``: check what a running gateway promises, by watching it for a while.

It changes nothing. Run it on a gateway in use, because it checks only what happens; the report says
how much that was. The Redis probe needs access to Redis; everything else is the public API.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter

from gateway.audit.checker import PROMISES, Finding, PromiseChecker, Revisions
from gateway.audit.probes import ask_for_closed, come_and_go, follow, read_list, settle, stream
from gateway.audit.redis_probe import NAME as REDIS
from gateway.audit.redis_probe import RedisProbe
from gateway.cli.options import Duration, Json, Reach
from gateway.cli.output import complain, for_people, note, put_document, put_table
from gateway.client import Filter, Gateway
from gateway.core.errors import Forbidden, GatewayError, Invalid, Unavailable
from gateway.core.position import Position
from gateway.settings import Source, load
from gateway.store.embedded import EmbeddedValkey

FOR_S: Final = 10.0
START_WITHIN_S: Final = 30.0  # until every feed has sent its snapshot
START_POLL_S: Final = 0.01
LOOK_EVERY_S: Final = 1.0
LOOKS_MIN: Final = 3  # a violation takes two in a row; the first may see changes in flight


async def audit(
    *,
    for_: Annotated[
        Duration, Parameter(name="--for", help="How long to watch.", show_default="10s")
    ] = FOR_S,
    also: Annotated[
        tuple[str, ...],
        Parameter(
            negative="",
            show_default=False,
            metavar="URL",
            help="Another node of the same gateway, to read and to resume on; may be repeated.",
        ),
    ] = (),
    redis_url: Annotated[
        str | None,
        Parameter(help="Its Redis.", show_default="what the settings at hand say", group="Redis"),
    ] = None,
    data_dir: Annotated[
        str | None,
        Parameter(help="Folder of its own Valkey, if it runs one on this machine.", group="Redis"),
    ] = None,
    key_prefix: Annotated[
        str | None, Parameter(help="Start of the names of its keys.", group="Redis")
    ] = None,
    config: Annotated[
        Path | None, Parameter(metavar="FILE", help="Its settings.", group="Redis")
    ] = None,
    json: Json = False,
    reach: Reach = Reach(),  # noqa: B008 - immutable
) -> int:
    """Check a running gateway's promises (1 to 5), by watching it; exit with 1 if one is broken.

    It is followed by WebSocket and SSE, on feeds that stay, one that comes and goes, and one that
    is filtered; its lists and Redis are read every second; all must tell the same. It is not
    changed, so what does not happen meanwhile is not checked, nor are clients that die silently.
    """
    flags = {"redis_url": redis_url, "data_dir": data_dir, "key_prefix": key_prefix}
    settings, sources = load(flags, os.environ, config)
    store = StoreLocation(
        url=settings.redis_url or EmbeddedValkey(settings.data_dir).url,
        prefix=settings.key_prefix,
        is_meant=bool(settings.redis_url) or sources["data_dir"] is not Source.DEFAULT,
    )
    checker, looked_at = await examine(reach, also, store, for_)
    if json:
        put_document(_document(checker, looked_at))
    else:
        _report(checker, looked_at)
    return 0 if checker.is_satisfied else 1


@dataclass(frozen=True, kw_only=True)
class StoreLocation:
    """Where the store may be; ``is_meant`` says that the user named it, so it must be there."""

    url: str
    prefix: str
    is_meant: bool


async def examine(
    reach: Reach, also: tuple[str, ...], store: StoreLocation, for_s: float
) -> tuple[PromiseChecker, list[str]]:
    """Watch a gateway for *for_s* seconds; return the findings and the names of the probes.

    Raises:
        GatewayError: A probe cannot read the gateway.
    """
    checker, token = PromiseChecker(), reach.shown_token()
    urls = [reach.url, *also]
    works: list[Callable[[], Coroutine[Any, Any, None]]] = [
        partial(follow, checker.feed("WebSocket"), reach.url, token, Filter()),
        partial(stream, checker.feed("SSE"), reach.url, token),
        partial(come_and_go, checker.feed("WebSocket, resumed"), urls, token),
        partial(
            follow,
            checker.feed("WebSocket, connected", lambda session: bool(session["is_connected"])),
            reach.url,
            token,
            Filter(connected=True),
        ),
    ]
    async with AsyncExitStack() as stack:
        gateways = {
            "REST" if url == reach.url else f"REST of {url}": await stack.enter_async_context(
                Gateway(url, token=token)
            )
            for url in urls
        }
        gateway = gateways["REST"]
        try:
            await gateway.nodes()
            sees_all = True
        except Forbidden:
            await gateway.stats()
            sees_all = False
        redis = await _redis(checker, store, _position(gateway))
        if redis:
            stack.push_async_callback(redis.close)
        async with _running(works):
            await _wait_for_snapshots(checker)
            ends_at_s = asyncio.get_running_loop().time() + for_s
            looks = 0
            while looks < LOOKS_MIN or asyncio.get_running_loop().time() < ends_at_s:
                await asyncio.sleep(LOOK_EVERY_S)
                await _compare(checker, gateways, redis, sees_all=sees_all)
                looks += 1
        await ask_for_closed(checker, gateway)
    checker.conclude()
    return checker, [*(feed.name for feed in checker.feeds), *gateways, *([REDIS] if redis else [])]


async def _compare(
    checker: PromiseChecker,
    gateways: dict[str, Gateway],
    redis: RedisProbe | None,
    *,
    sees_all: bool,
) -> None:
    await gateways["REST"].stats()
    here = str(_position(gateways["REST"]))
    await settle(checker.feeds, here)
    seen: dict[str, Revisions] = {
        name: await read_list(checker, name, gateway, here) for name, gateway in gateways.items()
    }
    if redis:
        seen[REDIS] = await redis.look()
    checker.look(seen, sees_all=sees_all)


def _position(gateway: Gateway) -> Position:
    if gateway.position is None:
        raise Unavailable("The replies carry no position: this is no gateway.")
    return Position.parse(gateway.position)


async def _redis(
    checker: PromiseChecker, store: StoreLocation, here: Position
) -> RedisProbe | None:
    try:
        return await RedisProbe.open(checker, store.url, store.prefix, here)
    except (Unavailable, Invalid) as error:
        if store.is_meant:
            raise
        note(f"Redis is not looked at; --redis-url or --data-dir says where it is. {error.detail}")
        return None


async def _wait_for_snapshots(checker: PromiseChecker) -> None:
    try:
        async with asyncio.timeout(START_WITHIN_S):
            while any(feed.fold.position is None for feed in checker.feeds):  # noqa: ASYNC110
                await asyncio.sleep(START_POLL_S)
    except TimeoutError:
        silent = [feed.name for feed in checker.feeds if feed.fold.position is None]
        raise Unavailable(f"No snapshot came by {', '.join(silent)}.") from None


@asynccontextmanager
async def _running(works: Sequence[Callable[[], Coroutine[Any, Any, None]]]) -> AsyncIterator[None]:
    """Run *works* beside the ``with`` block; an error of theirs ends it and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work()) for work in works]
            yield
            for task in tasks:
                task.cancel()
    except BaseExceptionGroup as failed:
        first: BaseException = failed
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        if isinstance(first, GatewayError):
            raise first from None
        raise


def _document(checker: PromiseChecker, looked_at: list[str]) -> dict[str, Any]:
    return {
        "ok": checker.is_satisfied,
        "witnesses": looked_at,
        "feeds": [
            {"name": feed.name, "resumes": feed.resumes, "restarts": dict(feed.restarts)}
            for feed in checker.feeds
        ],
        "invariants": [
            {
                "number": number,
                "promise": PROMISES[number],
                "checked": dict(finding.checked),
                "violations": finding.violations,
                "told": finding.told,
            }
            for number, finding in checker.findings.items()
        ],
    }


def _report(checker: PromiseChecker, looked_at: list[str]) -> None:
    put_table(
        ("", "PROMISE", "FOUND", "CHECKED"),
        [
            (number, PROMISES[number], _verdict(finding), _counts(finding))
            for number, finding in checker.findings.items()
        ],
    )
    resumes = sum(feed.resumes for feed in checker.feeds)
    restarts = sum(feed.restarts.total() for feed in checker.feeds)
    if for_people():
        note(f"Asked: {'; '.join(looked_at)}. {resumes} resumes, {restarts} new starts.")
    for number, line in _told(checker):
        complain(f"{number}: {line}")


def _verdict(finding: Finding) -> str:
    if finding.violations:
        return f"{finding.violations} violations"
    return "kept" if finding.checked else "not checked"


def _counts(finding: Finding) -> str:
    return ", ".join(f"{count} {what}" for what, count in finding.checked.items())


def _told(checker: PromiseChecker) -> Iterator[tuple[int, str]]:
    for number, finding in checker.findings.items():
        for line in finding.told:
            yield number, line
        if more := finding.violations - len(finding.told):
            yield number, f"and {more} more"
