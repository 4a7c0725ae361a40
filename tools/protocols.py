"""Benchmarks whose protocols other repositories use: B0, B50 and Split, in their class orders.

Orders that public code draws are drawn here in the same way; those that it lists are in
:mod:`tools.protocol_lists`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from iirc_data.benchmarks import Benchmark, SplitSettings, Tasks, load_benchmark
from iirc_data.definitions import CIL_SETUP
from tools import protocol_lists

SEED = 1993

_SEED_1993 = (
    "numpy.random.RandomState(1993).permutation({n}) over the sorted class names, as in PyCIL "
    "(github.com/LAMDA-CL/PyCIL, utils/data_manager.py, shuffle and seed 1993) and LUCIR "
    "(github.com/hshustc/CVPR19_Incremental_Learning)"
)
_CIFAR100_ORDERS = (
    f"Schedule 0: {_SEED_1993.format(n=100)}. Schedule 1: the order of iCaRL (87, 0, 52, 58 "
    "and so on; github.com/srebuffi/iCaRL, iCaRL-TheanoLasagne/main_cifar_100_theano.py), which "
    "PODNet and DyTox list. Schedules 2 and 3: the second and third order of PODNet "
    "(github.com/arthurdouillard/incremental_learning.pytorch, "
    "options/data/cifar100_3orders.yaml). "
    "Schedule 4: order 0 of DER (github.com/Rhyssiyan/DER-ClassIL.pytorch, "
    "inclearn/datasets/dataset.py), which also lists the other four."
)
_GIVEN_ORDER = (
    "The classes in the order of their numbers in the dataset, as in Mammoth "
    "(github.com/aimagelab/mammoth, datasets/{file}) without its option permute_classes."
)
_IMAGENET100 = {
    "first": (
        "the first 100 classes by WordNet id",
        "Classes: the first 100 of the sorted WordNet ids, the file train_100.txt that BiC "
        "(github.com/wuyuebupt/LargeScaleIncrementalLearning), PODNet "
        "(github.com/arthurdouillard/incremental_learning.pytorch) and DyTox "
        "(github.com/arthurdouillard/dytox) share, and to which DER's authors refer.",
    ),
    "seed1993": (
        "100 classes drawn with seed 1993",
        "Classes: the first 100 of numpy.random.RandomState(1993).permutation(1000) over the "
        "sorted WordNet ids, as in LUCIR (github.com/hshustc/CVPR19_Incremental_Learning, "
        "imagenet-class-incremental/gen_imagenet_subset.py), FOSTER "
        "(github.com/G-U-N/ECCV22-FOSTER, imagenet-sub) and PyCIL.",
    ),
    "cmc": (
        "the 100 classes of Contrastive Multiview Coding",
        "Classes: imagenet100.txt of github.com/HobbitLong/CMC, which work on self-supervised "
        "learning uses. No class order was published with it; the order here is that of the other "
        "variants.",
    ),
}
_NO_VALIDATION = SplitSettings(intask_valid_ratio=0.0, posttask_valid_ratio=0.0)


def drawn_order(n_classes: int) -> list[int]:
    """Return the order that PyCIL draws: class indices, a permutation of ``range(n_classes)``."""
    # the legacy generator, whose stream NumPy keeps
    order: list[int] = np.random.RandomState(SEED).permutation(n_classes).tolist()
    return order


def icarl_order() -> list[int]:
    """Return iCaRL's order of CIFAR-100: 87, 0, 52, 58, ….

    Its code draws the order after it has shuffled the 500 training images of each class.
    """
    random = np.random.RandomState(SEED)
    for _ in range(100):
        random.shuffle(np.arange(500))
    order = np.arange(100)
    random.shuffle(order)
    drawn: list[int] = order.tolist()
    return drawn


def in_steps(classes: Sequence[str], order: Sequence[int], base: int, n_steps: int) -> Tasks:
    """Divide classes into tasks.

    Args:
        classes: The class names that ``order`` counts.
        order: Indices into ``classes``.
        base: Number of classes of a first task, which is no step; 0 for none.
        n_steps: Number of further tasks, all of one size.

    Raises:
        ValueError: The steps do not divide the classes evenly.
    """
    size, rest = divmod(len(order) - base, n_steps)
    if rest:
        raise ValueError(f"{len(order) - base} classes do not divide into {n_steps} steps")
    names = [classes[index] for index in order]
    bounds = [0, *range(base or size, len(names) + 1, size)]
    return [names[start:stop] for start, stop in pairwise(bounds)]


@dataclass(frozen=True)
class _Dataset:
    dataset: str
    transforms: str
    classes: list[str]
    readable: dict[str, str]

    def benchmark(
        self, name: str, what: str, orders: Sequence[Sequence[int]], sources: str, base: int, n: int
    ) -> Benchmark:
        schedules = [in_steps(self.classes, order, base, n) for order in orders]
        size = len(schedules[0][-1])
        first = f"{base} classes first, then " if base else ""
        drawn = f", in {len(orders)} orders" if len(orders) > 1 else ""
        return Benchmark(
            name=name,
            dataset=self.dataset,
            setup=CIL_SETUP,
            description=f"{what}: {first}{n} tasks of {size} classes{drawn}, without validation "
            "images.",
            attribution=sources,
            transforms=self.transforms,
            other_classes=sorted(self.classes),
            readable_names={
                c: self.readable[c] for c in sorted(self.classes) if c in self.readable
            },
            splits=_NO_VALIDATION,
            schedules=schedules,
        )


def protocols() -> Iterator[Benchmark]:
    """Yield the benchmarks, made from the classes of those that ship already."""
    yield from _cifar()
    yield from _imagenet()
    yield from _tiny_imagenet()


def _cifar() -> Iterator[Benchmark]:
    names = sorted(load_benchmark("incremental_cifar100").leaf_classes)
    cifar100 = _Dataset("cifar100", "cifar100", names, {})
    listed = (
        protocol_lists.PODNET_ORDER_2,
        protocol_lists.PODNET_ORDER_3,
        protocol_lists.DER_ORDER_1,
    )
    orders = [drawn_order(100), icarl_order(), *([int(n) for n in text.split()] for text in listed)]
    for base, steps in ((0, (5, 10, 20)), (50, (5, 10, 25))):
        for n in steps:
            yield cifar100.benchmark(
                f"cil_cifar100_b{base}_{n}",
                f"CIFAR-100 B{base}, {n} steps",
                orders,
                _CIFAR100_ORDERS,
                base,
                n,
            )
    source = _GIVEN_ORDER.format(file="seq_cifar100.py")
    yield cifar100.benchmark("split_cifar100", "Split CIFAR-100", [range(100)], source, 0, 10)
    names = sorted(load_benchmark("iirc_cifar10").leaf_classes)
    cifar10 = _Dataset("cifar10", "cifar10", names, {})
    source = _GIVEN_ORDER.format(file="seq_cifar10.py")
    yield cifar10.benchmark("split_cifar10", "Split CIFAR-10", [range(10)], source, 0, 5)


def _imagenet() -> Iterator[Benchmark]:
    published = load_benchmark("incremental_imagenet_full")
    names, readable = sorted(published.leaf_classes), published.readable_names
    subsets = {
        "first": names[:100],
        "seed1993": sorted(names[index] for index in drawn_order(1000)[:100]),
        "cmc": sorted(protocol_lists.CMC_IMAGENET100.split()),
    }
    for variant, classes in subsets.items():
        title, source = _IMAGENET100[variant]
        subset = _Dataset("imagenet", "imagenet", classes, readable)
        for base, n in ((0, 10), (50, 10)):
            yield subset.benchmark(
                f"cil_imagenet100_{variant}_b{base}_{n}",
                f"ImageNet-100 ({title}) B{base}, {n} steps",
                [drawn_order(100)],
                f"{source} Order: {_SEED_1993.format(n=100)}.",
                base,
                n,
            )
    whole = _Dataset("imagenet", "imagenet", names, readable)
    source = f"Order: {_SEED_1993.format(n=1000)}; DER lists the same one."
    yield whole.benchmark(
        "cil_imagenet1k_b0_10", "ImageNet B0, 10 steps", [drawn_order(1000)], source, 0, 10
    )


def _tiny_imagenet() -> Iterator[Benchmark]:
    readable = load_benchmark("incremental_imagenet_full").readable_names
    listed = protocol_lists.TINY_IMAGENET.split()
    tiny = _Dataset("tiny_imagenet", "tiny_imagenet", sorted(listed), readable)
    for base, steps in ((0, (10, 20)), (100, (5, 10, 20))):
        for n in steps:
            yield tiny.benchmark(
                f"cil_tinyimagenet_b{base}_{n}",
                f"Tiny ImageNet B{base}, {n} steps",
                [drawn_order(200)],
                "Order: numpy.random.RandomState(1993).permutation(200) over the sorted WordNet "
                "ids, as PyCIL draws orders.",
                base,
                n,
            )
    source = (
        "The classes in the order of the dataset's wnids.txt, which is that of the class names in "
        "Mammoth (github.com/aimagelab/mammoth, datasets/seq_tinyimagenet.py)."
    )
    order = [tiny.classes.index(name) for name in listed]
    yield tiny.benchmark("split_tinyimagenet", "Split Tiny ImageNet", [order], source, 0, 10)
