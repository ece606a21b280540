"""One request to the local Hub."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub.server.repository import Blob, Repository

if TYPE_CHECKING:
    from tests.hub.server.local_hub import Fault, LocalHub

LFS_FROM = 1024  # bytes; and every safetensors or parquet file
Refusal = tuple[int, str, str]
"""Status, X-Error-Code, X-Error-Message."""

NO_TOKEN: Refusal = (401, "RepoNotFound", "Invalid username or password.")
NO_REPO: Refusal = (404, "RepoNotFound", "Repository not found")
NO_REVISION: Refusal = (404, "RevisionNotFound", "Invalid rev id")
NO_ENTRY: Refusal = (404, "EntryNotFound", "Entry not found")


class Handler(BaseHTTPRequestHandler):
    """Routes by method and path; a route's name is its method below."""

    hub: LocalHub
    protocol_version = "HTTP/1.1"
    routes = (
        ("GET", r"/api/whoami-v2", "whoami"),
        ("POST", r"/api/validate-yaml", "validate"),
        ("POST", r"/api/repos/create", "create"),
        ("POST", r"/api/models/([^/]+/[^/]+)/branch/([^/]+)", "branch"),
        ("POST", r"/api/models/([^/]+/[^/]+)/preupload/([^/]+)", "preupload"),
        ("POST", r"/api/models/([^/]+/[^/]+)/commit/([^/]+)", "commit"),
        ("GET", r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", "tree"),
        ("GET", r"/api/models/([^/]+/[^/]+)/revision/([^/]+)", "info"),
        ("GET", r"/api/models/([^/]+/[^/]+)", "info"),
        ("POST", r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", "batch"),
        ("PUT", r"/storage/([0-9a-f]{64})", "store"),
        ("POST", r"/verify/([0-9a-f]{64})", "verify"),
        ("GET", r"/storage/([0-9a-f]{64})", "fetch"),
        ("HEAD|GET", r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", "resolve"),
    )

    def do_GET(self) -> None:
        self.answer()

    do_POST = do_PUT = do_HEAD = do_GET  # noqa: N815 (http.server's names)

    def answer(self) -> None:
        """Meet a fault or find the route."""
        split = urlsplit(self.path)
        path, self.query = split.path, parse_qs(split.query)
        fault = self.hub.fault_of(f"{self.command} {unquote(path)}")
        length = int(self.headers.get("Content-Length", 0))
        if fault is not None and fault.cut_upload:
            self.rfile.read(length // 2)
            self.hang_up()
            return
        self.body = self.rfile.read(length)
        self.fault: Fault | None = fault
        if fault is not None and fault.delay:
            threading.Event().wait(fault.delay)  # time.sleep is the client's, and patched
        if fault is not None and fault.status is not None:
            self.refuse((fault.status, fault.headers.get("X-Error-Code", ""), fault.message), fault.headers)
            return
        for method, pattern, name in self.routes:
            match = re.fullmatch(pattern, path)
            if match and self.command in method.split("|"):
                getattr(self, f"on_{name}")(*map(unquote, match.groups()))
                return
        self.refuse((404, "", f"no route for {self.command} {path}"))

    # who may do what

    @property
    def known(self) -> bool:
        from tests.hub.server.local_hub import TOKEN

        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def repository(self, name: str, write: bool = False) -> Repository | None:
        """The repository, or None after a refusal was sent."""
        found = self.hub.repositories.get(name)
        if (write or (found is not None and found.private)) and not self.known:
            self.refuse(NO_TOKEN)
            return None
        if found is None:
            self.refuse(NO_REPO)
        return found

    # routes

    def on_whoami(self) -> None:
        from tests.hub.server.local_hub import USER

        self.send(200, {"name": USER, "type": "user", "orgs": []}) if self.known else self.refuse(NO_TOKEN)

    def on_validate(self) -> None:
        content = json.loads(self.body)["content"]
        good = content.startswith("---\n")
        self.send(200 if good else 400, {"errors": [] if good else [{"message": "no metadata"}], "warnings": []})

    def on_create(self) -> None:
        from tests.hub.server.local_hub import USER

        wanted = json.loads(self.body)
        name = f"{wanted.get('organization') or USER}/{wanted['name']}"
        if not self.known:
            self.refuse((401, "", "Invalid username or password."))
        elif wanted.get("organization") not in (None, USER):
            self.refuse((403, "", f"You don't have the rights to create a model under {wanted['organization']}"))
        elif name in self.hub.repositories:
            self.send(409, {"error": "You already created this model repo", "url": f"{self.hub.endpoint}/{name}"})
        else:
            self.hub.repositories[name] = Repository(private=wanted.get("visibility") == "private")
            self.send(200, {"url": f"{self.hub.endpoint}/{name}", "name": name})

    def on_branch(self, repo: str, branch: str) -> None:
        found = self.repository(repo, write=True)
        if found is None:
            return
        if branch in found.refs:
            self.refuse((409, "", f"Reference already exists: {branch}"))
            return
        found.refs[branch] = found.refs["main"]
        self.send(201, {})

    def on_info(self, repo: str, revision: str = "main") -> None:
        found = self.repository(repo)
        if found is None:
            return
        sha = found.resolve(revision)
        if sha is None:
            self.refuse(NO_REVISION)
            return
        names = [{"rfilename": name} for name in sorted(found.commits[sha])]
        about = {"_id": "1", "id": repo, "modelId": repo, "sha": sha, "private": found.private, "siblings": names}
        self.send(200, about | {"tags": [], "downloads": 0, "likes": 0})

    def on_tree(self, repo: str, revision: str) -> None:
        found = self.repository(repo)
        if found is None:
            return
        sha = found.resolve(revision)
        if sha is None:
            self.refuse(NO_REVISION)
            return
        entries: list[dict[str, object]] = []
        for name, blob in sorted(found.commits[sha].items()):
            lfs = {"lfs": {"oid": blob.etag, "size": len(blob.content), "pointerSize": 130}} if blob.lfs else {}
            entries.append({"type": "file", "oid": blob.git, "size": len(blob.content), "path": name, **lfs})
        self.send(200, [*entries, *found.listed_extra])

    def on_preupload(self, repo: str, revision: str) -> None:
        found = self.repository(repo, write=True)
        if found is None:
            return
        tree, answers = found.commits[found.refs.get(revision, found.refs["main"])], []
        for file in json.loads(self.body)["files"]:
            large = file["size"] >= LFS_FROM or file["path"].endswith((".safetensors", ".parquet"))
            large = large and self.hub.large_files
            held = tree.get(file["path"])
            oid = held.etag if held is not None and held.lfs == large else None
            answers.append(
                {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid}
            )
        self.send(200, {"files": answers})

    def on_batch(self, repo: str) -> None:
        if self.repository(repo, write=True) is None:
            return
        answers = []
        for wanted in json.loads(self.body)["objects"]:
            oid = wanted["oid"]
            actions = {
                "upload": {"href": f"{self.hub.endpoint}/storage/{oid}"},
                "verify": {"href": f"{self.hub.endpoint}/verify/{oid}"},
            }
            answers.append({**wanted, **({} if oid in self.hub.objects else {"actions": actions})})
        self.send(200, {"transfer": "basic", "objects": answers})

    def on_store(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            self.refuse((400, "", "the content does not have this hash"))
            return
        self.hub.objects[oid] = self.body
        self.send(200, {})

    def on_verify(self, oid: str) -> None:
        whole = oid in self.hub.objects and len(self.hub.objects[oid]) == json.loads(self.body)["size"]
        self.send(200, {}) if whole else self.refuse((422, "", "the upload is not whole"))

    def on_commit(self, repo: str, revision: str) -> None:
        found = self.repository(repo, write=True)
        if found is None:
            return
        header, *operations = [json.loads(line) for line in self.body.splitlines()]
        base = found.resolve(revision)
        if base is None:
            self.refuse(NO_REVISION)
            return
        tree = dict(found.commits[base])
        for operation in operations:
            self.apply(tree, operation["key"], operation["value"])
        proposal = "create_pr" in self.query
        number = 1 + sum(name.startswith("refs/pr/") for name in found.refs)
        ref = f"refs/pr/{number}" if proposal else revision
        sha = found.commit(ref, tree, header["value"]["summary"])
        url = f"{self.hub.endpoint}/{repo}"
        self.send(200, {"commitUrl": f"{url}/commit/{sha}", "commitOid": sha,
                        "pullRequestUrl": f"{url}/discussions/{number}" if proposal else None})  # fmt: skip

    def apply(self, tree: dict[str, Blob], kind: str, value: dict[str, Any]) -> None:
        """One line of a commit."""
        match kind:
            case "file":
                tree[value["path"]] = Blob(base64.b64decode(value["content"]), lfs=False)
            case "lfsFile":
                tree[value["path"]] = Blob(self.hub.objects[value["oid"]], lfs=True)
            case "deletedFile":
                del tree[value["path"]]
            case _:
                raise AssertionError(kind)

    def on_resolve(self, repo: str, revision: str, name: str) -> None:
        found = self.repository(repo)
        if found is None:
            return
        sha = found.resolve(revision)
        blob = None if sha is None else found.commits[sha].get(name)
        if sha is None or blob is None:
            self.refuse(NO_REVISION if sha is None else NO_ENTRY)
            return
        headers = {"X-Repo-Commit": sha, "ETag": f'"{blob.etag}"', "Accept-Ranges": "bytes"}
        if blob.lfs:
            self.hub.objects.setdefault(blob.etag, blob.content)
            linked = {"X-Linked-ETag": f'"{blob.etag}"', "X-Linked-Size": str(len(blob.content))}
            self.reply(302, b"", headers | linked | {"Location": f"{self.hub.storage}/storage/{blob.etag}"})
            return
        self.content(blob.content, headers)

    def on_fetch(self, oid: str) -> None:
        if self.headers.get("Authorization"):
            self.hub.leaked.append(self.path)
        self.content(self.hub.objects[oid], {"ETag": f'"{oid}"'})

    # answers

    def content(self, content: bytes, headers: dict[str, str]) -> None:
        """A file or the range of it that was asked for."""
        if self.fault is not None and self.fault.flip:
            content = bytes([content[0] ^ 0xFF]) + content[1:]
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None:
            self.reply(200, content, headers)
            return
        start, end = int(wanted[1]), int(wanted[2] or len(content) - 1)
        said = {"Content-Range": f"bytes {start}-{end}/{len(content)}"}
        self.reply(206, content[start : end + 1], headers | said)

    def send(self, status: int, value: Any) -> None:
        self.reply(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def refuse(self, refusal: Refusal, headers: dict[str, str] | None = None) -> None:
        status, code, message = refusal
        said = {"X-Error-Code": code} if code else {}
        said |= {"X-Error-Message": message} if message else {}
        self.reply(status, json.dumps({"error": message}).encode(), {**said, **(headers or {})})

    def reply(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.fault is not None and self.fault.truncate:
            self.wfile.write(content[: len(content) // 2])
            self.hang_up()
            return
        self.wfile.write(content)

    def hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the tests look at `hub.requests`."""
