"""Which files the package's own web client may read, and at which address.

These are files at plain web addresses, and those of S3 at addresses that s3fs has signed. fsspec
reads all others, and those for which it is configured in a way that the client does not know.
"""

import os
import time
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from fsspec.utils import get_protocol

from iirc_data.shards.addresses import WEB_PROTOCOLS
from iirc_data.shards.web import StatusError, WebClient

_SIGNED_PROTOCOLS = ("s3", "s3a")
_SIGNED_FOR = 3600  # seconds
_SIGN_AGAIN_AFTER = 300.0
_MOST_SIGNED = 1024
_OWN_OPTIONS = {"client_kwargs", "encoded"}  # those of filesystem_at
_NOT_FOR_SIGNED = frozenset({400, 401, 403, 405})


class Direct:
    """The web client of a dataset; any number of threads may use it.

    Attributes:
        client: The client.
    """

    def __init__(self) -> None:
        self.client = WebClient()
        self._signed: dict[str, tuple[float, str]] = {}
        self._lock = Lock()
        self._signs = True
        self._has_worked = False

    def url(self, address: str, filesystem: Any, place: str) -> str | None:
        """Return the address at which the client may read a file, or None.

        Args:
            address: The dataset's address.
            filesystem: Its fsspec filesystem.
            place: The file's place there.
        """
        protocol = get_protocol(address)
        if protocol in WEB_PROTOCOLS:
            return place if _is_plain(filesystem, place) else None
        if protocol in _SIGNED_PROTOCOLS and self._signs:
            return self._signed_url(filesystem, place)
        return None

    def worked(self) -> None:
        """Record that a file was read."""
        self._has_worked = True

    def is_to_blame(self, address: str, error: OSError) -> bool:
        """Return whether fsspec may read a file that the client could not; sign none from now on.

        Args:
            address: The dataset's address.
            error: Why the request failed.
        """
        if get_protocol(address) in WEB_PROTOCOLS or isinstance(error, FileNotFoundError):
            return False
        if isinstance(error, StatusError):
            is_to_blame = error.status in _NOT_FOR_SIGNED
        else:  # such as another proxy, or another authority for certificates
            is_to_blame = not self._has_worked
        self._signs = self._signs and not is_to_blame
        return is_to_blame

    def close(self) -> None:
        """Close the client's connections."""
        self.client.close()

    def _signed_url(self, filesystem: Any, place: str) -> str | None:
        now = time.monotonic()
        with self._lock:
            signed_at, url = self._signed.get(place, (float("-inf"), ""))
        if now < signed_at + _SIGN_AGAIN_AFTER:
            return url
        try:
            url = str(filesystem.sign(place, expiration=_SIGNED_FOR))
        except Exception:  # reading by fsspec raises what is wrong
            return None
        with self._lock:
            if len(self._signed) >= _MOST_SIGNED:
                self._signed.clear()
            self._signed[place] = now, url
        return url


def _is_plain(filesystem: Any, url: str) -> bool:
    """Return whether the client would ask for a file just as fsspec does."""
    parts = urlsplit(url)
    if "@" in parts.netloc or not parts.hostname:
        return False
    if not set(filesystem.storage_options) <= _OWN_OPTIONS:  # set by fsspec's configuration
        return False
    netrc = os.environ.get("NETRC") or Path("~/.netrc").expanduser()
    if Path(netrc).exists():
        return False
    proxies = getproxies()
    is_proxied = parts.scheme in proxies or "all" in proxies
    return not is_proxied or bool(proxy_bypass(parts.hostname))
