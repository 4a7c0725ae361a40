"""Downloading a published file: resumable, and checked against its digest."""

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
"""Called with the number of bytes downloaded, and the size of the file if it is known."""


def download(
    url: str,
    path: Path,
    sha256: str,
    progress: DownloadProgress = lambda done, total: None,
) -> None:
    """Download a file, unless it is already there.

    Calling this function again resumes an interrupted download from ``path`` with ``.part``
    appended.

    Args:
        url: An ``http`` or ``https`` address.
        path: Path of the file; its folder is created if missing.
        sha256: The SHA-256 that the file must have.
        progress: Called while the file is downloaded.

    Raises:
        SourceError: The file cannot be downloaded or written, or has another digest.
    """
    if path.exists():
        _check(path, sha256, f"{path} is not the published file: remove it")
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
                        f"downloading {url} was interrupted ({error}): run the command again to "
                        "resume"
                    ) from error
        try:
            _check(partial, sha256, f"{url} gave a file other than the published one: try again")
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
            return  # nothing is left to fetch; the digest will show whether that is right
        raise
    with response, partial.open("ab") as file:
        if response.status != 206:  # the server sends the whole file again
            file.truncate(0)
            done = 0
        length = getattr(response, "length", None)  # missing for file: addresses
        total = None if length is None else done + length
        progress(done, total)
        while chunk := response.read(_CHUNK):
            done += len(chunk)
            if done > _LARGEST_FILE:
                file.truncate(0)
                raise SourceError(f"{url} gives more than {_LARGEST_FILE:,} bytes: not the file")
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
