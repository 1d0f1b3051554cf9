"""``gateway serve``: run a gateway until a signal stops it, or say why it cannot run.

The address is bound before anything else starts, so a port in use is reported at once; the server
listens when the node is ready, so every connection is served. With several ``workers`` this process
only supervises them (``workers``).
"""

import asyncio
import errno
import gc
import logging
import shlex
import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Final

import uvicorn
import uvloop
from msgspec.structs import replace

from gateway import __version__, systemd
from gateway.app import SPARE, running, server
from gateway.auth.principals import kept_admin_key
from gateway.cli import FAILED, USAGE
from gateway.cli.options import DEFAULT_URL, SettingFlags, data_dir, read_settings
from gateway.cli.output import complain, put
from gateway.cli.workers import Workers, worker_names
from gateway.context import Context
from gateway.core.errors import GatewayError
from gateway.logs import formats
from gateway.operations import serve_for_workers, served_alone, served_to_operations
from gateway.settings import TABLE, Settings, SettingsError
from gateway.store.store import StoreRefused
from gateway.transport import server_context
from gateway.transport.descriptors import needed_for, raise_limit
from gateway.versions import UnexpectedVersion

COLLECT: Final = (20_000, 20, 50)  # gc.set_threshold; see tune_collector
BEAT_S: Final = 1.0  # between two signs of a loop that turns
LOOK_EVERY_S: Final = 0.01  # between two checks whether the server listens
_WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - named, not bound
_NOT_HERE: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})

log = logging.getLogger(__name__)


def serve(
    *,
    flags: SettingFlags | None = None,
) -> int:
    """Run a gateway until SIGINT or SIGTERM; a second one stops at once.

    Every setting is a flag, a variable (--redis-url is GATEWAY_REDIS_URL) and a key of the TOML
    file (redis_url); the first of them wins. Lists have commas between their values. Flags are seen
    by other users of the machine: give secrets as variables or in the file.
    """
    try:
        settings, _ = read_settings(flags)
    except SettingsError as error:
        if error.log_format == "text":
            raise
        formats.configure(error.log_format, "info", "")
        for problem in error.problems:
            log.critical("cannot start", extra={"reason": problem})
        return USAGE
    formats.configure(settings.log_format, settings.log_level, settings.node_name)
    return _until_stopped(settings, lambda: _serve(settings))


def _until_stopped(settings: Settings, work: Callable[[], int]) -> int:
    """Do *work*; return its exit code, or 1 when it cannot be done, having said why."""
    # The server handles signals while it serves; before and after, both are a Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return work()
    except KeyboardInterrupt:
        return 0
    except SettingsError as error:
        for problem in error.problems:
            _complain(settings, problem)
        return USAGE
    except (GatewayError, StoreRefused, UnexpectedVersion) as error:
        _complain(settings, f"{error}{_where(settings)}")
    except OSError as error:
        _complain(settings, _reason(error))
    except (Exception, BaseExceptionGroup):
        log.critical("the gateway has failed", exc_info=True)
    return FAILED


def _complain(settings: Settings, reason: str) -> None:
    if settings.log_format == "json":
        log.critical("cannot start", extra={"reason": reason})
    else:
        complain(f"cannot start: {reason}")


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    signal.raise_signal(signal.SIGINT)


def _where(settings: Settings) -> str:
    return f" ({TABLE['redis_url'].show(settings.redis_url)})" if settings.redis_url else ""


def _reason(error: OSError) -> str:
    text = error.strerror or str(error)
    return f"{error.filename}: {text}" if error.filename else text


def _serve(settings: Settings) -> int:
    with ExitStack() as stack:
        if settings.tls_cert:  # loaded now, because a failure later would look like a crash
            server_context(settings.tls_cert, settings.tls_key)
        settings = fit_descriptors(settings)
        sockets = bind(settings.host, settings.port)
        ops = [] if settings.ops_port is None else bind(settings.ops_host, settings.ops_port)
        for one in (*sockets, *ops):
            stack.enter_context(one)
        has_auth = settings.has_auth
        if not has_auth:
            settings = replace(settings, admin_key=kept_admin_key(settings.data_dir))
        settings = replace(settings, port=sockets[0].getsockname()[1])
        if ops:
            settings = replace(settings, ops_port=ops[0].getsockname()[1])
        greet = partial(_greet, settings, has_auth=has_auth)
        if settings.workers > 1:
            for one in sockets:
                admit_workers(one)
            if not ops:
                return Workers(settings, _work, greet).run()
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="gateway-")))
            work = partial(_work, folder=folder)
            return Workers(settings, work, greet, partial(_operate, folder, ops)).run()
        uvloop.run(_serve_alone(settings, sockets, ops, greet))
        return 0


