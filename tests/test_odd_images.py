"""Every odd image that sharding accepts trains with the same pixels, whatever decodes it.

The cases are those of :mod:`tests.odd_cases`, in both splits and in the replay buffer, at random
places in batches, decoded by every decoder and compared with Pillow.
"""

import io
import warnings
from functools import cache
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from iirc_data.augment import RandomCropFlip, RandomResizedCropFlip, TransformPreset, Unchanged
from iirc_data.definitions import TEST, TRAIN
from iirc_data.errors import LoaderError, SourceError
from iirc_data.loader import make_decoder, make_loader
from iirc_data.loader.decoder import read_plain
from iirc_data.shards import ShardStore, write_shards
from iirc_data.shards.class_writer import WriteSettings, write_class
from iirc_data.sources import open_folder
from iirc_data.sources.images import read_header
from tests.conftest import encode, noise_image
from tests.made_images import join_png, split_png
from tests.odd_cases import HEIGHT, WIDTH, odd_cases
from tests.odd_images import pixels_to_show
from tests.test_loader import DECODERS, everything, needs_dali

pytestmark = pytest.mark.filterwarnings(
    "ignore:Palette images with Transparency", "ignore:Image appears to be a malformed MPO"
)
decoders = pytest.mark.parametrize("decoder", DECODERS)


def preset(transform):
    return TransformPreset(transform, transform, (0.0,) * 3, (1.0,) * 3)


TRANSFORMS = {
    "unchanged": preset(Unchanged()),
    "cropped": preset(RandomCropFlip(size=24, padding=3)),
    "resized": preset(RandomResizedCropFlip(size=20)),
}


