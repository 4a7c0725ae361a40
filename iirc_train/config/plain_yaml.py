"""Settings in YAML: plain values only, with numbers as people write them.

Numbers, booleans and nulls follow YAML 1.2. YAML 1.1, the default of PyYAML,
reads ``010`` as 8, ``12:30`` as 750, ``1e-3`` as text and ``no`` as false.
"""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from iirc_data.errors import ConfigurationError
from iirc_data.reading import read_text

_TAG = "tag:yaml.org,2002:"
_RULES = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
}


class _Loader(yaml.SafeLoader):
    """Reads plain values, without tags, and without aliases, which can expand to gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(
                problem=f"alias *{event.anchor} is not read: write the value itself",
                problem_mark=event.start_mark,
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if repeated := [name for name, count in Counter(names).items() if count > 1]:
            raise yaml.MarkedYAMLError(
                problem=f"{repeated[0]!r} is given twice", problem_mark=node.start_mark
            )
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or 1.2 would read as another type."""


def _whole_number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = node.value
    return int(text, 0 if text[:2] in ("0o", "0x") else 10)


_Loader.yaml_implicit_resolvers = {}  # remove the rules of YAML 1.1
for _kind, (_pattern, _first) in _RULES.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_TAG + _kind, re.compile(f"(?:{_pattern})$"), _first)
_Loader.add_constructor(_TAG + "int", _whole_number)


def read_settings(path: Path) -> dict[str, Any]:
    """Read a mapping of settings from a YAML file in UTF-8 or UTF-16.

    Raises:
        ConfigurationError: The file is not readable, is not a mapping, or gives a setting twice.
    """
    try:
        values = _Loader(read_text(path)).get_single_data()
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        problem = " ".join(str(error).split())
        raise ConfigurationError(f"{path} is not YAML: {problem}") from error
    if not isinstance(values, dict):
        raise ConfigurationError(f"{path} holds no settings: expected lines such as 'lr: 0.1'")
    return values


def settings_text(values: Mapping[str, Any]) -> bytes:
    """Return settings as YAML that :func:`read_settings` reads, in the same order."""
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False).encode()
