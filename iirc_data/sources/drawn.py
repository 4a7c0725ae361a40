"""A small two-level dataset of drawn images, for demonstrations without a download."""

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from iirc_data.sources.base import Sample

FAMILIES = ("polygon", "round", "star")
TEXTURES = ("dotted", "solid", "striped")
SIZE = 32
_SCALE = 4  # drawn larger, then reduced, for smooth edges


@dataclass(frozen=True)
class DrawnSource:
    """Shapes of three families in three textures: nine leaf classes, ``<texture>_<family>``.

    Position, size, angle, colours and noise vary. Image n of a class is always the same.

    Attributes:
        train: Training images per class.
        test: Test images per class.
        seed: Seed of the random numbers.
    """

    train: int = 200
    test: int = 50
    seed: int = 0
    name: str = "drawn"
    encoded_here = True

    def classes(self) -> dict[str, list[str]]:
        """Return the sorted names of the classes of each split."""
        names = [f"{texture}_{family}" for texture in TEXTURES for family in FAMILIES]
        return {"test": sorted(names), "train": sorted(names)}

    def weight(self, split: str, class_name: str) -> int:
        """Return the number of images of a class."""
        return self.train if split == "train" else self.test

    def fingerprint(self, split: str, class_name: str) -> str:
        """Return the settings, on which the drawings depend."""
        return str(self)

    def samples(self, split: str, class_name: str) -> Iterator[Sample]:
        """Yield the images of one class, encoded as PNG."""
        texture, family = class_name.split("_")
        for number in range(self.weight(split, class_name)):
            stream = [self.seed, split == "train", TEXTURES.index(texture), FAMILIES.index(family)]
            image = draw(family, texture, np.random.default_rng([*map(int, stream), number]))
            file = io.BytesIO()
            image.save(file, format="PNG")
            key = f"{number:04d}"
            yield Sample(key, "png", file.getvalue(), f"drawn {split}/{class_name}/{key}")


def draw(family: str, texture: str, random: np.random.Generator) -> Image.Image:
    """Draw one shape.

    Args:
        family: One of :data:`FAMILIES`.
        texture: One of :data:`TEXTURES`.
        random: Generator of everything that varies.

    Returns:
        RGB, 32 x 32 pixels.
    """
    side = SIZE * _SCALE
    background, first, second = _colours(random)
    mask = Image.new("L", (side, side))
    ImageDraw.Draw(mask).polygon(_outline(family, side, random), fill=255)
    image = Image.new("RGB", (side, side), background)
    image.paste(_textured(texture, side, first, second, random), mask=mask)
    pixels = np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BOX), np.float64)
    noisy = pixels + random.normal(0, 8, pixels.shape)
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def _colours(random: np.random.Generator) -> list[tuple[int, int, int]]:
    """Draw three colours that differ in brightness."""
    levels = random.permutation([50, 125, 200])
    return [tuple(int(c) for c in level + random.integers(-35, 36, 3)) for level in levels]  # type: ignore[misc]


def _outline(family: str, side: int, random: np.random.Generator) -> list[tuple[float, float]]:
    centre = side / 2 + random.uniform(-0.05, 0.05, 2) * side
    radius = random.uniform(0.36, 0.46) * side
    angle = random.uniform(0, 2 * math.pi)
    stretch = random.uniform(0.85, 1.0)
    corners = int(random.integers(3, 6))
    if family == "round":
        radii = [radius] * 48
    elif family == "polygon":
        radii = [radius] * corners
    else:
        radii = [radius, radius * 0.42] * (corners + 1)
    points = []
    for number, r in enumerate(radii):
        turn = 2 * math.pi * number / len(radii)
        x, y = r * math.cos(turn), stretch * r * math.sin(turn)
        points.append(
            (
                centre[0] + x * math.cos(angle) - y * math.sin(angle),
                centre[1] + x * math.sin(angle) + y * math.cos(angle),
            )
        )
    return points


def _textured(
    texture: str,
    side: int,
    first: tuple[int, int, int],
    second: tuple[int, int, int],
    random: np.random.Generator,
) -> Image.Image:
    angle, phase = random.uniform(0, math.pi, 2)
    period = random.uniform(0.15, 0.2) * side
    y, x = np.mgrid[:side, :side]
    along = 2 * math.pi * (x * math.cos(angle) + y * math.sin(angle)) / period + phase
    across = 2 * math.pi * (y * math.cos(angle) - x * math.sin(angle)) / period + phase
    if texture == "striped":
        on = np.sin(along) > 0
    elif texture == "dotted":
        on = np.sin(along) * np.sin(across) > 0.2
    else:
        on = np.zeros((side, side), dtype=bool)
    return Image.fromarray(np.where(on[..., None], second, first).astype(np.uint8))
