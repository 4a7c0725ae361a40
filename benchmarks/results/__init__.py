"""Results of a benchmark: one JSON file for each benchmark and machine, and a table.

The JSON files that the programs write lie in this folder. ``python -m benchmarks.results FILE ...``
prints the tables of JSON files in Markdown.
"""

import datetime
import importlib.metadata
import os
import platform
import re
import tomllib
from pathlib import Path
from typing import Literal, Self

import torch
from PIL import features
from pydantic import BaseModel
from rich.table import Table

from iirc_data.files import write_json
from iirc_data.loader.decoder import default_threads

ROOT = Path(__file__).parents[2]
RESULTS_FOLDER = Path(__file__).parent

_PACKAGES = ("torch", "torchvision", "nvidia-dali-cuda130", "webdataset", "pillow", "numpy", "ffcv")
# "ours ÷ this": speed of our fastest loader divided by that of the row; "of limit": speed of the
# row divided by that of the fastest limit
_HEADINGS = ("", "images/s", "ours ÷ this", "of limit")

Setting = str | int | float | bool | None
Role = Literal["ours", "peer", "limit"]


class Speed(BaseModel):
    """The speed of a contender.

    Attributes:
        contender: Name of the contender.
        role: ``"ours"``, ``"peer"``, or ``"limit"`` for decoding alone.
        output: Name of its output; only contenders with the same output are compared.
        images_per_second: Images per second of each run; empty if it could not run.
        median: Median over runs; None if it could not run.
        note: The reason why it could not run.
    """

    contender: str
    role: Role
    output: str
    images_per_second: list[float] = []
    median: float | None = None
    note: str = ""


class Machine(BaseModel):
    """The machine that a benchmark ran on.

    Attributes:
        cpu: Name of the processor.
        cores: Number of processors available to the process.
        memory_gib: Memory in GiB.
        gpu: Name of the GPU that was used; None for no GPU.
    """

    cpu: str
    cores: int
    memory_gib: float
    gpu: str | None

    @classmethod
    def this(cls, device: torch.device) -> Self:
        """Describe this machine.

        Args:
            device: Device that received the images.
        """
        on_gpu = device.type == "cuda"
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        return cls(
            cpu=_cpu_name(),
            cores=default_threads(),
            memory_gib=round(memory, 1),
            gpu=torch.cuda.get_device_name(device) if on_gpu else None,
        )

    @property
    def slug(self) -> str:
        """Name for files: processor, number of processors and GPU, without the host name."""
        name = f"{self.cpu} {self.cores} cores {self.gpu or ''}"
        return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


class Result(BaseModel):
    """The result of a benchmark.

    Attributes:
        name: Name of the benchmark.
        date: Date and time, UTC.
        machine: The machine.
        versions: Versions of this package, of Python and of the compared packages.
        settings: Settings of the benchmark.
        speeds: Speed of each contender.
        figures: Other numbers, by name and unit.
    """

    name: str
    date: str
    machine: Machine
    versions: dict[str, str]
    settings: dict[str, Setting]
    speeds: list[Speed]
    figures: dict[str, float] = {}

    @classmethod
    def now(
        cls,
        name: str,
        device: torch.device,
        settings: dict[str, Setting],
        speeds: list[Speed],
        figures: dict[str, float] | None = None,
    ) -> Self:
        """Create a result with the current time and machine."""
        return cls(
            name=name,
            date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            machine=Machine.this(device),
            versions=versions(),
            settings={**settings, "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY")},
            speeds=speeds,
            figures=figures or {},
        )

    def write(self, folder: Path) -> Path:
        """Write ``<name>-<machine>.json``, atomically; return its path."""
        path = folder / f"{self.name}-{self.machine.slug}.json"
        write_json(path, self.model_dump())
        return path

    @property
    def title(self) -> str:
        """Name and machine."""
        gpu = f", {self.machine.gpu}" if self.machine.gpu else ""
        return f"{self.name} on {self.machine.cpu}, {self.machine.cores} cores{gpu} (medians)"

    def table(self) -> Table:
        """Return the table for a terminal."""
        table = Table(title=self.title)
        for number, heading in enumerate(_HEADINGS):
            table.add_column(heading, justify="right" if number else "left")
        for output, rows in self._rows().items():
            table.add_section()
            table.add_row(output, style="bold")
            for row in rows:
                table.add_row(*row)
        return table

    def markdown(self) -> str:
        """Return the table in Markdown, with settings and versions."""
        rows = [_HEADINGS, ("---", "---:", "---:", "---:")]
        for output, of_output in self._rows().items():
            rows += [(f"**{output}**", "", "", ""), *of_output]
        lines = [f"| {' | '.join(row)} |" for row in rows]
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        settings = ", ".join(f"{name}: {value}" for name, value in self.settings.items())
        figures = [f"- {name}: {value:,.2f}" for name, value in self.figures.items()]
        foot = f"{self.date[:10]}; {settings}; {versions}."
        return "\n".join([f"{self.title}:", "", *(lines if self.speeds else figures), "", foot])

    def _rows(self) -> dict[str, list[tuple[str, str, str, str]]]:
        """Return the rows of the table for each output."""
        rows: dict[str, list[tuple[str, str, str, str]]] = {}
        for speed in self.speeds:
            ratio = share = ""
            if speed.median is not None:
                ours = self._fastest("ours", speed.output)
                limit = self._fastest("limit", speed.output)
                if ours and speed.role == "peer":
                    ratio = f"{ours / speed.median:.2f}"
                if limit and speed.role != "limit":
                    share = f"{speed.median / limit:.2f}"
            found = speed.note if speed.median is None else f"{speed.median:,.0f}"
            rows.setdefault(speed.output, []).append((speed.contender, found, ratio, share))
        return rows

    def _fastest(self, role: Role, output: str) -> float | None:
        found = [s.median for s in self.speeds if (s.role, s.output) == (role, output) and s.median]
        return max(found, default=None)


def versions() -> dict[str, str]:
    """Return the versions of this package, of Python, and of the compared packages if installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = {project["name"]: project["version"], "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    libjpeg = features.version("libjpeg_turbo")
    return found | ({"libjpeg-turbo of pillow": libjpeg} if libjpeg else {})


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
