"""The manifest: the content of a shard folder, with digests that identify the data."""

import hashlib
import re
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)

from iirc_data.errors import ShardError
from iirc_data.files import canonical_json, write_json

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
TAXONOMY_NAME = "taxonomy.json"
"""The taxonomy of a dataset, beside its manifest, if it has one."""

_NOT_DIGESTED = {"dataset", "digest", "blocks_sha256"}

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=1, le=1 << 48)]
"""A count; the sum over some thousands of shards still fits int64."""


_PLAIN_TAR = re.compile(r"(?:[^/\\:.][^/\\:]*/)*[^/\\:.][^/\\:]*\.tar")
"""The paths that are certainly valid; a dataset may have tens of thousands, so this is fast."""


def _printable(name: str) -> str:
    if not name.isprintable():
        raise ValueError(f"{name!r} contains control characters")
    return name


Name = Annotated[str, AfterValidator(_printable)]
"""A name that is safe to print, because it has no control characters."""


@lru_cache
def _same_set(names: frozenset[str]) -> set[str]:
    return set(names)


class Shard(BaseModel):
    """One tar of images of one class.

    Attributes:
        path: Path relative to the shard folder, with forward slashes.
        class_name: The leaf class (``"class"`` in JSON).
        samples: Number of images.
        bytes: Size of the tar.
        sha256: Digest of the tar.
        pixels_sha256: Digest of the decoded images if this program encoded them, see
            :mod:`iirc_data.shards.pixel_digest`; None if their bytes were copied.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    path: Name
    class_name: Name = Field(alias="class")
    samples: Count
    bytes: Count
    sha256: Sha256
    pixels_sha256: Sha256 | None = None

    @field_validator("path")
    @classmethod
    def _stays_inside(cls, path: str) -> str:
        if _PLAIN_TAR.fullmatch(path):
            return path
        is_plain = str(PurePosixPath(path)) == path  # no "//", no "./"
        if not is_plain or path.startswith(("/", ".")) or "/." in path or set(path) & set("\\:"):
            raise ValueError(f"{path!r} leads out of the shard folder, or is hidden in it")
        if not path.endswith(".tar"):
            raise ValueError(f"{path!r} does not end in .tar")
        return path

    def model_post_init(self, context: Any) -> None:
        """Share the set of the given fields: one per shard takes a third of the memory."""
        shared = _same_set(frozenset(self.model_fields_set))
        object.__setattr__(self, "__pydantic_fields_set__", shared)


class Manifest(BaseModel):
    """The content of ``manifest.json``.

    Attributes:
        schema_version: Version of this format; 1.
        dataset: Name of the dataset; not part of the digest.
        image_formats: Extensions of the images, sorted.
        classes: Leaf classes, sorted; a sample table's ``class_id`` indexes this list.
        splits: For each split its shards, in the order of the sample table.
        table_sha256: Digest of the sample table's columns.
        digest: Digest of all fields above except the name. Two labs with the same digest have
            the same data. If this program encoded the images, the digest covers their pixels
            instead of their bytes, because codecs differ between versions.
        blocks_sha256: Digest of ``blocks.npz``; None if the manifest does not pin that file. Not
            part of the digest. Earlier releases refuse manifests that have it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    dataset: Name
    image_formats: list[Name]
    classes: list[Name]
    splits: dict[Name, list[Shard]]
    table_sha256: Sha256
    digest: Sha256 | Literal[""] = ""
    blocks_sha256: Sha256 | None = None

    @cached_property
    def shards(self) -> list[Shard]:
        """All shards, split after split; a sample table's ``shard`` indexes this list."""
        return [shard for shards in self.splits.values() for shard in shards]

    def split_rows(self, split: str) -> range:
        """Return the sample ids of one split.

        Raises:
            ShardError: The dataset has no such split.
        """
        first = 0
        for name, shards in self.splits.items():
            rows = range(first, first + sum(shard.samples for shard in shards))
            if name == split:
                return rows
            first = rows.stop
        raise ShardError(
            f"dataset {self.dataset!r} has no split {split!r}, only {list(self.splits)}"
        )

    def compute_digest(self) -> str:
        """Return the digest that identifies this data."""
        content = self.model_dump(by_alias=True, exclude=_NOT_DIGESTED, exclude_none=True)
        encoded = [
            shard
            for shards in content["splits"].values()
            for shard in shards
            if "pixels_sha256" in shard
        ]
        for shard in encoded:
            del shard["bytes"], shard["sha256"]
        if encoded:  # the table contains sizes and offsets
            del content["table_sha256"]
        return hashlib.sha256(canonical_json(content)).hexdigest()

    def save(self, root: Path) -> None:
        """Write ``manifest.json`` into a shard folder, atomically."""
        write_json(root / MANIFEST_NAME, self.model_dump(by_alias=True, exclude_none=True))


def load_manifest(text: bytes | str, where: str) -> Manifest:
    """Parse and check a manifest.

    Args:
        text: Content of a ``manifest.json``.
        where: Name of the file in error messages.

    Returns:
        The manifest.

    Raises:
        ShardError: The text is not a manifest, has a newer schema, or does not match its digest.
    """
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "manifest"
        if field == "schema_version":
            raise ShardError(
                f"{where} has schema_version {first['input']!r}, this release reads "
                f"{SCHEMA_VERSION}: upgrade iirc-pipeline"
            ) from error
        raise ShardError(f"{where} is not a valid manifest: {field}: {first['msg']}") from error
    if manifest.digest != manifest.compute_digest():
        raise ShardError(f"{where} was altered: its content does not match its digest")
    return manifest
