"""Tables that are split to fit the terminal, each part with the columns that name its rows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

_EDGES = 2
_BETWEEN = 2  # padding and divider; the last column has no divider


@dataclass(frozen=True)
class Column:
    """A column of text, which wraps only between words.

    Attributes:
        heading: Heading.
        cells: One text per row, shown literally.
        justify: Side on which the texts are aligned.
        style: Style of the texts.
    """

    heading: str
    cells: Sequence[str]
    justify: Literal["left", "right"] = "right"
    style: str = ""

    @property
    def least_width(self) -> int:
        """Width of the longest word."""
        return _longest(word for text in self._texts for word in text.split())

    @property
    def full_width(self) -> int:
        """Width in which no line wraps."""
        return _longest(line for text in self._texts for line in text.splitlines())

    @property
    def _texts(self) -> list[str]:
        return [self.heading, *self.cells]


def tables_within(
    width: int | None, title: str, keys: Sequence[Column], columns: Sequence[Column]
) -> list[Table]:
    """Divide columns among as few tables as fit a width.

    Args:
        width: Width of the terminal; None for one table of any width. A table that cannot be
            narrow enough, because of a long word, is wider.
        title: Title of each table.
        keys: The columns that name the rows; each table starts with them.
        columns: The other columns.
    """
    if width is None:
        return [_table(title, [*keys, *columns], None)]
    widest = max((column.least_width for column in columns), default=0)
    room = min(width // 2, width - widest - _BETWEEN)
    key_widths = _grown(keys, [key.least_width for key in keys], room)
    parts: list[list[Column]] = [[]]
    for column in columns:
        least = [*key_widths, *(one.least_width for one in (*parts[-1], column))]
        if parts[-1] and _total(least) > width:
            parts.append([])
        parts[-1].append(column)
    return [_table(title, [*keys, *part], width, key_widths) for part in parts]


def terminal_width(console: Console) -> int | None:
    """Return the width that tables on a console must fit; None if it is no terminal."""
    return console.width if console.is_terminal else None


def print_tables(console: Console, tables: Iterable[Table]) -> None:
    """Print tables at their own widths, whatever the width of the console."""
    for table in tables:
        console.print(table, crop=False)


def _table(
    title: str, columns: Sequence[Column], width: int | None, key_widths: Sequence[int] = ()
) -> Table:
    if width is None:
        widths = [column.full_width for column in columns]
    else:
        least = [column.least_width for column in columns[len(key_widths) :]]
        widths = _grown(columns, [*key_widths, *least], width)
    total = max(_total(widths), min(cell_len(title), width or cell_len(title)))
    table = Table(
        title=Text(title, style="table.title"),
        title_justify="left",
        width=total,  # keeps the title on one line if it fits the terminal
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for column, own in zip(columns, widths, strict=True):
        table.add_column(
            Text(column.heading), justify=column.justify, style=column.style, width=own
        )
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*map(Text, cells))
    return table


def _grown(columns: Sequence[Column], widths: Sequence[int], limit: int) -> list[int]:
    """Widen columns, from the left, up to their full widths and to a limit of the table."""
    grown = list(widths)
    for number, column in enumerate(columns):
        spare = max(0, limit - _total(grown))
        grown[number] += min(spare, max(0, column.full_width - grown[number]))
    return grown


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + _BETWEEN * len(widths) - 1 + _EDGES


def _longest(texts: Iterable[str]) -> int:
    return max(map(cell_len, texts), default=0)
