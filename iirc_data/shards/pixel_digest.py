"""The digest of decoded pixels; it identifies images whose encoding may differ by codec."""

import hashlib
from pathlib import Path

from PIL import Image

from iirc_data.errors import ShardError, SourceError
from iirc_data.files import canonical_json
from iirc_data.shards.manifest import Shard
from iirc_data.sources.images import decode_rgb
from iirc_data.sources.tar import list_members, read_images


class PixelDigest:
    """SHA-256 over the names, sizes and RGB pixels of a shard's images, in order."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, member_name: str, image: Image.Image) -> None:
        """Add the next image.

        Args:
            member_name: Its name in the tar.
            image: The decoded image, RGB.
        """
        self._digest.update(canonical_json([member_name, image.width, image.height]))
        self._digest.update(image.tobytes())

    def hexdigest(self) -> str:
        """Return the digest so far, as 64 hexadecimal digits."""
        return self._digest.hexdigest()


def shard_pixels_sha256(path: Path) -> str:
    """Decode all images of a shard and return the digest of their pixels.

    Raises:
        SourceError: The shard or an image is damaged.
    """
    digest = PixelDigest()
    members = list_members(path)
    for member, sample in zip(members, read_images(path, members), strict=True):
        digest.add(member.name, decode_rgb(sample))
    return digest.hexdigest()


def check_pixels(path: Path, shard: Shard) -> None:
    """Check that a shard has the pixels that its dataset's digest covers.

    If this program encoded the images, the digest of the dataset covers their pixels, not their
    bytes. The digest of the bytes alone would not reveal that the manifest was replaced too.

    Args:
        path: Path of the shard, or of a copy.
        shard: The shard's entry in the manifest.

    Raises:
        ShardError: The pixels differ, or an image cannot be decoded.
    """
    if shard.pixels_sha256 is None:
        return
    try:
        found = shard_pixels_sha256(path)
    except SourceError as error:
        raise ShardError(f"contains a non-image member: {error}") from error
    if found != shard.pixels_sha256:
        raise ShardError(
            "does not match the pixel digest in the manifest: it was altered, or this machine's "
            "decoder gives other pixels"
        )
