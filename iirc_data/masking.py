"""Masking the signatures and logins of web addresses in messages."""

import re

_LOGIN = re.compile(r"\b([a-z][a-z0-9+.-]*://)[^\s/?#@'\"]+@", re.IGNORECASE)
_QUERY = re.compile(
    r"\b([a-z][a-z0-9+.-]*://[^\s?#'\"]*)\?[^\s'\"]*?(?=[:,;.)]*(?:[\s'\"]|$))", re.IGNORECASE
)


def masked(text: str) -> str:
    """Replace the query and the login of every address in a text by ``…``."""
    return _QUERY.sub(r"\1?…", _LOGIN.sub(r"\1…@", text))
