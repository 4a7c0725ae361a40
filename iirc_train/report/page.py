"""Writes a self-contained HTML page on runs, and its figures as files."""

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from iirc_data.files import write_atomically
from iirc_train.report.paper import paper_attribution
from iirc_train.report.runs import FoundRuns
from iirc_train.report.sections import FigureFolder, section_of

PAGE_NAME = "report.html"
FIGURES_NAME = "figures"


def write_report(found: FoundRuns, output: Path) -> Path:
    """Write a page on runs, and its figures as PNG and SVG.

    Args:
        found: The runs.
        output: Folder to write into; replaces the files of an earlier report.

    Returns:
        Path of the page.

    Raises:
        ConfigurationError: The timings, record or confusion counts of a run are damaged.
    """
    figures = FigureFolder(output / FIGURES_NAME)
    sections = [section_of(*item, figures) for item in found.by_benchmark().items()]
    environment = Environment(
        loader=PackageLoader("iirc_train.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    text = environment.get_template("page.html.j2").render(
        sections=sections,
        n_runs=len(found.runs),
        notes=found.notes(),
        attribution=paper_attribution(),
        figures_name=FIGURES_NAME,
    )
    page = output / PAGE_NAME
    with write_atomically(page) as file:
        file.write(text.encode(errors="backslashreplace"))  # paths need not be UTF-8
    return page
