"""The tree's one rule: data never flows back up, so imports point up the list only."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]

# from top to bottom: a room may import rooms above it, never one below
DATA_ROOMS = [
    "errors",
    "definitions",
    "masking",
    "files",
    "reading",
    "spelling",
    "console",
    "interrupts",
    "locks",
    "cluster",
    "decoding",
    "augment",
    "benchmarks",
    "sources",
    "shards",
    "utils",
    "sampling",
    "splits",
    "dataset_checks",
    "task_view",
    "order",
    "image_sizes",
    "lifelong_dataset",
    "datasets_loader",
    "loader",
    "commands",
]
TRAIN_ROOMS = [
    "runtime",
    "config",
    "run",
    "saved_model",
    "utils",
    "models",
    "buffer",
    "methods",
    "metrics",
    "training",
    "report",
    "sweep",
    "demo",
    "cli",
    "__main__",
]


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def room(path: Path, package: str) -> str:
    return path.relative_to(ROOT / package).parts[0].removesuffix(".py")


def test_the_data_half_never_imports_the_training_half_or_the_tools():
    for path in modules("iirc_data"):
        upward = {n for n in imports_of(path) if n.startswith(("iirc_train", "tools"))}
        assert not upward, f"{path} imports {upward}"


def test_imports_point_up_the_list_of_rooms_only():
    for package, rooms in [("iirc_data", DATA_ROOMS), ("iirc_train", TRAIN_ROOMS)]:
        for path in modules(package):
            here = room(path, package)
            if here == "__init__":
                continue
            assert here in rooms, f"{path}: give the room {here!r} its place in the list"
            for name in imports_of(path):
                if name.startswith(package + "."):
                    there = name.split(".")[1]
                    assert rooms.index(there) <= rooms.index(here), f"{path} imports {name}"


def test_dali_is_imported_in_one_place():
    for package in ("iirc_data", "iirc_train", "tools"):
        for path in modules(package):
            if any(name.startswith("nvidia") for name in imports_of(path)):
                assert path == ROOT / "iirc_data" / "loader" / "dali_pipeline.py"


def test_nothing_that_is_read_can_run_code():
    for package in ("iirc_data", "iirc_train", "tools"):
        for path in modules(package):
            text = path.read_text()
            for forbidden in ("allow_pickle=True", "weights_only=False", "yaml.load(", "eval("):
                assert forbidden not in text.replace(".eval(", ""), f"{path}: {forbidden}"
