"""Names of shards: ``<split>/<class>-<number>.tar``, which plain WebDataset can open."""

import re

# WebDataset expands braces, and reads the others as parts of an address or of a Windows path.
# "=" is escaped only where it would look like an escape.
_UNSAFE = re.compile(r"[{}?#;:\\]|^\.|=(?=[0-9A-F]{2})")


def shard_path(split: str, class_name: str, number: int) -> str:
    """Return the path of a shard in its shard folder.

    Args:
        split: Name of the split.
        class_name: Name of the leaf class.
        number: Number of the shard within the class, from 0.
    """
    return f"{escaped(split)}/{escaped(class_name)}-{number:06d}.tar"


def escaped(name: str) -> str:
    """Escape the characters that a shard's path cannot contain: ``{`` becomes ``=7B``.

    Different names stay different. An escape needs no quoting in addresses and shells.
    """
    return _UNSAFE.sub(lambda match: f"={ord(match[0]):02X}", name)
