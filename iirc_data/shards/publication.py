"""The upload of a dataset to an address where others read it."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from iirc_data.errors import ShardError
from iirc_data.files import file_sha256
from iirc_data.masking import masked
from iirc_data.reading import read_regular
from iirc_data.shards.blocks import BLOCKS_NAME
from iirc_data.shards.card import CARD_MARK, Card
from iirc_data.shards.manifest import MANIFEST_NAME, TAXONOMY_NAME, Manifest, Shard, load_manifest
from iirc_data.shards.parallel import BytesDone, TotalProgress, for_each
from iirc_data.shards.remote import RemoteDataset, has_size
from iirc_data.shards.table import TABLE_NAME
from iirc_data.shards.upload import Advance, Upload
from iirc_data.shards.versions import (
    VERSIONS_FOLDER,
    rename_shards,
    version_file,
    with_names_of_its_own,
)

MARKER_NAME = "manifest.unfinished.json"
"""Present during an upload: the manifest of the dataset that is being published."""

_HINT = "give another address, or publish it as a new version with --new-version"


class Publication(Upload):
    """The upload of a dataset.

    Args:
        root: The local shard folder.
        address: Where to copy it to.
        folder: The local folder that ``address`` denotes, None if it is remote.
    """

    def __init__(self, root: Path, address: str, folder: Path | None) -> None:
        super().__init__(address, folder)
        self._root = root
        self._source = RemoteDataset.open(root)
        self._others: list[Manifest] = []

    def meets_another_version(self) -> bool:
        """Return whether another version of the dataset is at the address."""
        return self._manifest_at(MANIFEST_NAME) not in (None, self._source.manifest)

    def run(self, workers: int, progress: TotalProgress, *, new_version: bool) -> Manifest:
        """Copy the files that are not there yet."""
        self._source.read_table()  # raises if the table is damaged
        self._filesystem.invalidate_cache()
        current = self._manifest_at(MANIFEST_NAME)
        if new_version and current is not None and current != self._source.manifest:
            self._become_version_beside(current)
        if current is not None and current != self._source.manifest:
            if not new_version:
                check_same(current, self._source.manifest, self._address, _HINT)
            sizes = self._sizes_beside_others()
        else:
            sizes = self._sizes_in_place(current)
        manifest = self._source.manifest

        def bring(shard: Shard, advance: BytesDone) -> None:
            if sizes.get(shard.path) == shard.bytes:
                advance(shard.bytes)
            else:
                self._put_shard(shard, advance)

        total = sum(shard.bytes for shard in manifest.shards)
        for_each(bring, manifest.shards, workers=workers, total=total, progress=progress)
        replaces_another = current is not None and current != manifest
        if replaces_another:
            # a reader between table and manifest finds its table by its digest
            self._keep(self._source)
            sizes = {}
        if self._source.read_checksums() is not None:
            self._put_unless_there(BLOCKS_NAME, sizes)
        else:
            self._remove(BLOCKS_NAME)  # of another version
        self._put_unless_there(TABLE_NAME, sizes)
        # the manifest last, because it makes the dataset complete; directly before it the taxonomy,
        # which belongs to the version that the manifest describes
        if replaces_another and not (self._root / TAXONOMY_NAME).exists():
            self._remove(TAXONOMY_NAME)
        self.write_taxonomy()
        self._put_unless_there(MANIFEST_NAME, sizes)
        self._remove(MARKER_NAME)
        return manifest

    def _put_unless_there(self, name: str, sizes: Mapping[str, int]) -> None:
        if sizes.get(name) != (self._root / name).stat().st_size:
            self._put(self._root / name, name)

    def write_taxonomy(self) -> None:
        """Copy the dataset's taxonomy, if it has one that is not there yet."""
        path = self._root / TAXONOMY_NAME
        if path.exists():
            with self._explained(TAXONOMY_NAME):
                text = read_regular(path)
            if text != self._read(TAXONOMY_NAME):
                self._put(path, TAXONOMY_NAME)

    def write_card(self, card: Card, manifest: Manifest) -> None:
        """Write the pages that describe the dataset, unless others are there."""
        versions = [digest for digest in self._versions() if digest != manifest.digest]
        place = "ADDRESS" if self._local is not None else self._address
        for name, text in card.pages(manifest, masked(card.address or place), versions).items():
            there = self._read(name)
            if there is None or CARD_MARK.encode() in there:
                self._put_text(name, text.encode())

    def _become_version_beside(self, current: Manifest) -> None:
        """Rename shards whose names other versions use; keep the current version's description."""
        others = [current]
        for digest in self._versions():
            if digest != current.digest:
                found = self._manifest_at(version_file(digest, "json"))
                others += [] if found is None else [found]
        self._others = others
        renamed = with_names_of_its_own(self._source.manifest, others)
        rename_shards(self._root, renamed)
        self._source = RemoteDataset.open(self._root)
        if self._source.manifest != current:
            self._keep(RemoteDataset.open(self._address))

    def _keep(self, dataset: RemoteDataset) -> None:
        """Describe a version under its digest, where it stays."""
        names = [version_file(dataset.manifest.digest, ending) for ending in ("npz", "json")]
        there = [self._size(name) for name in names]
        if there[1] != len(dataset.manifest_text) or there[0] is None:
            self._put_text(names[0], dataset.read_table()[1])
            self._put_text(names[1], dataset.manifest_text)

    def _versions(self) -> list[str]:
        with self._explained(VERSIONS_FOLDER), suppress(FileNotFoundError):
            paths = self._filesystem.ls(f"{self._folder}/{VERSIONS_FOLDER}", detail=False)
            names = sorted(Path(path).name for path in paths)
            return [name.removesuffix(".json") for name in names if name.endswith(".json")]
        return []

    def _manifest_at(self, name: str) -> Manifest | None:
        """Return a manifest at the address, None if it is missing or half of ours."""
        text = self._read(name)
        if text is None or self._is_half_written(text):
            return None
        return load_manifest(text, f"{masked(self._address)}/{name}")

    def _sizes_beside_others(self) -> dict[str, int]:
        """Return path and size of the files that a new version finds in place."""
        ours = {shard.path: shard.sha256 for shard in self._source.manifest.shards}
        sizes = self._sizes()
        if self._manifest_at(MARKER_NAME) == self._source.manifest:
            return sizes
        self._put(self._root / MANIFEST_NAME, MARKER_NAME)
        theirs = [shard for other in self._others for shard in other.shards]
        same = {shard.path for shard in theirs if ours.get(shard.path) == shard.sha256}
        return {path: size for path, size in sizes.items() if path in same}

    def _sizes_in_place(self, current: Manifest | None) -> dict[str, int]:
        """Return path and size of the files that an upload of this manifest has put there."""
        there = current or self._manifest_at(MARKER_NAME)
        if there is None:
            self._put(self._root / MANIFEST_NAME, MARKER_NAME)
            return {}
        check_same(
            there, self._source.manifest, self._address, "give another address, or remove it"
        )
        return self._sizes()

    def _sizes(self) -> dict[str, int]:
        with self._explained(MANIFEST_NAME):
            found = self._filesystem.find(self._folder, detail=True)
        start = len(self._folder) + 1
        return {path[start:]: details["size"] for path, details in found.items()}

    def _is_half_written(self, text: bytes) -> bool:
        """Return whether a text is the start of this manifest, from an interrupted upload."""
        whole = self._source.manifest_text
        return len(text) < len(whole) and whole.startswith(text)

    def _put_shard(self, shard: Shard, advance: BytesDone) -> None:
        path = self._root / shard.path
        if not has_size(path, shard.bytes) or file_sha256(path) != shard.sha256:
            raise ShardError(f"{path} is missing or damaged: run iirc data verify {self._root}")
        callback = Advance(advance)
        self._put(path, shard.path, callback)
        advance(shard.bytes - callback.value)


def check_same(there: Manifest, wanted: Manifest, where: str, remedy: str) -> None:
    """Check that two datasets are the same.

    Raises:
        ShardError: They differ.
    """
    if there == wanted:
        return
    other = "another dataset"
    if there.digest == wanted.digest:
        other = "a version of this dataset whose files are named or encoded differently"
    raise ShardError(f"{masked(where)} already holds {other}: {remedy}")
