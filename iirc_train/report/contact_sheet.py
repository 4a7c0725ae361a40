"""Contact sheets: images with their labels; replayed images have a frame."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from iirc_train.report.plots import COLOURS, plain

REPLAYED_COLOUR = COLOURS[1]
MAX_COLUMNS = 8
CHARACTERS_PER_LINE = 19
CHARACTERS_OF_TITLE = 85

# inches
CELL = 1.25
GAP = 0.12
LINE = 0.14
HEAD = 0.62


@dataclass(frozen=True)
class ShownImage:
    """An image as the network sees it.

    Attributes:
        pixels: uint8 (H, W, 3).
        labels: Names of its visible labels.
        is_replayed: Whether it comes from the replay buffer.
    """

    pixels: NDArray[np.uint8]
    labels: tuple[str, ...]
    is_replayed: bool


def contact_sheet(images: Sequence[ShownImage], title: str, subtitle: str) -> Figure:
    """Draw images in rows, with labels below them and a frame around replayed images.

    Args:
        images: At least one image.
        title: Title; shortened to one line.
        subtitle: A second line.
    """
    captions = [_caption(image.labels) for image in images]
    n_columns = min(len(images), MAX_COLUMNS)
    n_rows = ceil(len(images) / n_columns)
    cell_height = CELL + LINE * max(caption.count("\n") + 1 for caption in captions) + GAP
    width = MAX_COLUMNS * (CELL + GAP) + GAP
    height = HEAD + n_rows * cell_height
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    title = textwrap.shorten(title, CHARACTERS_OF_TITLE, placeholder=" …")
    axes.text(GAP, 0.2, plain(title), fontsize=11, fontweight="bold", va="center")
    axes.text(GAP, 0.44, plain(subtitle), fontsize=8.5, va="center")
    for number, (image, caption) in enumerate(zip(images, captions, strict=True)):
        row, column = divmod(number, n_columns)
        left, top = GAP + column * (CELL + GAP), HEAD + row * cell_height
        axes.imshow(image.pixels, extent=(left, left + CELL, top + CELL, top))
        if image.is_replayed:
            _frame(axes, left, top, CELL)
        axes.text(left + CELL / 2, top + CELL + 0.05, caption, fontsize=7, ha="center", va="top")
    if any(image.is_replayed for image in images):
        _frame(axes, width - 1.64, 0.13, 0.14)
        axes.text(width - GAP, 0.2, "from the replay buffer", fontsize=8.5, ha="right", va="center")
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="auto")  # imshow changed the limits
    return figure


def _frame(axes: Axes, left: float, top: float, size: float) -> None:
    frame = Rectangle((left, top), size, size, fill=False, edgecolor=REPLAYED_COLOUR, linewidth=3)
    axes.add_patch(frame)


def _caption(labels: Sequence[str]) -> str:
    """Return the labels one below the other; long ones take several lines."""
    return "\n".join(plain(textwrap.fill(label, CHARACTERS_PER_LINE)) for label in labels)
