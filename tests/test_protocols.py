"""Benchmarks of other repositories' protocols: their tasks and orders, derived a second time."""

import hashlib

import numpy as np
import pytest

from iirc_data.augment import IMAGE_PRESETS
from iirc_data.benchmarks import benchmark_text, load_benchmark, manifests_folder
from iirc_data.files import canonical_json
from tools.protocols import in_steps, protocols

MADE = {benchmark.name: benchmark for benchmark in protocols()}

# tasks, and the first 16 digits of the SHA-256 of the schedules: a change would be another protocol
KNOWN = {
    "cil_cifar100_b0_5": ((20,) * 5, "94cb44d446ff2981"),
    "cil_cifar100_b0_10": ((10,) * 10, "5a222df27d6fde32"),
    "cil_cifar100_b0_20": ((5,) * 20, "3051e71f39afe9b8"),
    "cil_cifar100_b50_5": ((50,) + (10,) * 5, "52254f60e8518ab4"),
    "cil_cifar100_b50_10": ((50,) + (5,) * 10, "2811f310c00c0f12"),
    "cil_cifar100_b50_25": ((50,) + (2,) * 25, "9e3c290e85dc2b1e"),
    "split_cifar100": ((10,) * 10, "9aa9edbfb129d909"),
    "split_cifar10": ((2,) * 5, "849e24a4ea2a6de8"),
    "cil_imagenet100_first_b0_10": ((10,) * 10, "f4e254bd32418256"),
    "cil_imagenet100_first_b50_10": ((50,) + (5,) * 10, "763b3c050bfc39ac"),
    "cil_imagenet100_seed1993_b0_10": ((10,) * 10, "0030c75dd3d1c84d"),
    "cil_imagenet100_seed1993_b50_10": ((50,) + (5,) * 10, "7f6e508ab2c647a2"),
    "cil_imagenet100_cmc_b0_10": ((10,) * 10, "770567064fc04fdf"),
    "cil_imagenet100_cmc_b50_10": ((50,) + (5,) * 10, "783c5a82c5927d85"),
    "cil_imagenet1k_b0_10": ((100,) * 10, "8ee088e6ce814489"),
    "cil_tinyimagenet_b0_10": ((20,) * 10, "f9c5f76eab3fbd29"),
    "cil_tinyimagenet_b0_20": ((10,) * 20, "91fb8d4edffa10b9"),
    "cil_tinyimagenet_b100_5": ((100,) + (20,) * 5, "d6669ec345349811"),
    "cil_tinyimagenet_b100_10": ((100,) + (10,) * 10, "e509b5b141a2f4f4"),
    "cil_tinyimagenet_b100_20": ((100,) + (5,) * 20, "1dfc6dde5ae55356"),
    "split_tinyimagenet": ((20,) * 10, "58c288f989f569e0"),
}
# as PODNet's code lists it, options/data/cifar100_3orders.yaml; made here by drawing
ICARL = """
87 0 52 58 44 91 68 97 51 15 94 92 10 72 49 78 61 14 8 86 84 96 18 24 32 45 88 11 4 67 69 66 77 47
79 93 29 50 57 83 17 81 41 12 37 59 25 20 80 73 1 28 6 46 62 82 53 9 31 75 38 63 33 74 27 22 36 3 16
21 60 19 70 90 89 43 5 42 65 76 40 30 23 85 2 95 56 48 71 64 98 13 99 7 34 55 54 26 35 39
"""


def digest(benchmark) -> str:
    return hashlib.sha256(canonical_json(benchmark.schedules)).hexdigest()[:16]


def sizes(benchmark) -> set[tuple[int, ...]]:
    return {tuple(map(len, schedule)) for schedule in benchmark.schedules}


def indices(benchmark, schedule: int) -> list[int]:
    """Return the schedule's order as indices into the sorted class names."""
    names = sorted(benchmark.leaf_classes)
    return [names.index(name) for task in benchmark.tasks(schedule) for name in task]


def test_the_files_are_those_that_the_tool_makes():
    files = {path.stem for path in manifests_folder().glob("*.json")}
    assert {name for name in files if name.startswith(("cil_", "split_"))} == set(MADE)
    for name, benchmark in MADE.items():
        assert (manifests_folder() / f"{name}.json").read_text() == benchmark_text(benchmark)


def test_every_protocol_has_its_digest_and_its_task_sizes():
    assert MADE.keys() == KNOWN.keys()
    for name, (task_sizes, known) in KNOWN.items():
        benchmark = load_benchmark(name)
        assert sizes(benchmark) == {task_sizes}, name
        assert digest(benchmark) == known, name


