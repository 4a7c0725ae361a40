"""``iirc doctor``: what is on this machine, and what to do about what is wrong or slow."""

import json
from itertools import groupby
from typing import Annotated

import typer

from iirc_data.console import plain_console
from iirc_train.doctor import Finding, examine
from iirc_train.runtime.lines import print_line

_MARKS = {"ok": " ", "warning": "!", "broken": "x"}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Examine this machine: versions, devices, decoders, limits, and what to do.

    The exit status is 1 if training with default settings cannot run, and 0 otherwise.
    """
    findings = examine()
    can_train = all(finding.status != "broken" for finding in findings)
    if as_json:
        listed = [finding._asdict() for finding in findings]
        typer.echo(json.dumps({"can_train": can_train, "findings": listed}, indent=1))
    else:
        console = plain_console()
        for line in report(findings):
            print_line(console, line)
    raise SystemExit(0 if can_train else 1)


def report(findings: list[Finding]) -> list[str]:
    """Return the findings as lines: one for each, and one for what to do about it."""
    lines = []
    width = max((len(finding.name) for finding in findings), default=0)
    for section, of_section in groupby(findings, lambda finding: finding.section):
        lines.append(f"{section}:")
        for finding in of_section:
            mark = _MARKS[finding.status]
            lines.append(f"{mark} {finding.name:{width}}  {finding.value}")
            if finding.remedy:
                lines.append(f"  {'':{width}}  → {finding.remedy}")
    broken = sum(finding.status == "broken" for finding in findings)
    warnings = sum(finding.status == "warning" for finding in findings)
    verdict = f"training cannot run ({broken} broken, x)" if broken else "training can run"
    return [*lines, f"{verdict}; {warnings} warning(s), !" if warnings else verdict]
