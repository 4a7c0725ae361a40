"""The identity of cached features: network, weights, image preset and dataset."""

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from iirc_data.augment import ImagePreset
from iirc_data.files import canonical_json

FORMAT = "iirc-features"
VERSION = 1

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class FeatureKey(BaseModel):
    """What the features of a dataset are a function of.

    Attributes:
        network: Name of the network.
        weights: SHA-256 of the weights of its trunk.
        image_preset: The part of the image preset that evaluation uses; see :func:`shown_by`.
        dataset: Name of the dataset; not part of the digest.
        dataset_digest: Digest of the dataset.
        definition: SHA-256 of the code of a user's own network.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: str
    weights: Sha256
    image_preset: Mapping[str, Any]
    dataset: str
    dataset_digest: Sha256
    definition: Sha256 | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of the key; the name of the folder that caches the features."""
        named = {name: value for name, value in self.values().items() if name != "dataset"}
        return hashlib.sha256(canonical_json([FORMAT, VERSION, named])).hexdigest()

    def values(self) -> dict[str, Any]:
        """Return the fields by name, as plain values; ``definition`` only if there is one."""
        return self.model_dump(exclude={"definition"} if self.definition is None else set())


def shown_by(preset: ImagePreset) -> dict[str, Any]:
    """Return what an image preset says of images that are not augmented, as plain values."""
    return preset.model_dump(mode="json", exclude={"train"})
