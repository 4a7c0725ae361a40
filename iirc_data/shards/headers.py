"""Comparing the sample table with the headers of the images."""

from pathlib import Path

from iirc_data.errors import SourceError
from iirc_data.shards.member_name import member_name
from iirc_data.shards.shard_file import ShardFile
from iirc_data.shards.table import IMAGE_MODES, SampleTable
from iirc_data.sources.images import ImageHeader, read_header


def header_problems(path: Path, table: SampleTable, rows: slice) -> list[str]:
    """Return the images whose height, width or mode differs from their rows.

    Args:
        path: The tar; its members must already match the rows in number, offset and size.
        table: The sample table.
        rows: The shard's rows.

    Returns:
        The first problem and the number of problems, in one text; empty if there is none.

    Raises:
        ShardError: The shard cannot be read.
    """
    shard = ShardFile(path)
    columns = (table.offset, table.size, table.height, table.width, table.mode)
    values = zip(*(column[rows].tolist() for column in columns), strict=True)
    problems = []
    for row, (offset, size, height, width, mode) in enumerate(values, rows.start):
        recorded = ImageHeader(height, width, IMAGE_MODES[mode])
        try:
            found = read_header(shard.read(offset, size).data, f"member at {offset}")
        except SourceError as error:
            problems.append(f"contains a non-image member: {error}")
            continue
        if found != recorded:
            name = member_name(lambda start, n: shard.read(start, n).tobytes(), offset)
            problems.append(
                f"contains {name!r} with {_text(found)}, but row {row} of the sample table "
                f"says {_text(recorded)}"
            )
    more = f" ({len(problems)} such images)" if len(problems) > 1 else ""
    return [problem + more for problem in problems[:1]]


def _text(header: ImageHeader) -> str:
    return f"height {header.height}, width {header.width}, mode {header.mode}"
