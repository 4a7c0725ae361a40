"""Small raw datasets in their original formats: CIFAR's pickles, ImageNet's tars."""

import gzip
import io
import pickle
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tests.conftest import encode, noise_image

WORDNET_IDS = ("n01440764", "n01443537", "n02102040")


def add_member(archive: tarfile.TarFile, name: str, data: bytes, **attributes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    archive.addfile(info, io.BytesIO(data))


def tar_of(members: Iterable[tuple[str, bytes]]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in members:
            add_member(archive, name, data)
    return file.getvalue()


def tar_gz_of_folder(folder: Path, path: Path) -> Path:
    members = [(f"{folder.name}/{file.name}", file.read_bytes()) for file in folder.iterdir()]
    path.write_bytes(gzip.compress(tar_of(members)))
    return path


def cifar_pixels(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 3072), dtype=np.uint8)


def dump_cifar(path: Path, content: dict) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


def write_cifar100(
    root: Path, n_train: int = 60, n_test: int = 24, names=("apple", "bee", "crab")
) -> Path:
    """Write ``cifar-100-python`` with labels in random order; the first class is a plant."""
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    for seed, (split, n) in enumerate({"train": n_train, "test": n_test}.items()):
        labels = np.random.default_rng(seed).permutation(np.arange(n) % len(names)).tolist()
        content = {b"fine_labels": labels, b"data": cifar_pixels(n, seed)}
        content[b"coarse_labels"] = [int(label > 0) for label in labels]
        dump_cifar(folder / split, content)
    meta = {b"fine_label_names": [name.encode() for name in names]}
    meta[b"coarse_label_names"] = [b"fruit_and_vegetables", b"non-insect_invertebrates"]
    dump_cifar(folder / "meta", meta)
    return folder


def write_cifar10(root: Path, n_per_batch: int = 10, names=("cat", "ant")) -> Path:
    """Write ``cifar-10-batches-py``; class order differs from alphabetical order."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for seed, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        labels = np.random.default_rng(seed).permutation(np.arange(n_per_batch) % 2).tolist()
        dump_cifar(folder / name, {b"labels": labels, b"data": cifar_pixels(n_per_batch, seed)})
    dump_cifar(folder / "batches.meta", {b"label_names": [name.encode() for name in names]})
    return folder


def imagenet_images() -> dict[str, dict[str, dict[str, bytes]]]:
    """Return images by split, WordNet id and file name; validation classes alternate."""
    images: dict[str, dict[str, dict[str, bytes]]] = {"train": {}, "val": {}}
    for row, wordnet_id in enumerate(WORDNET_IDS):
        # 2 sorts after 10 by name, as in ImageNet
        images["train"][wordnet_id] = {
            f"{wordnet_id}_{number}.JPEG": encode(noise_image(100 * row + number))
            for number in (2, 10, 33, 1)
        }
        images["val"][wordnet_id] = {
            f"ILSVRC2012_val_{1 + row + 3 * number:08d}.JPEG": encode(
                noise_image(1000 + row + 3 * number)
            )
            for number in range(2)
        }
    return images


def write_imagenet_tree(root: Path) -> Path:
    for split, classes in imagenet_images().items():
        for wordnet_id, files in classes.items():
            (root / split / wordnet_id).mkdir(parents=True)
            for name, data in files.items():
                (root / split / wordnet_id / name).write_bytes(data)
    return root


def write_imagenet_tars(root: Path) -> Path:
    """Write the three original files, with classes and images in no particular order."""
    from scipy.io import savemat

    root.mkdir(parents=True)
    images = imagenet_images()
    class_tars = [
        (f"{wordnet_id}.tar", tar_of(files.items()))
        for wordnet_id, files in images["train"].items()
    ]
    (root / "ILSVRC2012_img_train.tar").write_bytes(tar_of(reversed(class_tars)))
    val = {name: data for files in images["val"].values() for name, data in files.items()}
    (root / "ILSVRC2012_img_val.tar").write_bytes(tar_of(reversed(val.items())))
    # class numbers do not follow the WordNet ids, and a fourth synset has no images
    numbers = dict(zip((*WORDNET_IDS, "n00001740"), (3, 1, 2, 4), strict=True))
    synsets = np.array(
        [(number, wordnet_id, "words") for wordnet_id, number in numbers.items()],
        dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")],
    )
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets})
    class_of = {name: w for w, files in images["val"].items() for name in files}
    truth = "".join(f"{numbers[class_of[name]]}\n" for name in sorted(val))
    folder = "ILSVRC2012_devkit_t12/data"
    devkit = tar_of(
        [
            (f"{folder}/meta.mat", meta.getvalue()),
            (f"{folder}/ILSVRC2012_validation_ground_truth.txt", truth.encode()),
        ]
    )
    (root / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(gzip.compress(devkit))
    return root


def write_tiny_imagenet(root: Path, per_class: int = 3) -> Path:
    """Write ``tiny-imagenet-200`` as it is unpacked; validation images alternate in class."""
    folder = root / "tiny-imagenet-200"
    for row, wordnet_id in enumerate(WORDNET_IDS):
        images = folder / "train" / wordnet_id / "images"
        images.mkdir(parents=True)
        (images.parent / f"{wordnet_id}_boxes.txt").write_text(f"{wordnet_id}_0.JPEG\t0\t1\t2\t3\n")
        for number in range(per_class):
            data = encode(noise_image(100 * row + number))
            (images / f"{wordnet_id}_{number}.JPEG").write_bytes(data)
    lines = []
    for split in ("val", "test"):
        (folder / split / "images").mkdir(parents=True)
        for number in range(12 if split == "val" else 2):
            name = f"{split}_{number}.JPEG"
            (folder / split / "images" / name).write_bytes(encode(noise_image(1000 + number)))
            lines.append(f"{name}\t{WORDNET_IDS[number % 3]}\t0\t32\t44\t62\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines[:12]))
    (folder / "wnids.txt").write_text("\n".join(reversed(WORDNET_IDS)) + "\n")
    (folder / "words.txt").write_text("n00001740\tentity\n")
    return folder
