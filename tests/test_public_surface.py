"""The names that ``iirc_data`` offers: all there, imported when they are used."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import iirc_data


def test_every_public_name_is_found_and_known_to_type_checkers():
    tree = ast.parse(Path(iirc_data.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    names = {
        target.id for node in block.body if isinstance(node, ast.Assign) for target in node.targets
    }
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    names |= {alias.name for node in imports for alias in node.names}
    assert names == set(iirc_data.__all__)
    for node in imports:
        module = __import__(node.module, fromlist=["_"])
        for alias in node.names:
            assert getattr(iirc_data, alias.name) is getattr(module, alias.name)
    assert set(iirc_data.__all__) <= set(dir(iirc_data))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'iirc_data' has no attribute 'open_shard'"):
        _ = iirc_data.open_shard


def test_importing_the_package_imports_nothing_else():
    code = (
        "import sys, iirc_data\n"
        "sys.exit(any(name.startswith(('iirc_data.', 'numpy')) for name in sys.modules))"
    )
    root = Path(iirc_data.__file__).parents[1]
    subprocess.run([sys.executable, "-S", "-c", code], cwd=root, check=True)


@pytest.mark.parametrize("package", ["iirc_data", "iirc_train"])
@pytest.mark.parametrize(("chosen", "waits"), [(None, "passive"), ("active", "active")])
def test_threads_sleep_while_they_wait_unless_the_user_chose(package, chosen, waits):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    if chosen:
        environment["OMP_WAIT_POLICY"] = chosen
    code = (
        f"import os, sys, {package}\n"
        "assert 'torch' not in sys.modules\n"
        "print(os.environ['OMP_WAIT_POLICY'])"
    )
    found = subprocess.check_output(
        [sys.executable, "-c", code],
        cwd=Path(iirc_data.__file__).parents[1],
        env=environment,
        text=True,
    )
    assert found.strip() == waits