def fit_descriptors(settings: Settings) -> Settings:
    """Raise the limit of open files to what ``max_connections`` needs; else lower the setting.

    A node with fewer connections than were asked for is of more use than none, and Redis does the
    same; the log says what is missing.

    Raises:
        OSError: Next to none are allowed.
    """
    wanted = settings.max_connections + SPARE
    allowed = raise_limit(wanted)
    if allowed == wanted:
        return settings
    fitting = max(allowed - SPARE, allowed // 2)
    log.warning(
        "max_connections is lowered: the hard limit of open files is too low",
        extra={
            "wanted": settings.max_connections,
            "max_connections": fitting,
            "files_needed": needed_for(wanted),
            "files_allowed": needed_for(allowed),
            "raise_by": "ulimit -Hn, LimitNOFILE= of systemd, --ulimit nofile= of Docker",
        },
    )
    return replace(settings, max_connections=fitting)


async def _serve_alone(
    settings: Settings,
    sockets: list[socket.socket],
    ops: list[socket.socket],
    greet: Callable[[], None],
) -> None:
    pulse = systemd.Watchdog()
    async with running(settings) as context, served_alone(context, ops):
        await _listen(context, sockets, greet, lambda: pulse.beat(time.monotonic()))
        systemd.notify(systemd.STOPPING)


def _operate(
    folder: Path,
    ops: list[socket.socket],
    settings: Settings,
    life: int,
    tell: Callable[[], None],
) -> int:
    async def operate() -> int:
        leaving = asyncio.Event()
        asyncio.get_running_loop().add_reader(life, leaving.set)
        await serve_for_workers(folder, worker_names(settings), ops, tell, leaving)
        return 0

    return _until_stopped(settings, lambda: uvloop.run(operate()))


def _work(
    settings: Settings, life: int, tell: Callable[[], None], folder: Path | None = None
) -> int:
    formats.sign(settings.node_name)
    return _until_stopped(settings, lambda: uvloop.run(_serve_beside(settings, life, tell, folder)))


async def _serve_beside(
    settings: Settings, life: int, tell: Callable[[], None], folder: Path | None
) -> int:
    """Serve as one of several workers, until *life* ends."""
    loop = asyncio.get_running_loop()
    context: Context | None = None

    def leave() -> None:
        loop.remove_reader(life)
        # Some service managers send the signal to all processes; do not send a second one.
        if context is None or not context.node.is_draining:
            signal.raise_signal(signal.SIGTERM)

    loop.add_reader(life, leave)
    with ExitStack() as stack:
        sockets = bind(settings.host, settings.port, is_shared=True)
        for one in sockets:
            stack.enter_context(one)
        async with running(settings) as context, served_to_operations(context, folder):
            await _listen(context, sockets, tell, tell)
    return 0


async def _listen(
    context: Context,
    sockets: list[socket.socket],
    tell: Callable[[], None],
    beat: Callable[[], None],
) -> None:
    web = server(context)
    tune_collector()
    async with asyncio.TaskGroup() as group:
        beating = group.create_task(_announce(web, tell, beat))
        await web.serve(sockets)
        beating.cancel()


def tune_collector() -> None:
    """Make the garbage collector run rarely, and never visit the objects that exist now.

    Sessions and connections hardly ever form cycles, but the collector walks over all of them
    again and again. Measured with Python 3.11 while 20,000 sessions were opened and 6,000
    subscribers connected: by default it took 14 % and 12 % of the CPU, with pauses up to 105 ms;
    with this it takes 0.3 % and 1.4 %, with pauses up to 3 ms.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT)


def bind(host: str, port: int, *, is_shared: bool = False) -> list[socket.socket]:
    """Return sockets of every address of *host*, on one port; they do not listen yet.

    Args:
        host: A name or an address.
        port: 0 takes a free one.
        is_shared: Whether the port is that of :func:`admit_workers`.

    Raises:
        OSError: An address is in use, or none can be used.
    """
    bound: list[socket.socket] = []
    with ExitStack() as stack:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except OSError as error:
            raise OSError(error.errno, f"cannot listen on {host}: {error.strerror}") from error
        for family, kind, protocol, _, address in dict.fromkeys(found):
            at = (address[0], bound[0].getsockname()[1] if bound else port, *address[2:])
            try:
                one = stack.enter_context(socket.socket(family, kind, protocol))
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if is_shared:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                if family == socket.AF_INET6:
                    one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                one.bind(at)
            except OSError as error:
                if error.errno in _NOT_HERE and len(found) > 1:
                    continue  # "localhost" names an IPv6 address also where there is no IPv6
                raise OSError(
                    error.errno, f"cannot listen on {host} port {at[1]}: {error.strerror}"
                ) from error
            bound.append(one)
        if not bound:
            raise OSError(errno.EADDRNOTAVAIL, f"cannot listen on {host}: no address of it is here")
        stack.pop_all()
    return bound


def admit_workers(bound: socket.socket) -> None:
    """Share the port of a socket that will not listen with the workers.

    It was taken without sharing, so a port in use was told; only from now on others of this user
    may come to it, and only by sharing.
    """
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


async def _announce(
    web: uvicorn.Server, tell: Callable[[], None], beat: Callable[[], None]
) -> None:
    """Call *tell* as soon as the server listens, and *beat* each second from then on."""
    while not web.started:
        if web.should_exit:
            return
        await asyncio.sleep(LOOK_EVERY_S)
    tell()
    while True:
        beat()
        await asyncio.sleep(BEAT_S)


def _greet(settings: Settings, *, has_auth: bool) -> None:
    systemd.notify(systemd.READY)
    with suppress(OSError):  # the program that started us may read the first line, or nothing
        if settings.log_format == "json":
            put(_ready_line(settings, has_auth=has_auth))
            return
        for line in greeting(settings, has_auth=has_auth):
            put(line)


def _ready_line(settings: Settings, *, has_auth: bool) -> str:
    about = {"url": _url(settings), "version": __version__}
    if settings.ops_port is not None:
        about["ops_url"] = _ops_url(settings)
    if not has_auth:
        about["admin_key_file"] = str(_key_file(settings))
    ready = "the gateway is ready"
    return formats.json_line(__name__, logging.INFO, ready, settings.node_name, **about)


def _url(settings: Settings) -> str:
    scheme = "https" if settings.tls_cert else "http"
    return f"{scheme}://{_host(settings.host)}:{settings.port}"


def _ops_url(settings: Settings) -> str:
    return f"http://{_host(settings.ops_host)}:{settings.ops_port}"


def _host(name: str) -> str:
    host = _WILDCARDS.get(name, name)
    return f"[{host}]" if ":" in host else host


def _key_file(settings: Settings) -> Path:
    return settings.data_dir.absolute() / "admin_key"


def greeting(settings: Settings, *, has_auth: bool) -> list[str]:
    """Return the lines that a gateway prints when it is ready."""
    url = _url(settings)
    everywhere = " (on all addresses)" if settings.host in _WILDCARDS else ""
    lines = [f"Session Gateway {__version__} is ready at {url}{everywhere}"]
    if settings.ops_port is not None:
        lines.append(f"Metrics and health of all workers are at {_ops_url(settings)}")
    if has_auth:
        return lines
    key = _key_file(settings)
    example = ["gateway watch"]
    if url != DEFAULT_URL:
        example.append(f"--url {url}")
    if key.parent != data_dir().absolute() or settings.host not in ("127.0.0.1", "localhost"):
        example.append(f'--token "$(cat {shlex.quote(str(key))})"')
    lines.append("No auth is configured: it listens on the loopback only.")
    lines.append(f"The admin key is in {key}. To watch: {' '.join(example)}")
    return lines
