"""A finding about this machine, and how to find things out without failing."""

from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

from iirc_data.console import one_line

Status = Literal["ok", "warning", "broken"]


class Finding(NamedTuple):
    """One finding.

    Attributes:
        section: ``"versions"``, ``"devices"``, ``"decoders"``, ``"limits"`` or ``"variables"``.
        name: What was examined.
        value: What was found, in one line.
        status: ``"broken"`` if training with default settings cannot run; ``"warning"`` for what
            is slow, missing or unknown.
        remedy: What to do; empty if nothing is to be done.
    """

    section: str
    name: str
    value: str
    status: Status = "ok"
    remedy: str = ""


def guarded(
    section: str, name: str, gather: Callable[[], Iterable[Finding]], remedy: str = ""
) -> list[Finding]:
    """Gather findings; an error ends the gathering, and becomes the last finding.

    Args:
        section: Section of that finding.
        name: Name of that finding.
        gather: Returns or yields the findings.
        remedy: What to do about an error.
    """
    findings: list[Finding] = []
    try:
        for finding in gather():
            findings.append(finding)
    except Exception as error:  # broken installations and drivers raise many types
        reason = f"cannot be examined: {said(error)}"
        findings.append(Finding(section, name, reason, "warning", remedy))
    return findings


def said(error: BaseException) -> str:
    """Return the type and message of an error, in one line of limited length."""
    text = one_line(f"{type(error).__name__}: {error}")
    return text if len(text) <= 300 else f"{text[:299]}…"


def in_gib(n_bytes: float) -> str:
    """Return a number of bytes as text, in GiB."""
    return f"{n_bytes / 2**30:,.1f} GiB"
