"""Every name that the published package documents is here, with its arguments and defaults."""

import importlib
import inspect
from types import ModuleType

import pytest

MODULES = [
    "datasets_loader",
    "definitions",
    "lifelong_dataset.base_dataset",
    "lifelong_dataset.torch_dataset",
    "utils.download_cifar",
    "utils.utils",
]


def both(module: str) -> tuple[ModuleType, ModuleType]:
    return importlib.import_module(f"iirc_data.{module}"), importlib.import_module(f"iirc.{module}")


def own_members(module: ModuleType, kind) -> dict[str, object]:
    return {
        name: member
        for name, member in inspect.getmembers(module, kind)
        if member.__module__ == module.__name__ and not name.startswith("_")
    }


def arguments(function) -> list[tuple[str, object]]:
    parameters = inspect.signature(function).parameters.values()
    return [(parameter.name, parameter.default) for parameter in parameters]


@pytest.mark.parametrize("module", MODULES)
def test_functions_have_the_published_arguments_and_defaults(module):
    ours, published = both(module)
    for name, function in own_members(published, inspect.isfunction).items():
        assert arguments(getattr(ours, name)) == arguments(function), name


@pytest.mark.parametrize("module", MODULES)
def test_classes_have_the_published_methods_arguments_and_defaults(module):
    ours, published = both(module)
    for name, cls in own_members(published, inspect.isclass).items():
        assert arguments(getattr(ours, name)) == arguments(cls), name
        for method, function in inspect.getmembers(cls, inspect.isfunction):
            if not method.startswith("_"):
                found = arguments(getattr(getattr(ours, name), method))
                assert found == arguments(function), f"{name}.{method}"


def test_constants_have_the_published_values():
    ours, published = both("definitions")
    constants = {name: value for name, value in vars(published).items() if name.isupper()}
    assert len(constants) == 5
    assert {name: getattr(ours, name) for name in constants} == constants
    assert hasattr(ours, "DatasetStructType")


def test_the_numpy_flavour_takes_what_the_torch_flavour_takes():
    # the published module imports TensorFlow, so it cannot be asked
    flavours = [
        importlib.import_module(f"iirc_data.lifelong_dataset.{name}_dataset").Dataset
        for name in ("tensorflow", "torch")
    ]
    assert arguments(flavours[0]) == arguments(flavours[1])
