"""Writes figures to files, and converts them to inline SVG for a page."""

import html
import io
import re
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from iirc_data.files import write_atomically

_NO_METADATA = {"svg": {"Date": None, "Creator": None, "Format": None, "Type": None}}


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure; the path's suffix chooses the format (png, svg, pdf)."""
    kind = path.suffix.removeprefix(".")
    with write_atomically(path, durable=False) as file, mpl.rc_context({"svg.hashsalt": "iirc"}):
        figure.savefig(file, format=kind, dpi=200, metadata=_NO_METADATA.get(kind))


def inline_svg(figure: Figure, name: str, description: str) -> str:
    """Return a figure as an SVG element for an HTML page.

    Text stays text, and black parts take the colour of the page's text.

    Args:
        figure: The figure.
        name: Unique name in the page; ids of SVG elements derive from it.
        description: Text for screen readers.
    """
    file = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(file, format="svg", dpi=200, transparent=True, metadata=_NO_METADATA["svg"])
    text = file.getvalue().decode()
    element = text[text.index("<svg") :].replace("#000000", "currentColor")
    element = re.sub(r'<g id="[^"]*">', "<g>", element)  # nothing refers to groups
    element = re.sub(r'<text style="[^"]*"', _without_font, element)
    return element.replace("<svg", f'<svg role="img" aria-label="{html.escape(description)}"', 1)


def _without_font(tag: re.Match[str]) -> str:
    return re.sub(r"font-family: [^;\"]*;? ?", "", tag.group())
