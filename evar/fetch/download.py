"""Downloads that resume, are checked, and never leave half a file under the final name."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable
from pathlib import Path

import requests
from filelock import FileLock
from tqdm import tqdm

from evar.errors import UserError

_PIECE = 1 << 16  # what is lost, at most, of a connection that breaks
_TIMEOUT = (15.0, 60.0)  # seconds to connect, and between two pieces
PAUSE = 2.0  # seconds before the first further attempt; doubled with each
_BUSY = (429, 500, 502, 503, 504)  # answers of a server that may do better later

Get = Callable[..., requests.Response]
Refuse = Callable[[Path], str]


class BrokenOff(UserError):
    """A download that may well succeed when it is tried again; what has arrived is kept."""


def fetch(
    url: str,
    target: Path,
    *,
    checksum: str | None,
    progress: bool = True,
    retries: int = 0,
    get: Get = requests.get,
    refuse: Refuse | None = None,
) -> Path:
    """Download ``url`` to ``target`` and return it; a ``target`` that is there and right is not fetched again.

    What has arrived lies in ``<target>.part`` and takes its name when complete and right. A later call goes on from
    there (HTTP Range). Two processes that want the same file wait for each other.

    Parameters
    ----------
    checksum: ``sha256:…`` or ``md5:…``; None if there is none to check.
    progress: show a bar, if stderr is a terminal.
    retries: how often a connection that breaks is taken up again, after 2, 4, 8 … seconds.
    get: how to ask a server; a session's ``get`` keeps its connection for many small files.
    refuse: says of what has come, in words after "it is", that it is not what was asked for; empty if it may be.

    Raises :class:`UserError` when the server refuses, the connection breaks (:class:`BrokenOff`; the part is kept), the
    disk cannot be written, or the checksum is wrong (the part is deleted).
    """
    if checksum is not None:
        _split(checksum)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if target.is_file() and (checksum is None or matches(target, checksum)):
                return target
            part = target.with_name(target.name + ".part")
            _persist(url, part, progress, retries, get)
            if refuse is not None and (said := refuse(part)):
                part.unlink()
                raise UserError(f"{url} did not give the expected file: it is {said}; deleted it")
            if checksum is not None and not matches(part, checksum):
                part.unlink()
                raise UserError(f"{url} did not give the expected file: its checksum is not {checksum}; deleted it")
            part.replace(target)
            _tag(part).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}") from None
    return target


def matches(path: Path, checksum: str) -> bool:
    """Say whether the file's checksum is ``checksum`` (``sha256:…`` or ``md5:…``)."""
    algorithm, expected = _split(checksum)
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as handle:
        while piece := handle.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest() == expected.lower()


def _split(checksum: str) -> tuple[str, str]:
    algorithm, colon, expected = checksum.partition(":")
    if algorithm not in ("sha256", "md5") or not colon or not expected:
        raise UserError(f"'{checksum}' is no checksum: write sha256:… or md5:…")
    return algorithm, expected


def _tag(part: Path) -> Path:
    return part.with_name(part.name + ".etag")


def _persist(url: str, part: Path, progress: bool, retries: int, get: Get) -> None:
    for attempt in range(retries + 1):
        try:
            return _download(url, part, progress, get)
        except BrokenOff:
            if attempt == retries:
                raise
            time.sleep(PAUSE * 2**attempt)
    return None


def _download(url: str, part: Path, progress: bool, get: Get) -> None:
    """Bring ``part`` to its full length; what the server says of the file's version guards against mixing two."""
    have = part.stat().st_size if part.is_file() else 0
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if _tag(part).is_file():
            headers["If-Range"] = _tag(part).read_text()
    try:
        with get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            if have and response.status_code == requests.codes.requested_range_not_satisfiable:
                if response.headers.get("Content-Range", "").endswith(f"/{have}"):
                    return  # the last run had it all, and was stopped before it could say so
                part.unlink()
                _download(url, part, progress, get)
                return
            response.raise_for_status()
            resumed = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            if response.status_code == requests.codes.partial_content and not resumed:
                raise requests.RequestException("the server sent another range than was asked for")
            _receive(response, part, have if response.status_code == requests.codes.partial_content else 0, progress)
    except requests.HTTPError as error:
        answer = error.response
        kind = BrokenOff if answer.status_code in _BUSY else UserError
        raise kind(f"{url} cannot be downloaded: the server answers {answer.status_code} {answer.reason}") from None
    except requests.RequestException as error:
        have = part.stat().st_size if part.is_file() else 0
        kept = f"{have / 1e6:.1f} MB are kept in {part}; the same command goes on from there" if have else "try again"
        raise BrokenOff(f"the download of {url} broke off ({_reason(error)}); {kept}") from None


def _receive(response: requests.Response, part: Path, have: int, progress: bool) -> None:
    """Write the body to ``part`` from byte ``have`` on."""
    announced = response.headers.get("Content-Length")
    total = have + int(announced) if announced else None
    version = response.headers.get("ETag", "")
    if version and not version.startswith("W/"):  # a weak tag does not promise the same bytes
        _tag(part).write_text(version)
    shown = progress and sys.stderr.isatty()
    name = part.name.removesuffix(".part")
    with (
        part.open("ab" if have else "wb") as handle,
        tqdm(total=total, initial=have, desc=name, unit="B", unit_scale=True, delay=2.0, disable=not shown) as bar,
    ):
        for piece in response.iter_content(_PIECE):
            handle.write(piece)
            bar.update(len(piece))
    if total is not None and part.stat().st_size != total:
        raise requests.ConnectionError(f"{part.stat().st_size} of {total} bytes came")


def _reason(error: BaseException) -> str:
    """Return the innermost cause of a network failure in a few words."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