def pillow(data: bytes) -> np.ndarray | None:
    """An image's pixels, or None where it is damaged."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
            return pixels_to_show(image)
    except Exception:  # Pillow raises many types
        return None


@cache
def sorted_cases() -> dict[str, dict[str, bytes]]:
    """The cases by what becomes of them: refused, damaged (only decoding shows it), trained on."""
    kinds: dict[str, dict[str, bytes]] = {"refused": {}, "damaged": {}, "trained on": {}}
    for name, data in odd_cases().items():
        try:
            header = read_header(data, name)
        except SourceError:
            kinds["refused"][name] = data
            continue
        shown = pillow(data)
        assert (header.height, header.width) == (HEIGHT, WIDTH), name
        kinds["damaged" if shown is None else "trained on"][name] = data
    return kinds


def file_name(number: int, name: str) -> str:
    """Every second one has an extension that may be wrong."""
    extension = "png" if number % 2 or name.startswith("png") else "jpg"
    return f"{number:04d} {name.replace('.', '_').replace('/', '_')}.{extension}"


def write_files(folder: Path, cases: dict[str, bytes]) -> None:
    folder.mkdir(parents=True)
    for number, (name, data) in enumerate(cases.items()):
        (folder / file_name(number, name)).write_bytes(data)


def test_there_are_hundreds_of_odd_cases_of_each_fate():
    counts = {kind: len(cases) for kind, cases in sorted_cases().items()}
    assert sum(counts.values()) * len(DECODERS) >= 200
    assert counts["trained on"] >= 200
    assert min(counts.values()) >= 50, counts


def test_what_is_no_image_is_refused_by_its_name(tmp_path):
    for number, (name, data) in enumerate(sorted_cases()["refused"].items()):
        root = tmp_path / str(number)
        write_files(root / "train" / "odd", {"fine": encode(noise_image(0)), name: data})
        with pytest.raises(SourceError) as caught:
            (tmp_path / f"{number} out" / "train").mkdir(parents=True)
            out = tmp_path / f"{number} out"
            write_class(open_folder(root), out, "train", "odd", WriteSettings())
        assert file_name(1, name) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert not list(out.glob("train/*"))


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> ShardStore:
    """All cases that are trained on: in training, and in reverse order in the test split."""
    root = tmp_path_factory.mktemp("odd")
    cases = sorted_cases()["trained on"]
    write_files(root / "images" / TRAIN / "odd", cases)
    write_files(root / "images" / TEST / "odd", dict(reversed(cases.items())))
    write_shards(open_folder(root / "images"), root / "shards", check_decode=True)
    return ShardStore.open(root / "shards")


class AllAsMemories:
    """Every image of a store as a memory, byte for byte as it was sharded."""

    def __init__(self, store: ShardStore) -> None:
        self.store = store
        self.labels = np.tile(np.array([0, -1], np.int32), (len(store), 1))
        self.heights, self.widths = store.table.height, store.table.width

    def __len__(self) -> int:
        return len(self.store)

    def read(self, slot: int) -> np.ndarray:
        return self.store.read(slot)

    def name(self, slot: int) -> str:
        return f"memory {self.store.name(slot)}"


def shown(store, decoder, transform, *, memories=False, batch_size=23):
    """Sample ids and images of an epoch, shuffled."""
    view = everything(store)
    options = {"transforms": TRANSFORMS[transform], "normalize": False, "resident": False}
    loader = make_loader(
        view.subset([]) if memories else view,
        store,
        AllAsMemories(store) if memories else None,
        train=True,
        seed=4,
        batch_size=batch_size,
        decoder=decoder,
        **options,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        batches = list(loader)
    ids = torch.cat([batch.sample_ids for batch in batches])
    images = torch.cat([batch.images for batch in batches]).permute(0, 2, 3, 1)
    refusals = [str(w.message) for w in caught if "DALI refuses" in str(w.message)]
    return (-1 - ids if memories else ids).tolist(), images.numpy(), refusals


def different(store, ids, images, expected) -> list[str]:
    return [
        f"{store.name(sample_id)}: by up to {np.abs(image.astype(int) - other).max()}"
        for sample_id, image, other in zip(ids, images, expected, strict=True)
        if not np.array_equal(image, other)
    ]


@decoders
@pytest.mark.parametrize("memories", [False, True], ids=["view", "memories"])
def test_images_show_the_pixels_of_pillow(store, decoder, memories):
    ids, images, refusals = shown(store, decoder, "unchanged", memories=memories)
    assert sorted(ids) == list(range(len(store)))
    expected = [pillow(store.read(sample_id).tobytes()) for sample_id in ids]
    assert different(store, ids, images, expected) == []
    names = [refusal.split(" is not a sound image")[0] for refusal in refusals]
    assert len(set(names)) == len(names)
    name = AllAsMemories(store).name if memories else store.name
    assert set(names) <= {name(sample_id) for sample_id in ids}
    if decoder == "dali":
        assert any("wrong sum of its pixels" in name for name in names)


@needs_dali
@pytest.mark.parametrize("transform", ["cropped", "resized"])
def test_augmented_images_are_the_same_whatever_decodes_them(store, transform):
    ids, images, _ = shown(store, "dali", transform, batch_size=32)
    same_ids, expected, _ = shown(store, "pillow", transform, batch_size=32)
    assert ids == same_ids
    assert different(store, ids, images, expected) == []


def test_what_the_buffer_keeps_is_shown_alike(store):
    for sample_id in range(len(store) // 2):
        kept = read_plain(store, sample_id)
        expected = pillow(store.read(sample_id).tobytes())
        assert np.array_equal(pillow(kept.tobytes()), expected), store.name(sample_id)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory) -> ShardStore:
    """A sound image, those that turn out damaged when they are decoded, and a sound one."""
    root = tmp_path_factory.mktemp("damaged")
    sound = encode(noise_image(1, HEIGHT, WIDTH))
    cases = {"first": sound, **sorted_cases()["damaged"], "last": sound}
    write_files(root / "images" / TRAIN / "odd", cases)
    write_shards(open_folder(root / "images"), root / "shards")
    return ShardStore.open(root / "shards")


def test_damaged_images_are_found_by_decoding_when_sharding(tmp_path, damaged):
    cases = list(sorted_cases()["damaged"].items())
    for number, (name, data) in enumerate(cases):
        folder = tmp_path / str(number) / "train" / "odd"
        write_files(folder, {name: data})
        (tmp_path / f"{number} out" / "train").mkdir(parents=True)
        settings = WriteSettings(check_decode=True)
        with pytest.raises(SourceError, match="damaged") as caught:
            write_class(
                open_folder(folder.parents[1]), tmp_path / f"{number} out", "train", "odd", settings
            )
        assert file_name(0, name) in str(caught.value)


@decoders
@pytest.mark.parametrize("transform", ["unchanged", "resized"])
def test_a_damaged_image_is_named_whatever_decodes_it(damaged, decoder, transform):
    decoder = make_decoder(decoder, threads=1)
    view = everything(damaged)
    last = len(view) - 1
    options = {"transforms": TRANSFORMS[transform], "train": True, "shuffle": False}
    for sample_id in range(1, last):
        places = [sample_id, 0, last] if sample_id % 2 else [0, last, sample_id]
        loader = make_loader(
            view.subset(places), damaged, decoder=decoder, resident=False, **options
        )
        with pytest.raises(LoaderError) as caught:
            list(loader)
        assert damaged.name(sample_id) in str(caught.value)
    fine = make_loader(view.subset([0, last]), damaged, decoder=decoder, **options)
    assert sum(len(batch) for batch in fine) == 2


# --- images that DALI refuses in mid-run ------------------------------------------------------


def refused_by_dali(seed: int, height: int = HEIGHT) -> bytes:
    """A PNG of which only decoding shows that DALI refuses it."""
    head, image, end = split_png(encode(noise_image(seed, height, WIDTH), "PNG"))
    return join_png(head, image[:-1] + bytes([image[-1] ^ 1]), end)


@pytest.fixture
def half_refused(tmp_path) -> ShardStore:
    """Images 0, 3, 4, 11, 12, 14 and 19 of 20 are refused by DALI."""
    files = {
        str(n): refused_by_dali(n)
        if n in (0, 3, 4, 11, 12, 14, 19)
        else encode(noise_image(n, 31, 33))
        for n in range(20)
    }
    write_files(tmp_path / "images" / TRAIN / "a", files)
    write_shards(open_folder(tmp_path / "images"), tmp_path / "shards")
    return ShardStore.open(tmp_path / "shards")


@needs_dali
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_dali_goes_on_after_images_that_it_refuses(half_refused, transform):
    """At the start and end of batches, in adjacent batches, and next to another iterator."""
    decoder = make_decoder("dali", threads=2)

    def loader(decoder, view=everything(half_refused), batch_size=4):  # noqa: B008
        return make_loader(
            view,
            half_refused,
            transforms=TRANSFORMS[transform],
            train=True,
            shuffle=False,
            batch_size=batch_size,
            resident=False,
            decoder=decoder,
        )

    expected = [batch.images for batch in loader("pillow")]
    sound = [1, 2, 5, 6, 7, 8, 9, 10]
    fine = loader(decoder, view=everything(half_refused).subset(sound), batch_size=1)
    alone = [batch.images for batch in fine]
    beside = iter(fine)
    shown = [next(beside).images]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            for batch, images in zip(loader(decoder), expected, strict=True):
                assert torch.equal(batch.images, images)
                shown += [other.images for other in islice(beside, 1)]
    assert all(map(torch.equal, shown, alone)) and len(shown) == len(alone)
    warned = [str(warning.message) for warning in caught]
    assert len(warned) == len(set(warned)) == 7
    assert all(sum(name in text for text in warned) == 1 for name in ("0000 0.jpg", "0019 19.png"))


@needs_dali
def test_where_neither_decodes_the_culprit_is_named(tmp_path):
    """Even if DALI refused another image of the same batch."""
    whole = refused_by_dali(2)
    head, image, end = split_png(whole)
    lost = bytearray(image)
    lost[len(lost) // 2] ^= 0xFF
    files = {"a": refused_by_dali(1), "b": encode(noise_image(1, 31, 33)), "c": whole}
    files["d"] = join_png(head, bytes(lost), end)
    write_files(tmp_path / "images" / TRAIN / "a", files)
    write_shards(open_folder(tmp_path / "images"), tmp_path / "shards")
    store = ShardStore.open(tmp_path / "shards")
    options = {"transforms": TRANSFORMS["unchanged"], "train": False, "decoder": "dali"}
    with pytest.raises(LoaderError, match=r"cannot decode .*:0003 d\.png: .*damaged"):
        list(make_loader(everything(store), store, resident=False, **options))


@needs_dali
def test_a_failure_that_is_no_images_fault_is_dalis_own(half_refused, monkeypatch):
    from iirc_data.loader.dali_pipeline import DaliError, DaliPipeline

    def outputs(self):
        raise DaliError("out of memory")

    decoder = make_decoder("dali", threads=1)
    view = everything(half_refused).subset([1, 2])
    options = {"transforms": TRANSFORMS["unchanged"], "train": False, "decoder": decoder}
    monkeypatch.setattr(
        "iirc_data.loader.dali.SingleDecoder.decode", lambda self, request: torch.zeros(1)
    )
    list(make_loader(view, half_refused, resident=False, **options))
    monkeypatch.setattr(DaliPipeline, "outputs", outputs)
    with pytest.raises(LoaderError, match=r"DALI failed on a batch from .*: out of memory"):
        list(make_loader(view, half_refused, resident=False, **options))


# --- --check-decode ---------------------------------------------------------------------------


def checked(folder: Path, files: dict[str, bytes]) -> list[str]:
    """Keys of the files that pass."""
    from iirc_data.loader.checked_source import CheckedSource

    write_files(folder / TRAIN / "a", files)
    return [sample.key for sample in CheckedSource(open_folder(folder)).samples(TRAIN, "a")]


@needs_dali
def test_checking_names_images_that_dali_refuses_and_lets_them_pass(tmp_path):
    jpeg = encode(noise_image(1, 31, 33))
    files = {"fine": jpeg, "stray": jpeg[:20] + b"he" + jpeg[20:], "sum": refused_by_dali(1)}
    with pytest.warns(UserWarning, match="DALI refuses") as caught:
        assert len(checked(tmp_path, files)) == 3
    assert [str(w.message).split(" is not")[0].split("/")[-1] for w in caught] == [
        "0001 stray.png",
        "0002 sum.jpg",
    ]


def test_checking_refuses_what_pillow_cannot_decode(tmp_path):
    whole = encode(noise_image(1, 31, 33))
    with pytest.raises(SourceError, match=r"0001 cut\.png is damaged and cannot be decoded"):
        checked(tmp_path, {"fine": whole, "cut": whole[:-80]})


@needs_dali
def test_checking_refuses_what_decoders_show_differently(tmp_path, monkeypatch):
    def decode(self, request):
        return torch.from_numpy(pillow(request.encoded[0].tobytes()).copy()) ^ 4

    monkeypatch.setattr("iirc_data.loader.dali.SingleDecoder.decode", decode)
    with pytest.raises(SourceError, match=r"0000 it\.jpg looks different decoded by DALI"):
        checked(tmp_path, {"it": encode(noise_image(1, 31, 33))})


# --- re-encoding -------------------------------------------------------------------------------


def test_odd_images_can_be_encoded_anew(store):
    from iirc_data.sources import ReencodedSource

    images = open_folder(store.root.parent / "images")
    for sample in ReencodedSource(images, shorter_side=20).samples(TRAIN, "odd"):
        assert (sample.extension, sample.data[:2]) == ("jpg", b"\xff\xd8"), sample.origin
        assert min(Image.open(io.BytesIO(sample.data)).size) == 20


@pytest.mark.parametrize("size", [(1, 65_501), (65_501, 1)])
def test_what_is_too_long_for_jpeg_is_encoded_as_png(tmp_path, size):
    from iirc_data.sources import ReencodedSource

    image = noise_image(1, *size)
    files = {"long": encode(image, "PNG"), "short": encode(noise_image(1), "PNG")}
    write_files(tmp_path / "images" / TRAIN / "a", files)
    source = ReencodedSource(open_folder(tmp_path / "images"), shorter_side=16)
    manifest = write_shards(source, tmp_path / "shards")
    assert manifest.image_formats == ["jpg", "png"]
    found = ShardStore.open(tmp_path / "shards").read(0)
    assert np.array_equal(pillow(found.tobytes()), image)
