"""Positions: a place in the feed, as one opaque text.

A position is the gateway's epoch, one offset a partition and 32 bits of the view it was issued for
(visibility, filter, level and dialect). Two positions compare only within one epoch: when Redis
loses history the epoch changes and all earlier positions become void.
"""

import re
from typing import Final, Self

from msgspec import Struct

from gateway.core.errors import BadPosition

_TEXT: Final = re.compile(r"([0-9a-z]{1,16})-([0-9a-f]{8})((?:-[0-9]{1,16}){1,256})", re.ASCII)


class Position(Struct, frozen=True, gc=False):
    """A place in the feed.

    Args:
        epoch: Names an unbroken history.
        offsets: The offset of the last log entry seen, by partition.
        view: 32 bits of the view; 0 where no view is meant.
    """

    epoch: str
    offsets: tuple[int, ...]
    view: int = 0

    def __str__(self) -> str:
        return f"{self.epoch}-{self.view:08x}-" + "-".join(map(str, self.offsets))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a position's text form.

        Raises:
            BadPosition: This is not such a text.
        """
        match = _TEXT.fullmatch(text)
        if not match:
            raise BadPosition
        epoch, view, offsets = match.groups()
        return cls(epoch, tuple(map(int, offsets[1:].split("-"))), int(view, 16))

    def covers(self, other: Self) -> bool:
        """Whether this position is at or after *other* in every partition of the same epoch."""
        return (
            self.epoch == other.epoch
            and len(self.offsets) == len(other.offsets)
            and all(
                mine >= theirs for mine, theirs in zip(self.offsets, other.offsets, strict=True)
            )
        )
