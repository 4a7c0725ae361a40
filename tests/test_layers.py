"""Data never flows back up: imports point up the list of rooms, and never in a circle."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A floor per line, from top to bottom: a room imports rooms of the lines above it only.
DATA_ROOMS = """
definitions errors lifeline masking order qualified_names sizes spelling taxonomy warning
augment cluster console decoding label_combinations reading
files
benchmarks image_sizes interrupts runs
locks sampling sources task_view
shards taxonomies utils
datasets features splits
dataset_checks split_samples
task_sequence
lifelong_dataset loader
commands datasets_loader
"""
TRAIN_ROOMS = """
config metrics
models runtime
buffer run
methods saved_model
doctor report training utils
demo sweep testing
cli
__main__
"""
MOST_FLOORS = 9
MOST_LOOSE_MODULES = 6


def floors(rooms: str) -> dict[str, int]:
    """Return the number of the line that each room stands on."""
    lines = rooms.strip().splitlines()
    return {name: number for number, line in enumerate(lines) for name in line.split()}


ROOMS = [("iirc_data", DATA_ROOMS), ("iirc_train", TRAIN_ROOMS)]


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


def dotted_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_the_data_half_never_imports_the_training_half_or_the_tools():
    for path in modules("iirc_data"):
        upward = {n for n in imports_of(path) if n.startswith(("iirc_train", "tools"))}
        assert not upward, f"{path} imports {upward}"


@pytest.mark.parametrize(("package", "rooms"), ROOMS)
def test_a_room_imports_rooms_above_it_only(package, rooms):
    floor = floors(rooms)
    for path in modules(package):
        here = room(path, package)
        if here == "__init__":
            continue
        assert here in floor, f"{path}: give the room {here!r} its place in the list"
        for name in imports_of(path):
            if name.startswith(package + "."):
                there = name.split(".")[1]
                assert there == here or floor[there] < floor[here], f"{path} imports {name}"


@pytest.mark.parametrize(("package", "rooms"), ROOMS)
def test_no_module_imports_itself_by_a_detour(package, rooms):
    """Imports for type checkers only count too."""
    names = {dotted_name(path): path for path in modules(package)}
    graph = {
        name: {
            found if found in names else found.rpartition(".")[0]
            for found in imports_of(path)
            if found.startswith(package + ".")
        }
        for name, path in names.items()
        if name != package  # its public names, of every room
    }
    TopologicalSorter(graph).prepare()  # raises CycleError, with the modules of the circle


def test_the_training_half_has_few_floors_and_few_loose_modules():
    assert max(floors(TRAIN_ROOMS).values()) < MOST_FLOORS
    loose = {path.name for path in (ROOT / "iirc_train").glob("*.py")} - {"__init__.py"}
    assert len(loose) <= MOST_LOOSE_MODULES, loose


def test_dali_is_imported_in_two_places():
    for package in ("iirc_data", "iirc_train", "tools"):
        for path in modules(package):
            if any(name.startswith("nvidia") for name in imports_of(path)):
                assert path.parent == ROOT / "iirc_data" / "loader"
                assert path.name in ("dali_graph.py", "dali_pipeline.py")


def test_nothing_that_is_read_can_run_code():
    for package in ("iirc_data", "iirc_train", "tools"):
        for path in modules(package):
            text = path.read_text()
            found = re.search(
                r"allow_pickle=True|weights_only=False|yaml\.load\(|(?<![.\w])eval\(", text
            )
            assert found is None, f"{path}: {found}"
