"""What the local Hub remembers: repositories, commits, files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Blob:
    """A file's content; large files are named by SHA-256, others by Git's SHA-1."""

    content: bytes
    lfs: bool

    @property
    def git(self) -> str:
        pointer = f"oid sha256:{hashlib.sha256(self.content).hexdigest()}\nsize {len(self.content)}\n".encode()
        content = pointer if self.lfs else self.content
        return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()

    @property
    def etag(self) -> str:
        return hashlib.sha256(self.content).hexdigest() if self.lfs else self.git


Tree = dict[str, Blob]


@dataclass
class Repository:
    """One model repository: branches (and pull requests) point at commits, commits at files."""

    private: bool = False
    commits: dict[str, Tree] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    refs: dict[str, str] = field(default_factory=dict)
    listed_extra: list[dict[str, object]] = field(default_factory=list)
    """Entries that the listing has besides the real ones: what a hostile server might say."""

    def __post_init__(self) -> None:
        if not self.refs:
            self.commit("main", {".gitattributes": Blob(b"*.safetensors filter=lfs\n", False)}, "initial commit")

    def commit(self, ref: str, tree: Tree, message: str) -> str:
        """Point `ref` at a new commit of these files."""
        text = "".join(f"{name} {blob.etag}\n" for name, blob in sorted(tree.items()))
        sha = hashlib.sha1(f"{ref}{message}{len(self.commits)}{text}".encode()).hexdigest()
        self.commits[sha] = tree
        self.messages.append(message)
        self.refs[ref] = sha
        return sha

    def resolve(self, revision: str) -> str | None:
        """The commit that a branch, pull request or commit name means."""
        return self.refs.get(revision) or (revision if revision in self.commits else None)

    def tree(self, revision: str = "main") -> Tree:
        return self.commits[self.refs[revision]]

    def names(self, revision: str = "main") -> list[str]:
        return sorted(name for name in self.tree(revision) if name != ".gitattributes")
