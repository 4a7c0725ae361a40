"""Figures as files for papers, and as SVG that takes a page's colours."""

import io
import re
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from iirc_data.files import write_atomically

FORMATS = ("png", "svg")

_SETTINGS = {
    "svg.hashsalt": "iirc",  # the same figure is the same file
    "text.parse_math": False,  # a class may be called "$5"
}
_NO_METADATA = {"svg": {"Date": None, "Creator": None, "Format": None, "Type": None}}


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure; the path's suffix chooses the format (png, svg, pdf)."""
    kind = path.suffix.removeprefix(".")
    with write_atomically(path) as file:
        file.write(_rendered(figure, kind))


def inline_svg(figure: Figure, name: str) -> str:
    """Return a figure as an SVG element to stand in a page.

    Its text is text, and what is black in the figure takes the colour of the page's text.

    Args:
        figure: The figure.
        name: Tells it from the page's other figures: their parts must not share an id.
    """
    settings = {"svg.hashsalt": name, "svg.fonttype": "none"}
    text = _rendered(figure, "svg", settings, transparent=True).decode()
    element = text[text.index("<svg") :]
    element = element.replace("#000000", "currentColor")
    element = re.sub(r'<g id="[^"]*">', "<g>", element)  # nothing refers to groups
    return re.sub(r'<text style="[^"]*"', _without_font, element)


def _without_font(tag: re.Match[str]) -> str:
    return re.sub(r"font-family: [^;\"]*;? ?", "", tag.group())


def _rendered(
    figure: Figure, kind: str, settings: dict[str, str] | None = None, *, transparent: bool = False
) -> bytes:
    file = io.BytesIO()
    with mpl.rc_context(_SETTINGS | (settings or {})):
        figure.savefig(
            file, format=kind, dpi=200, transparent=transparent, metadata=_NO_METADATA.get(kind)
        )
    return file.getvalue()
