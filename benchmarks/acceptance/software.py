"""Steps 1 to 3: what is installed, whether windows are decoded, and the tests that need a GPU."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.acceptance.step import Situation

ROOT = Path(__file__).parents[2]
LOADS = (0.0, 0.65, 1.0)
"""Shares of a batch for the GPU's JPEG engine: none, DALI's default, all."""
_LOADER_TEST = "images_stay_with_their_samples"


def versions(situation: Situation) -> None:
    """Report what ``iirc doctor`` finds, and the output of ``nvidia-smi``."""
    started = time.perf_counter()
    from iirc_train.doctor import examine

    findings = examine()
    situation.report("examination (s)", time.perf_counter() - started)
    for section in ("versions", "devices"):
        found = [f"{item.name} {item.value}" for item in findings if item.section == section]
        situation.report(section, "; ".join(found))
    name = "DALI on the CPU" if situation.rehearse else "DALI on GPU 0"
    decodes = any(item.name == name and item.value == "works" for item in findings)
    situation.report("DALI decodes a small JPEG", decodes)
    wrong = [item for item in findings if item.status == "broken"]
    situation.report("broken", len(wrong))
    for item in wrong:
        situation.report(f"broken: {item.name}", f"{item.value}; {item.remedy}")
    if not situation.rehearse:
        subprocess.run(["nvidia-smi"], check=False)  # into the log


def windows(situation: Situation) -> None:
    """Report whether windows of images are decoded, for each share of the JPEG engine."""
    import torch

    from iirc_data.loader.window_probe import window_decoding

    device = torch.device(situation.device)
    for load in LOADS:
        found = window_decoding(device, again=True, hw_decoder_load=load)
        situation.report(f"windows are decoded, load {load:g}", found.works)
        situation.report(f"reason, load {load:g}", found.reason)


def tests(situation: Situation) -> None:
    """Run the tests that need a GPU, that of the loader's order first and by itself."""
    files = list(_files_with_gpu_tests())
    groups = {"test of the loader": _LOADER_TEST, "other tests": f"not {_LOADER_TEST}"}
    if situation.rehearse:  # all are skipped: collect them once
        groups = {"all tests": ""}
    for group, chosen in groups.items():
        report = situation.out / f"{group.replace(' ', '-')}.xml"
        report.unlink(missing_ok=True)
        options = ["-m", "gpu", "-k", chosen, "-q", "-p", "no:cacheprovider"]
        command = [sys.executable, "-m", "pytest", *options, f"--junitxml={report}", *files]
        status = subprocess.run(command, cwd=ROOT, check=False).returncode
        situation.report(f"{group}: exit status", status)
        for name, number in _counts(report).items():
            situation.report(f"{group}: {name}", number)


def _files_with_gpu_tests() -> Iterator[str]:
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        if "pytest.mark.gpu" in path.read_text(encoding="utf-8"):
            yield str(path)


def _counts(report: Path) -> dict[str, int]:
    """Return how many tests passed, failed and were skipped; empty if pytest died."""
    if not report.exists():
        return {}
    suite = ElementTree.parse(report).getroot().find("testsuite")
    if suite is None:
        return {}
    number = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    failed = number["failures"] + number["errors"]
    passed = number["tests"] - failed - number["skipped"]
    return {"passed": passed, "failed": failed, "skipped": number["skipped"]}
