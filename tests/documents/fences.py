"""The documents as tests read them: pages, and the blocks of code in them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "gateway" / "docs"
PAGES: Final = {"README": ROOT / "README.md"} | {
    f"docs/{path.stem}": path for path in sorted(DOCS.glob("*.md"))
}
"""Every page that users read, by a short name."""

_FENCE: Final = re.compile(
    r"^(?P<indent> *)```(?P<info>[^`\n]+)\n(?P<code>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True)
class Fence:
    """A block of code.

    Args:
        page: The page that it is in.
        line: The line of the page on which it begins.
        language: The first word behind the fence.
        skipped: Why it is not run, behind ``not run:``; empty if it is.
        code: Its text.
    """

    page: str
    line: int
    language: str
    skipped: str
    code: str

    def __str__(self) -> str:
        """Its place, for the name of a test."""
        return f"{self.page}:{self.line}"


def fences(page: str) -> Iterator[Fence]:
    """Yield the blocks of code of a page."""
    text = PAGES[page].read_text()
    for found in _FENCE.finditer(text):
        language, _, note = found["info"].strip().partition(" ")
        yield Fence(
            page,
            text.count("\n", 0, found.start()) + 1,
            language,
            note.partition("not run: ")[2],
            found["code"],
        )


ALL: Final = [fence for page in PAGES for fence in fences(page)]


def of(*languages: str) -> list[Fence]:
    """Return the blocks of these languages, on all pages."""
    return [fence for fence in ALL if fence.language in languages]
