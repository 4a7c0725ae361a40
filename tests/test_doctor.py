"""What ``iirc doctor`` finds, and that nothing broken makes it fail."""

import json
import os
import shutil
import sys
from collections import namedtuple
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
from typer.testing import CliRunner

from iirc_data.errors import LoaderError
from iirc_train.cli.app import app
from iirc_train.cli.doctor import report
from iirc_train.doctor import Finding, decoders, examination, examine, gpus, limits, software
from iirc_train.doctor.finding import Status, guarded
from iirc_train.doctor.processors import memory_limit, processor_quota
from iirc_train.doctor.variables import NAMES, judged

resource = pytest.importorskip("resource")


def doctor(*options: str):
    return CliRunner().invoke(app, ["doctor", *options], catch_exceptions=False)


def test_the_findings_are_printed_as_json_and_as_lines(monkeypatch):
    monkeypatch.setattr(gpus, "may_have_gpu", lambda: False)
    monkeypatch.setattr(decoders, "may_have_gpu", lambda: False)
    result = doctor("--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 0 and found["can_train"]
    by_name = {item["name"]: item for item in found["findings"]}
    assert {item["section"] for item in found["findings"]} == set(examination.EXAMINATIONS)
    assert {item["status"] for item in found["findings"]} <= set(get_args(Status))
    assert by_name["numpy"]["value"] == np.__version__
    for name in ("Pillow, JPEG", "Pillow, PNG", "DALI on the CPU"):
        assert by_name[name]["value"] == "works"

    monkeypatch.setattr("iirc_train.cli.doctor.examine", lambda: [Finding(**by_name["numpy"])])
    result = doctor()
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "versions:",
        f"  numpy  {np.__version__}",
        "training can run",
    ]


def test_lines_say_what_to_do_and_the_exit_status_whether_training_runs(monkeypatch):
    findings = [
        Finding("limits", "open files", "256", "warning", "raise it"),
        Finding("decoders", "Pillow, PNG", "no [bold]zlib", "broken", "reinstall it"),
    ]
    assert report(findings) == [
        "limits:",
        "! open files   256",
        "               → raise it",
        "decoders:",
        "x Pillow, PNG  no [bold]zlib",
        "               → reinstall it",
        "training cannot run (1 broken, x); 1 warning(s), !",
    ]
    monkeypatch.setattr("iirc_train.cli.doctor.examine", lambda: findings)
    result = doctor()
    assert result.exit_code == 1 and result.stdout.splitlines() == report(findings)
    monkeypatch.setattr("iirc_train.cli.doctor.examine", lambda: findings[:1])
    assert doctor().exit_code == 0


def test_no_examination_can_fail(monkeypatch):
    def broken(name):
        raise ImportError(f"no {name}\nhere")

    monkeypatch.setattr(examination, "import_module", broken)
    found = examine()
    assert len(found) == sum(map(len, examination.EXAMINATIONS.values()))
    for finding in found:
        assert finding.status == "warning"
        assert finding.value.startswith("cannot be examined: ImportError: no iirc_train.doctor.")
        assert "\n" not in finding.value


def test_what_was_found_before_an_error_is_kept():
    def gather():
        yield Finding("devices", "GPU 0", "there")
        raise RuntimeError("driver\nlost")

    first, last = guarded("devices", "GPU", gather, "restart")
    assert first.value == "there"
    assert last == Finding(
        "devices", "GPU", "cannot be examined: RuntimeError: driver lost", "warning", "restart"
    )


