"""How the reference reads docstrings: Sphinx's roles become links, settings tell what they are."""

import ast
import copy
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


class FieldDescriptions(griffe.Extension):
    """Takes ``Annotated[type, Field(description=…)]`` for a type and a docstring."""

    def on_attribute_instance(
        self, *, node: ast.AST, attr: griffe.Attribute, **kwargs: object
    ) -> None:
        """Show the plain type of an attribute, and the description that its annotation holds."""
        if not isinstance(node, ast.AnnAssign) or "Annotated" not in ast.dump(node.annotation):
            return
        for part in ast.walk(node.annotation):
            if isinstance(part, ast.keyword) and part.arg == "description":
                text = f"{ast.literal_eval(part.value)}."
                attr.docstring = griffe.Docstring(text, parent=attr)
        plain = _WithoutAnnotated().visit(copy.deepcopy(node.annotation))
        attr.annotation = ast.unparse(plain)


class _WithoutAnnotated(ast.NodeTransformer):
    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        self.generic_visit(node)
        match node:
            case ast.Subscript(value=ast.Name("Annotated"), slice=ast.Tuple([kind, *_])):
                return kind
        return node


def _link(role: re.Match[str], obj: griffe.Object) -> str:
    """Return a link that is plain text where the reference has no page for its target."""
    short, target = role.groups()
    text = target.rpartition(".")[2] if short else target
    with suppress(griffe.NameResolutionError):  # raised where it is written in full already
        target = obj.resolve(target)
    return f'<autoref identifier="{target}" optional><code>{text}</code></autoref>'
