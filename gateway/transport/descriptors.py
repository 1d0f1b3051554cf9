"""Descriptors: the limit of open files, and the share of it that connections never get.

Every connection is an open file. When none is left, accept() fails and the store cannot be
reconnected: clients would cut the node off its store. Therefore the limit is raised at the start
to what the connections need, and the last ``RESERVE`` descriptors are kept for the store, our own
Valkey and files. The kernel gives the lowest free number, so a connection with one of the last
numbers shows that no other is free.
"""

import errno
import resource
from contextlib import suppress
from typing import Final

RESERVE: Final = 128  # for the store (a reader a partition), listeners, files and pipes
REFUSED_MAX: Final = 64  # connections over the limit that are told so; further ones are cut
CONNECTIONS_MIN: Final = 16  # fewer than that is no server


def raise_limit(connections: int) -> int:
    """Raise the soft limit to what *connections* need; return how many the limit allows.

    Raises:
        OSError: The limit is too low for any useful number.
    """
    wanted = needed_for(connections)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(OSError, ValueError):  # macOS allows less than its hard limit says
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft == resource.RLIM_INFINITY:
        return connections
    allowed = min(connections, soft - needed_for(0))
    if allowed < min(connections, CONNECTIONS_MIN):
        least = needed_for(CONNECTIONS_MIN)
        raise OSError(
            errno.EMFILE, f"at most {soft} files may be open (ulimit -n), at least {least} must"
        )
    return allowed


def needed_for(connections: int) -> int:
    """Return how many descriptors a process with so many connections needs."""
    return connections + REFUSED_MAX + RESERVE


def is_reserved(descriptor: int) -> bool:
    """Return whether *descriptor* is one of the last, which no connection may keep.

    The limit is read each time because an operator may change it while the process runs.
    """
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return soft != resource.RLIM_INFINITY and descriptor >= soft - min(RESERVE, soft // 2)
