"""Downloading a published file: goes on where it stopped, and keeps only what has its digest."""

from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from iirc_data.errors import SourceError
from iirc_data.files import file_sha256, sync_file
from iirc_data.sources.base import cannot_read

_ATTEMPTS = 5
_CHUNK = 1 << 20
_LARGEST_FILE = 1 << 30  # six times CIFAR
_SECONDS_WITHOUT_ANSWER = 60
_RANGE_NOT_SATISFIABLE = 416

DownloadProgress = Callable[[int, int | None], None]
"""Called with the bytes that are there, and the bytes of the whole where they are known."""


def download(
    url: str,
    path: Path,
    sha256: str,
    progress: DownloadProgress = lambda done, total: None,
) -> None:
    """Download a file, unless it is there.

    What an interrupted download leaves, ``path`` with ``.part`` after it, is gone on with.

    Args:
        url: An ``http`` or ``https`` address.
        path: Where to put the file; its folder is made if missing.
        sha256: Digest that the file must have.
        progress: Told of what is done.

    Raises:
        SourceError: The file cannot be had or written, or has another digest.
    """
    if path.exists():
        _check(path, sha256, f"{path} is not the file that was published: remove it")
        return
    partial = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                _fetch_rest(url, partial, progress)
                break
            except (HTTPException, ConnectionError, TimeoutError) as error:
                if attempt == _ATTEMPTS:
                    raise SourceError(
                        f"downloading {url} broke off ({error}): run the command again to go on"
                    ) from error
        try:
            _check(partial, sha256, f"{url} gave another file than was published: try again")
        except SourceError:
            partial.unlink()
            raise
        partial.replace(path)
    except HTTPError as error:
        raise SourceError(f"cannot download {url}: {error}") from error
    except OSError as error:
        raise SourceError(f"cannot download {url} to {partial}: {error}") from error


def _fetch_rest(url: str, partial: Path, progress: DownloadProgress) -> None:
    done = partial.stat().st_size if partial.exists() else 0
    request = Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        response = urlopen(request, timeout=_SECONDS_WITHOUT_ANSWER)
    except HTTPError as error:
        if error.code == _RANGE_NOT_SATISFIABLE and done:
            return  # nothing is left to fetch; the digest tells whether that is right
        raise
    with response, partial.open("ab") as file:
        if response.status != 206:  # the server gives the whole file again
            file.truncate(0)
            done = 0
        length = getattr(response, "length", None)  # a file: address has none
        total = None if length is None else done + length
        progress(done, total)
        while chunk := response.read(_CHUNK):
            done += len(chunk)
            if done > _LARGEST_FILE:
                file.truncate(0)
                raise SourceError(f"{url} gives more than {_LARGEST_FILE:,} bytes: not what it was")
            file.write(chunk)
            progress(done, total)
        file.flush()
        sync_file(file.fileno())
    if total is not None and done < total:
        raise ConnectionError(f"ended after {done:,} of {total:,} bytes")


def _check(path: Path, sha256: str, problem: str) -> None:
    try:
        found = file_sha256(path)
    except OSError as error:
        raise cannot_read(path, error) from error
    if found != sha256:
        raise SourceError(f"{problem} (SHA-256 {found}, expected {sha256})")
