"""What to say about a path that should be a shard folder and has no manifest."""

from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from shlex import quote

from iirc_data.errors import ShardError
from iirc_data.shards.manifest import MANIFEST_NAME
from iirc_data.shards.unfinished import is_begun
from iirc_data.sources.base import IMAGE_EXTENSIONS

_MOST_FILES = 100


def no_dataset(root: Path) -> ShardError:
    """Return the error for a local path without a manifest: what is there, and what to do."""
    if root.is_file():
        return ShardError(f"{root} is a file, not a shard folder: to make one, use iirc data shard")
    if not root.exists():
        known = [path.name for path in root.parent.glob("*") if (path / MANIFEST_NAME).is_file()]
        near = get_close_matches(root.name, known, 1)
        return ShardError(
            f"{root} does not exist: "
            + (f"did you mean {root.parent / near[0]}?" if near else "give a shard folder or a URL")
        )
    if is_begun(root):
        return ShardError(
            f"{root} is not a finished shard folder (it has no {MANIFEST_NAME}): to finish writing "
            "or pulling it, run the same command again"
        )
    if _holds_images(root):
        return ShardError(
            f"{root} holds images, not shards: make shards of them with: iirc data shard folder "
            f"{quote(str(root))} SHARDS"
        )
    below = next((path.parent for path in root.glob(f"*/{MANIFEST_NAME}")), None)
    return ShardError(
        f"{root} is not a shard folder (it has no {MANIFEST_NAME}): "
        + (f"did you mean {below}?" if below else "to make one, use iirc data shard")
    )


def _holds_images(root: Path) -> bool:
    """Return whether a folder looks like ``split/class/*`` with images."""
    files = islice(root.glob("*/*/*"), _MOST_FILES)
    return any(path.suffix.lower().removeprefix(".") in IMAGE_EXTENSIONS for path in files)
