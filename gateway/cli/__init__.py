"""The ``gateway`` command: run a gateway, inspect one, control it, and check what it promises.

All commands but ``serve``, ``config``, ``token``, ``user`` and the Redis probe of ``audit`` use the
public API through ``gateway.client``. A command's module is imported when it runs, so that
``--help`` is quick.

Output is for people on a terminal and for programs elsewhere: tables become lines with tabs, times
become RFC 3339; ``--json`` is JSON, one line a thing. Text that clients chose (names, titles,
reasons) is escaped, so that it cannot control a terminal.

Not here: the gateway itself (``app``), the client (``client``).
"""

import errno
import logging
import os
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

from cyclopts import App, CycloptsError
from rich.text import Text

from gateway import __version__
from gateway.core.errors import GatewayError, NotFound, SessionClosed, Unauthorized
from gateway.settings import SettingsError

__all__ = ["command_line", "main"]

FAILED: Final = 1
USAGE: Final = 2
NO_SESSION: Final = 3
INTERRUPTED: Final = 130  # 128 + SIGINT, as shells say it
NOBODY_READS: Final = 141  # 128 + SIGPIPE

_EXIT_CODES: Final = """\
Exit codes: 0 done; 1 failed or refused, stderr has the error's code; 2 wrong usage or settings; \
3 there is no such session, or not any more; 130 interrupted; 141 nobody reads the output."""

_COMMANDS: Final = (
    ("serve", "cli.serving:serve", "Run a gateway until SIGINT or SIGTERM."),
    ("ping", "cli.ping:ping", "Ask a gateway whether it is ready; for probes."),
    ("sessions", "cli.sessions:list_sessions", "List open sessions."),
    ("show", "cli.sessions:show", "Show one session, also for a while after it was closed."),
    ("history", "cli.lists:history", "List closed sessions or finished watches, newest first."),
    ("nodes", "cli.lists:nodes", "List the nodes of the gateway, and how they do."),
    ("top", "cli.top:top", "Show sessions, rates and nodes, live."),
    ("watch", "cli.watching:watch", "Follow what happens, one line an event."),
    ("close", "cli.closing:close", "Close a session, or many, now or after a warning."),
    ("cancel", "cli.sessions:cancel", "Cancel the pending close of a session."),
    ("kick", "cli.sessions:kick", "End the connection of a session; the session stays."),
    ("config", "cli.config:config", "Show the effective settings, and where each came from."),
    ("completion", "cli.completion:completion", "Write a shell's completion of this command."),
    ("audit", "audit.command:audit", "Check a running gateway's promises by watching it."),
)
_REACH: Final = ("GATEWAY_URL", "GATEWAY_TOKEN")
_SILENT: Final = frozenset({"serve", "ping"})  # whose output may be closed
_MESSAGES: Final = (
    ("send", "cli.messages:send", "Say something once to live connections; it is not stored."),
)
_TOKEN: Final = (
    ("create", "cli.tokens:create", "Make a token (JWT), or an API key."),
    ("verify", "cli.tokens:verify", "Say what a token is good for under these settings."),
)
_USER: Final = (
    ("add", "cli.users:add", "Add somebody, or replace who has the name."),
    ("list", "cli.users:list_users", "List everybody."),
    ("remove", "cli.users:remove", "Remove somebody."),
)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command that *arguments* (or ``sys.argv``) ask for, and exit with its code."""
    is_heard = sys.stdout is not None
    _reopen_closed()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # no locale makes a name a crash
    for name in [name for name in _REACH if os.environ.get(name) == ""]:
        del os.environ[name]  # not given, as an empty variable of any setting
    try:
        asked = next(iter(sys.argv[1:] if arguments is None else arguments), "")
        if not is_heard and asked not in _SILENT:  # before it changes anything
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        code = command_line()(arguments)
        sys.stdout.flush()
    except SettingsError as error:
        code = _complain(error.problems, USAGE)
    except GatewayError as error:
        code = _refused(error)
    except BrokenPipeError:
        _drop_output()
        code = NOBODY_READS
    except OSError as error:
        _drop_output()
        why = "it is closed" if error.errno == errno.EBADF else error.strerror or str(error)
        code = _complain([f"{error.filename or 'the output'}: {why}"], FAILED)
    except KeyboardInterrupt:
        code = INTERRUPTED
    sys.exit(code)


def _reopen_closed() -> None:
    """Open what the shell closed (``>&-``): else the next file or socket would be our output.

    Writing to a closed output then fails like writing to a full one; stderr is lost.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            found = os.open(os.devnull, os.O_WRONLY if name == "stderr" else os.O_RDONLY)
            os.dup2(found, number)
            setattr(sys, name, os.fdopen(number, "r" if name == "stdin" else "w", closefd=False))
            if found != number:
                os.close(found)


def _drop_output() -> None:
    # Python flushes once more at its end, and would complain (docs: signal, "Note on SIGPIPE").
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def command_line() -> App:
    """Return the whole command line, none of whose commands is imported yet."""
    app = _group("gateway", "Session Gateway: who is connected right now.", _COMMANDS)
    app.command(_group("messages", "Messages to who is connected.", _MESSAGES))
    app.command(_group("token", "Make and check tokens, with the settings at hand.", _TOKEN))
    app.command(_group("user", "Keep the file of people who log in with a password.", _USER))
    return app


def _group(name: str, said: str, commands: tuple[tuple[str, str, str], ...]) -> App:
    group = App(
        name=name,
        help=said,
        help_epilogue=_EXIT_CODES,
        help_format="plaintext",
        help_formatter=None if sys.stdout.isatty() else "plain",
        version=__version__,
        result_action="return_value",
        suppress_keyboard_interrupt=False,
        error_formatter=_misused,
    )
    for command, place, said_of_it in commands:
        group.command(f"gateway.{place}", name=command, help=said_of_it)
    return group


def _misused(error: CycloptsError) -> Text:
    tokens = list(error.root_input_tokens or ())
    if tokens[:1] == ["serve"] and _asks_for_json(tokens):
        from gateway.logs.formats import json_line  # noqa: PLC0415 - --help does not need it

        where = ("gateway.cli", logging.CRITICAL, "cannot start", "")
        sys.stderr.write(json_line(*where, reason=str(error)) + "\n")  # a console would fold it
        sys.exit(USAGE)
    return Text(f"gateway: {error}\nSee gateway --help, or --help of the command.")


def _asks_for_json(tokens: Sequence[str]) -> bool:
    """Whether a command that cannot be understood was to log in JSON."""
    pairs = zip(tokens, [*tokens[1:], ""], strict=True)
    return (
        os.environ.get("GATEWAY_LOG_FORMAT") == "json"
        or "--log-format=json" in tokens
        or ("--log-format", "json") in pairs
    )


def _refused(error: GatewayError) -> int:
    lines = [f"{error.code}: {error.detail}"]
    if isinstance(error, Unauthorized):
        lines.append("Give a token with --token or GATEWAY_TOKEN.")
    gone = type(error) is NotFound or isinstance(error, SessionClosed)
    return _complain(lines, NO_SESSION if gone else FAILED)


def _complain(lines: Sequence[str], code: int) -> int:
    from gateway.cli.output import complain  # noqa: PLC0415 - --help does not need it

    complain(*lines)
    return code
