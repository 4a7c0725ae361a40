"""A taxonomy in a table: a CSV file with the columns ``class`` and ``parent``."""

import csv
import difflib
import io
from collections.abc import Iterator
from pathlib import Path

from iirc_data.errors import BenchmarkError
from iirc_data.taxonomies.json_file import read_taxonomy_text
from iirc_data.taxonomies.reduction import make_taxonomy
from iirc_data.taxonomy import Taxonomy

COLUMNS = ("class", "parent")


def read_table(path: Path, *, several_superclasses: bool = False) -> Taxonomy:
    """Read a table with one row per class and superclass.

    The first line names the columns; further columns are ignored. A class without superclass has a
    row with an empty parent. Every parent has a row of its own, so that a misspelling is found.

    Args:
        path: A file of comma-separated values, or ``.tsv`` with tabs.
        several_superclasses: Whether a class may have rows with different parents.

    Raises:
        BenchmarkError: The file cannot be read, a row is incomplete or occurs twice, a parent has
            no row, a class has several parents, or is its own ancestor.
    """
    line_of: dict[tuple[str, str], int] = {}
    parents: dict[str, list[str]] = {}
    for line, name, parent in _rows(path):
        where = f"{path}, line {line}: class {name!r}"
        if (name, parent) in line_of:
            raise BenchmarkError(f"{where} repeats line {line_of[name, parent]}")
        line_of[name, parent] = line
        known = parents.setdefault(name, [])
        if known and ("" in (known[0], parent) or not several_superclasses):
            before = known[0] or "no parent"
            remedy = "" if "" in (known[0], parent) else "; --several-superclasses allows both"
            raise BenchmarkError(f"{where} has another parent in an earlier line: {before}{remedy}")
        known.append(parent)
    superclasses: dict[str, list[str]] = {}
    for (name, parent), line in line_of.items():
        if not parent:
            continue
        if parent not in parents:
            close = difflib.get_close_matches(parent, parents, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise BenchmarkError(
                f"{path}, line {line}: parent {parent!r} has no row; {hint}A class without "
                "superclass has a row with an empty parent"
            )
        superclasses.setdefault(parent, []).append(name)
    return make_taxonomy(superclasses, parents, str(path))


def _rows(path: Path) -> Iterator[tuple[int, str, str]]:
    text = io.StringIO(read_taxonomy_text(path), newline="")
    table = csv.reader(text, delimiter="\t" if path.suffix == ".tsv" else ",")
    try:
        header = [name.strip().lower() for name in next(table, [])]
        if missing := [name for name in COLUMNS if name not in header]:
            raise BenchmarkError(
                f"{path} has no column {missing[0]!r}: its first line must be class,parent"
            )
        columns = [header.index(name) for name in COLUMNS]
        n_rows = 0
        for row in table:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(header):
                raise BenchmarkError(
                    f"{path}, line {table.line_num} has {len(row)} columns, expected {len(header)}"
                )
            name, parent = (row[column].strip() for column in columns)
            if not name:
                raise BenchmarkError(f"{path}, line {table.line_num} names no class")
            n_rows += 1
            yield table.line_num, name, parent
    except csv.Error as error:
        raise BenchmarkError(f"{path}, line {table.line_num}: {error}") from error
    if not n_rows:
        raise BenchmarkError(f"{path} has no row below its first line")