@pytest.mark.parametrize("name", MADE)
def test_a_protocol_schedules_every_class_once_and_trains_on_all_images(name):
    benchmark = load_benchmark(name)
    assert benchmark.setup == "CIL"
    assert benchmark.leaf_classes == sorted(benchmark.leaf_classes)
    for schedule in range(len(benchmark.schedules)):
        assert sorted(indices(benchmark, schedule)) == list(range(len(benchmark.leaf_classes)))
    assert benchmark.splits.model_dump() == {"intask_valid_ratio": 0, "posttask_valid_ratio": 0}
    assert "github.com/" in benchmark.attribution or "PyCIL" in benchmark.attribution
    assert (
        benchmark.image_preset.size
        == {"cifar": 32, "tiny_": 64, "image": 224}[benchmark.dataset[:5]]
    )


@pytest.mark.parametrize("name", [name for name in MADE if name.startswith("cil_cifar100")])
def test_cifar100_comes_in_the_orders_of_pycil_icarl_podnet_and_der(name):
    benchmark = load_benchmark(name)
    drawn = np.random.RandomState(1993).permutation(100).tolist()
    assert indices(benchmark, 0) == drawn and drawn[:4] == [68, 56, 78, 8]
    assert indices(benchmark, 1) == [int(number) for number in ICARL.split()]
    firsts = [indices(benchmark, schedule)[:4] for schedule in (2, 3, 4)]
    assert firsts == [[58, 30, 93, 69], [71, 54, 45, 32], [62, 54, 84, 20]]
    # lists of indices in other code count the same names: the fine labels of CIFAR-100
    names = load_benchmark("incremental_cifar100").leaf_classes
    assert benchmark.leaf_classes == sorted(names)
    assert benchmark.tasks(0)[0][:2] == ["road", "palm_tree"]


@pytest.mark.parametrize("name", ["split_cifar10", "split_cifar100"])
def test_split_cifar_counts_up(name):
    benchmark = load_benchmark(name)
    assert indices(benchmark, 0) == list(range(len(benchmark.leaf_classes)))
    assert len(benchmark.schedules) == 1


def test_the_three_variants_of_imagenet100_differ():
    imagenet = sorted(load_benchmark("incremental_imagenet_full").leaf_classes)
    first, drawn, cmc = (
        load_benchmark(f"cil_imagenet100_{variant}_b0_10").leaf_classes
        for variant in ("first", "seed1993", "cmc")
    )
    assert first == imagenet[:100]
    # LUCIR draws with choice
    choice = np.random.RandomState(1993).choice(imagenet, 100, replace=False)
    assert drawn == sorted(choice.tolist())
    assert drawn[:3] == ["n01514668", "n01531178", "n01537544"]
    assert cmc[:3] == ["n01558993", "n01692333", "n01729322"]
    assert set(cmc) < set(imagenet)
    pairs = ((first, drawn), (first, cmc), (drawn, cmc))
    assert [len(set(a) & set(b)) for a, b in pairs] == [9, 8, 7]


@pytest.mark.parametrize("name", [name for name in MADE if name.startswith(("cil_im", "cil_ti"))])
def test_imagenet_and_its_subsets_come_in_the_order_of_seed_1993(name):
    benchmark = load_benchmark(name)
    n_classes = len(benchmark.leaf_classes)
    assert indices(benchmark, 0) == np.random.RandomState(1993).permutation(n_classes).tolist()
    assert set(benchmark.readable_names) == set(benchmark.leaf_classes)


def test_b0_and_b50_show_the_same_order():
    for name in MADE:
        if name.startswith("cil_cifar100"):
            assert indices(MADE[name], 1) == indices(MADE["cil_cifar100_b0_10"], 1)


def test_split_tiny_imagenet_has_the_order_of_the_dataset():
    benchmark = load_benchmark("split_tinyimagenet")
    readable = [benchmark.readable_name(name) for name in benchmark.tasks()[0][:4]]
    assert readable == ["Egyptian cat", "reel", "volleyball", "rocking chair"]
    assert benchmark.tasks()[-1][-1] == "n02504458"


def test_pycils_preset_is_the_ordinary_one_with_colour_jitter():
    ordinary, pycil = (IMAGE_PRESETS[name] for name in ("cifar100", "cifar100_pycil"))
    assert pycil.train.color_jitter.model_dump() == {
        "brightness": 63 / 255,
        "contrast": 0,
        "saturation": 0,
        "hue": 0,
    }
    without = pycil.train.model_copy(update={"color_jitter": None})
    assert pycil.model_copy(update={"train": without}) == ordinary


@pytest.mark.parametrize(
    "base, n_steps, expected",
    [(0, 2, [["c", "a"], ["b", "d"]]), (2, 2, [["c", "a"], ["b"], ["d"]])],
)
def test_steps_follow_the_base(base, n_steps, expected):
    assert in_steps("abcd", [2, 0, 1, 3], base, n_steps) == expected
    with pytest.raises(ValueError, match="do not divide into 3 steps"):
        in_steps("abcd", [2, 0, 1, 3], base, 3)
