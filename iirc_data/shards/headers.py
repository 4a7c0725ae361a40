"""Comparing the sample table with what the images' own headers say."""

from pathlib import Path
from tarfile import BLOCKSIZE, TarInfo

from iirc_data.errors import SourceError
from iirc_data.shards.shard_file import ShardFile
from iirc_data.shards.table import IMAGE_MODES, SampleTable
from iirc_data.sources.images import ImageHeader, read_header


def header_problems(path: Path, table: SampleTable, rows: slice) -> list[str]:
    """Return where a shard's rows tell another height, width or mode than its images.

    Args:
        path: The tar; its members are known to be the rows.
        table: The sample table.
        rows: The shard's rows.

    Raises:
        ShardError: The shard cannot be read.
    """
    shard = ShardFile(path)
    columns = (table.offset, table.size, table.height, table.width, table.mode)
    values = zip(*(column[rows].tolist() for column in columns), strict=True)
    problems = []
    for row, (offset, size, height, width, mode) in enumerate(values, rows.start):
        told = ImageHeader(height, width, IMAGE_MODES[mode])
        try:
            found = read_header(shard.read(offset, size).data, f"member at {offset}")
        except SourceError as error:
            problems.append(f"holds what is no image: {error}")
            continue
        if found != told:
            block = shard.read(offset - BLOCKSIZE, BLOCKSIZE).tobytes()
            member = TarInfo.frombuf(block, "utf-8", "surrogateescape")
            problems.append(
                f"holds {member.name!r} with {_text(found)}, but row {row} of the sample table "
                f"says {_text(told)}"
            )
    more = f" ({len(problems)} such images)" if len(problems) > 1 else ""
    return [problem + more for problem in problems[:1]]


def _text(header: ImageHeader) -> str:
    return f"height {header.height}, width {header.width}, mode {header.mode}"
