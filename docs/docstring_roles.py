"""Docstrings refer to each other by Sphinx's roles, which editors know; here they become links."""

import re
from contextlib import suppress

import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc):`(~?)([\w.]+)`")
_LITERAL_BLOCK = re.compile(r"::$", re.MULTILINE)


class DocstringRoles(griffe.Extension):
    """Rewrites ``:class:`~a.b.C``` as a link to ``C``, and ``::`` before a code block as ``:``."""

    def on_object(self, *, obj: griffe.Object, **kwargs: object) -> None:
        """Rewrite an object's docstring."""
        if obj.docstring is not None:
            text = _ROLE.sub(lambda role: _link(role, obj), obj.docstring.value)
            obj.docstring.value = _LITERAL_BLOCK.sub(":", text)


def _link(role: re.Match[str], obj: griffe.Object) -> str:
    """Return a link that is plain text where the reference has no page for its target."""
    short, target = role.groups()
    text = target.rpartition(".")[2] if short else target
    with suppress(griffe.NameResolutionError):  # raised where it is written in full already
        target = obj.resolve(target)
    return f'<autoref identifier="{target}" optional><code>{text}</code></autoref>'
