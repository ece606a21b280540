"""The Hub's client, and one sentence for whatever goes wrong on the way there.

The token is huggingface_hub's own business (`hf auth login` or HF_TOKEN); nothing here reads, prints or writes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from saelab import __version__
from saelab.errors import UserError

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

_SECRET = re.compile(r"\bhf_[A-Za-z0-9]{8,}")
_LOGIN = "`hf auth login` stores a token that may"


def hub() -> HfApi:
    """The client, told who is calling."""
    from huggingface_hub import HfApi

    return HfApi(library_name="saelab", library_version=__version__)


@contextmanager
def one_sentence(repo: str, doing: str) -> Iterator[None]:
    """Turn what the client raises into a UserError.

    Args:
        doing: opens the sentence where the Hub names no cause: "publishing to user/repo".
    """
    from huggingface_hub import errors
    from huggingface_hub.utils import httpx

    missing = (errors.RevisionResolutionError, errors.CachedRepoTreeNotFoundError)
    try:
        yield
    except (httpx.HTTPError, OSError, RuntimeError, ValueError, *missing) as error:
        raise UserError(_SECRET.sub("hf_…", _explain(_cause(error), repo, doing))) from error


def _cause(error: BaseException) -> BaseException:
    """What lies below the client's "error while uploading"."""
    while type(error) is RuntimeError and error.__cause__ is not None:
        error = error.__cause__
    return error


def _explain(error: BaseException, repo: str, doing: str) -> str:
    from huggingface_hub import errors
    from huggingface_hub.utils import httpx

    match error:
        case errors.OfflineModeIsEnabled():
            return f"{doing}: HF_HUB_OFFLINE is set, so the Hub is not asked; unset it"
        case errors.GatedRepoError():
            return f"{repo} is gated: accept its terms on its page on the Hub, then log in with `hf auth login`"
        case errors.RepositoryNotFoundError():
            return f"there is no repository {repo} on the Hub, or it is private; {_LOGIN} read it"
        case errors.RevisionNotFoundError():
            return f"{repo} has no such branch, tag or commit"
        case errors.RemoteEntryNotFoundError():
            return f"{repo} does not hold a file that it lists: {_first_line(error)}"
        case errors.HFValidationError():
            return f"{repo!r} is no name of a repository; write user/name"
        case errors.HfHubHTTPError():
            return _explain_status(error, repo, doing)
        case errors.LocalEntryNotFoundError() | errors.RevisionResolutionError() | errors.CachedRepoTreeNotFoundError():
            return f"{doing}: the Hub can't be reached, and not all that is needed is in the cache"
        case httpx.HTTPError():
            return f"{doing}: the connection to the Hub broke ({_first_line(error)}); the same command again continues"
        case _:
            return f"{doing} failed: {_first_line(error)}"


def _explain_status(error: HfHubHTTPError, repo: str, doing: str) -> str:
    response = error.response
    said = (error.server_message or "").strip().splitlines()
    reason = f" ({said[0]})" if said else ""
    match response.status_code:
        case 401:
            return f"{doing}: the Hub does not know your token{reason}; {_LOGIN} do this"
        case 403:
            return f"{doing}: your token may not do this{reason}; {_LOGIN}"
        case 404:
            return f"{doing}: the Hub finds nothing there{reason}; check the name {repo}"
        case 409 | 412:
            return f"{doing}: {repo} was changed by somebody else meanwhile{reason}; give the same command again"
        case 429:
            wait = response.headers.get("Retry-After")
            when = f"in {wait} seconds" if wait else "later"
            return f"{doing}: the Hub has had too many requests from you; give the same command again {when}"
        case status if status >= 500:
            return f"{doing}: the Hub has an error of its own ({status}); give the same command again later"
        case status:
            return f"{doing}: the Hub refuses ({status}){reason}"


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__
