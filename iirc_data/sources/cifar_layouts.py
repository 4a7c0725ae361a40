"""The published forms of CIFAR-10 and CIFAR-100."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CifarLayout:
    """The published form of one of the two datasets.

    Attributes:
        name: Name of the dataset.
        folder: Name of the folder of the pickles.
        files: Each split with the names of its pickles, in order.
        names_file: The pickle with the class names.
        names_key: Key of the class names in that pickle.
        labels_key: Key of the class numbers in the other pickles.
        superclasses: Keys of the names and of the numbers of the superclasses; None if the dataset
            has none.
        url: Address of the ``.tar.gz``.
        sha256: SHA-256 of the ``.tar.gz``.
    """

    name: str
    folder: str
    files: tuple[tuple[str, tuple[str, ...]], ...]
    names_file: str
    names_key: bytes
    labels_key: bytes
    superclasses: tuple[bytes, bytes] | None
    url: str
    sha256: str

    @property
    def archive(self) -> str:
        """File name of the ``.tar.gz``."""
        return self.url.rpartition("/")[2]


CIFAR10 = CifarLayout(
    name="cifar10",
    folder="cifar-10-batches-py",
    files=(("test", ("test_batch",)), ("train", tuple(f"data_batch_{n}" for n in range(1, 6)))),
    names_file="batches.meta",
    names_key=b"label_names",
    labels_key=b"labels",
    superclasses=None,
    url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
)
CIFAR100 = CifarLayout(
    name="cifar100",
    folder="cifar-100-python",
    files=(("test", ("test",)), ("train", ("train",))),
    names_file="meta",
    names_key=b"fine_label_names",
    labels_key=b"fine_labels",
    superclasses=(b"coarse_label_names", b"coarse_labels"),
    url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    sha256="85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
)
CIFAR_LAYOUTS = {layout.name: layout for layout in (CIFAR10, CIFAR100)}
