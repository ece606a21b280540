"""`user/repo[:id][@revision]`: which dictionary of which repository, as of when."""

from __future__ import annotations

import re
from dataclasses import dataclass

_NAME = r"[A-Za-z0-9][\w.-]*"
_PATTERN = re.compile(rf"(?P<repo>{_NAME}/{_NAME})(?::(?P<id>[^:@]+))?(?:@(?P<revision>[^:@]+))?")


@dataclass(frozen=True)
class Reference:
    """A dictionary on the Hub, or all of a repository's."""

    repo: str
    """`user/name`."""
    id: str | None = None
    """Folder of the dictionary in the repository, or the beginning of its path; None means the only one, or all."""
    revision: str | None = None
    """Branch, tag or commit; None is the main branch."""

    def __str__(self) -> str:
        id = f":{self.id}" if self.id else ""
        return f"{self.repo}{id}" + (f"@{self.revision}" if self.revision else "")


def parse(text: str) -> Reference | None:
    """What `text` refers to; None when it can't be a repository."""
    match = _PATTERN.fullmatch(text)
    return Reference(match["repo"], match["id"], match["revision"]) if match else None