@pytest.mark.parametrize("name", ["torch", "torchvision"])
def test_a_package_that_cannot_be_imported_is_broken(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    found = {finding.name: finding for finding in software.libraries()}
    assert found[f"import {name}"].status == "broken"
    assert found[f"import {name}"].remedy


def test_dali_that_is_missing_is_a_warning_and_dali_that_fails_is_broken(monkeypatch):
    import torch

    cpu = torch.device("cpu")

    def fails(*_):
        raise LoaderError("DALI is installed but cannot be imported")

    monkeypatch.setattr("iirc_data.loader.make_decoder", fails)
    found = decoders.dali_on(cpu)
    assert found.status == "broken" and "cannot be imported" in found.value
    assert "pillow" in found.remedy
    for absent in (lambda _: None, _raise_not_found):
        monkeypatch.setattr(decoders, "find_spec", absent)
        found = decoders.dali_on(cpu)
        assert found.name == "DALI on the CPU"
        assert found.value.startswith("not installed")
        assert found.status == ("warning" if sys.platform == "linux" else "ok")


def _raise_not_found(name):
    raise ModuleNotFoundError(name)


def test_a_decoder_with_wrong_pixels_is_broken(monkeypatch):
    jpeg = decoders.small_image("JPEG")
    monkeypatch.setattr(decoders, "small_image", lambda _: jpeg)
    monkeypatch.setattr(decoders, "COLOUR", (255, 0, 0))
    found = [*decoders.pillow()][:2]
    assert [finding.status for finding in found] == ["broken", "broken"]
    assert "wrong pixels" in found[0].value


PRINTS = "import json; print(json.dumps(['devices', 'GPU 0', 'seen']), flush=True); print('noise')"


@pytest.mark.parametrize(
    ("end", "seconds", "said"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", 60, "ended by signal SIGSEGV"),
        ("sys.exit('out of luck')", 60, "ended with status 1: out of luck"),
        ("time.sleep(600)", 1, "no answer in 1 seconds"),
    ],
)
def test_a_driver_that_crashes_or_hangs_becomes_a_line(end, seconds, said):
    program = f"import os, signal, sys, time; {PRINTS}; {end}"
    *_, last = gpus.findings_of_process([sys.executable, "-S", "-c", program], seconds)
    assert (last.name, last.status) == ("GPU", "broken")
    assert said in last.value and last.remedy
    if seconds == 60:
        assert last.value.endswith("after 'GPU 0'")


@pytest.mark.parametrize(("works", "status"), [(True, "ok"), (False, "warning")])
def test_windows_are_tried_on_each_gpu_on_which_dali_works(monkeypatch, works, status):
    tried = []

    def window_decoding(device):
        tried.append(str(device))
        return works, "as tried"

    probe = SimpleNamespace(window_decoding=window_decoding)
    monkeypatch.setitem(sys.modules, "iirc_data.loader.window_probe", probe)
    monkeypatch.setattr(decoders, "may_have_gpu", lambda: True)
    monkeypatch.setattr(
        decoders,
        "examined",
        lambda: (
            Finding("decoders", "DALI on GPU 0", "works"),
            Finding("decoders", "DALI on GPU 1", "crashed", "broken"),
            Finding("devices", "GPU 2", "there"),
        ),
    )
    (found,) = decoders.windows()
    assert tried == ["cuda:0"]
    assert (found.name, found.status) == ("windows on GPU 0", status)
    assert "(as tried)" in found.value
    assert [finding.name for finding in decoders.dali()][1:] == ["DALI on GPU 0", "DALI on GPU 1"]


def test_a_machine_without_a_driver_has_a_line_and_starts_no_process(monkeypatch):
    monkeypatch.setattr(gpus, "_PLACES", ())
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(gpus, "findings_of_process", None)
    (found,) = gpus.gpus()
    assert found.value == "none: training runs on the CPU" and found.status == "ok"


@pytest.mark.parametrize(
    ("files", "processors", "memory"),
    [
        ({}, None, None),
        ({"cpu.max": "max 100000", "memory.max": "max"}, None, None),
        ({"cpu.max": "150000 100000\n", "memory.max": "1073741824\n"}, 1.5, 2**30),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None, None),
        (
            {
                "cpu/cpu.cfs_quota_us": "400000",
                "cpu/cpu.cfs_period_us": "100000",
                "memory/memory.limit_in_bytes": "1000",
            },
            4.0,
            1000,
        ),
    ],
)
def test_limits_of_a_container_are_read_from_both_kinds_of_control_group(
    tmp_path, files, processors, memory
):
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert processor_quota(tmp_path) == processors
    assert memory_limit(tmp_path) == memory


@pytest.mark.parametrize(
    ("environment", "warned"),
    [
        ({}, set()),
        ({"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "4"}, set()),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY"}),
        ({"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "5"}, {"OMP_NUM_THREADS"}),
        ({"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "1"}, {"OMP_NUM_THREADS"}),
        ({"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "1", "WORLD_SIZE": "4"}, set()),
        ({"OMP_WAIT_POLICY": "passive", "CUDA_VISIBLE_DEVICES": ""}, {"CUDA_VISIBLE_DEVICES"}),
        ({"OMP_WAIT_POLICY": "passive", "CUDA_VISIBLE_DEVICES": "1"}, set()),
        ({"OMP_WAIT_POLICY": "passive", "LOCAL_WORLD_SIZE": "4"}, {"LOCAL_WORLD_SIZE"}),
        ({"OMP_WAIT_POLICY": "passive", "LOCAL_WORLD_SIZE": "4", "RANK": "0"}, set()),
    ],
)
def test_variables_that_slow_a_run_down_are_warned_of(environment, warned):
    found = list(judged(environment, processors=4))
    assert {finding.name for finding in found if finding.status == "warning"} == warned
    assert all(bool(finding.remedy) == (finding.status == "warning") for finding in found)
    assert {finding.name for finding in found} == set(environment) <= set(NAMES)


def test_low_limits_are_warned_of(monkeypatch, tmp_path):
    usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2**26, 0, 2**20))
    monkeypatch.setattr(limits, "SHARED_MEMORY", tmp_path)
    monkeypatch.setenv("IIRC_CACHE", str(tmp_path / "not" / "made"))
    monkeypatch.setattr("iirc_data.locks.has_flock", lambda folder: False)
    found = [*limits.open_files(), *limits.shared_memory(), *limits.folders()]
    assert [finding.status for finding in found] == ["warning"] * 5
    assert all(finding.remedy for finding in found)
    assert "ulimit -n 4096" in found[0].remedy
    assert found[1].value.startswith("64 MiB")
    assert not any(tmp_path.iterdir())

    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "not writable" in [*limits.folders()][-1].value


def test_without_a_home_the_cache_is_a_line(monkeypatch):
    def homeless():
        raise RuntimeError("no home")

    monkeypatch.delenv("IIRC_CACHE", raising=False)
    monkeypatch.setattr("pathlib.Path.home", homeless)
    first, last = guarded("limits", "folders", limits.folders)
    assert first.name == "temporary folder"
    assert last.status == "warning" and "set IIRC_CACHE" in last.value
