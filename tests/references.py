"""Recordings of reference implementations, and replaying them through the methods here.

``python -m tests.references`` prints the table of docs/verified.md.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

FOLDER = Path(__file__).parent / "golden" / "references"


def load(name: str) -> dict[str, Any]:
    """Return a recording: plain values and tensors, as the README beside the files describes."""
    with np.load(FOLDER / f"{name}.npz") as arrays:
        tree, values = json.loads(arrays["meta"].tobytes()), torch.from_numpy(arrays["values"])

    def filled(node: Any) -> Any:
        if isinstance(node, list):
            return [filled(value) for value in node]
        if not isinstance(node, dict):
            return node
        if list(node) == ["tensor"]:
            offset, *shape = node["tensor"]
            n = int(np.prod(shape))
            return values[offset : offset + n].view(shape).clone()
        return {key: filled(value) for key, value in node.items()}

    found: dict[str, Any] = filled(tree)
    return found
