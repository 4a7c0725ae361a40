"""The card of a published dataset: a page that says what it holds and how to pull it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from shlex import quote

from rich.filesize import decimal

from iirc_data.benchmarks import Benchmark
from iirc_data.shards.addresses import pinned
from iirc_data.shards.manifest import Manifest
from iirc_data.taxonomy import Taxonomy

CARD_MARK = "<!-- written by iirc data publish -->"
"""Part of every card: a page without it has another origin and is not overwritten."""

_MOST_CLASSES = 1000
_SIZES = ((1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M"))


@dataclass(frozen=True)
class Card:
    """What a card says that the manifest does not.

    Attributes:
        licence: Licence of the images, best as an SPDX identifier; None if it is not known.
        benchmark: A benchmark on the dataset, whose taxonomy is shown.
        address: Where readers find the dataset; by default where it is published, if they can read
            that: for a local folder, the page says ``ADDRESS``.
    """

    licence: str | None = None
    benchmark: Benchmark | None = None
    address: str | None = None

    def pages(self, manifest: Manifest, address: str, versions: Sequence[str]) -> dict[str, str]:
        """Return the pages by file name: ``README.md`` and ``index.html``.

        Args:
            manifest: The dataset's manifest.
            address: Where readers find the dataset.
            versions: Digests of other versions at the address.
        """
        facts = {
            "Digest": f"sha256:{manifest.digest}",
            "Classes": f"{len(manifest.classes):,}",
            "Image formats": ", ".join(manifest.image_formats),
            "Licence": self.licence or "not stated",
        }
        splits = [["Split", "Classes", "Images", "Shards", "Size"]]
        for split, shards in manifest.splits.items():
            numbers = (
                len({s.class_name for s in shards}),
                sum(s.samples for s in shards),
                len(shards),
            )
            size = decimal(sum(shard.bytes for shard in shards))
            splits.append([split, *(f"{number:,}" for number in numbers), size])
        commands = [
            "pip install 'iirc-pipeline[remote]'",
            f"iirc data pull {quote(pinned(address, manifest.digest))} shards",
            "iirc data verify shards",
        ]
        parts = (manifest.dataset, facts, splits, commands, self._taxonomy(manifest), versions)
        return {
            "README.md": self._front_matter(manifest) + _markdown(*parts),
            "index.html": _html(*parts),
        }

    def _taxonomy(self, manifest: Manifest) -> list[str]:
        taxonomy = Taxonomy({}) if self.benchmark is None else self.benchmark.taxonomy
        above = {name: taxonomy.ancestors_of(name) for name in manifest.classes}
        known = {*above, *(ancestor for ancestors in above.values() for ancestor in ancestors)}
        lines = [
            f"{superclass}: {', '.join(name for name in names if name in known)}"
            for superclass, names in taxonomy.superclasses.items()
            if not known.isdisjoint(names)
        ]
        others = [name for name, ancestors in above.items() if not ancestors]
        more = len(others) - _MOST_CLASSES
        text = ", ".join(others[:_MOST_CLASSES]) + (f", … ({more:,} more)" if more > 0 else "")
        return [*lines, *([text] if others else [])]

    def _front_matter(self, manifest: Manifest) -> str:
        n_samples = sum(shard.samples for shard in manifest.shards)
        size = next((name for most, name in _SIZES if n_samples < most), "n>1M")
        licence = [] if self.licence is None else [f"license: {json.dumps(self.licence.lower())}"]
        return "\n".join(
            [
                "---",
                *licence,
                "task_categories:",
                "- image-classification",
                "size_categories:",
                f"- {size}",
                "---",
                "",
                "",
            ]
        )


def _markdown(
    title: str,
    facts: dict[str, str],
    splits: list[list[str]],
    commands: list[str],
    taxonomy: list[str],
    versions: Sequence[str],
) -> str:
    rows = [f"| {' | '.join(map(_plain, row))} |" for row in splits]
    rows.insert(1, "|---|" + "---:|" * (len(splits[0]) - 1))
    lines = [CARD_MARK, "", f"# {_plain(title)}", ""]
    lines += [f"- {name}: {_plain(value)}" for name, value in facts.items()]
    lines += ["", *rows, "", "## Use", "", "```bash", *commands, "```", "", "## Classes", ""]
    lines += [f"- {_plain(line)}" for line in taxonomy]
    if versions:
        lines += ["", "## Other versions", "", *(f"- sha256:{digest}" for digest in versions)]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Return text that Markdown shows as it is."""
    return "".join(
        f"\\{character}" if character in "\\`*_{}[]<>#|" else character for character in text
    )


def _html(
    title: str,
    facts: dict[str, str],
    splits: list[list[str]],
    commands: list[str],
    taxonomy: list[str],
    versions: Sequence[str],
) -> str:
    def row(cells: list[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    def items(lines: Sequence[str]) -> str:
        return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"

    parts = [
        "<!doctype html>",
        CARD_MARK,
        '<html lang="en"><meta charset="utf-8">',
        f"<title>{escape(title)}</title>",
        "<style>body{font-family:sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;"
        "overflow-wrap:anywhere}td,th{padding:.2rem .8rem;text-align:right}"
        "td:first-child,th:first-child{text-align:left}pre{overflow-x:auto}</style>",
        f"<h1>{escape(title)}</h1>",
        items([f"{name}: {value}" for name, value in facts.items()]),
        "<table>" + row(splits[0], "th"),
        *(row(cells, "td") for cells in splits[1:]),
        "</table>",
        "<h2>Use</h2>",
        f"<pre>{escape(chr(10).join(commands))}</pre>",
        "<h2>Classes</h2>",
        items(taxonomy),
    ]
    if versions:
        parts += ["<h2>Other versions</h2>", items([f"sha256:{digest}" for digest in versions])]
    return "\n".join([*parts, "</html>", ""])
