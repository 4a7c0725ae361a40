"""Broken input of every kind gives a documented error or a correct result.

``FUZZ_CASES=10000 pytest tests/faults/test_fuzz.py`` is the long version (``make fuzz``); it
writes its counts to the file that ``FUZZ_REPORT`` names.
"""

import json
import os
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.faults import fuzz_targets
from tests.faults.limits import memory_limit, time_limit

CASES = int(os.environ.get("FUZZ_CASES", "60"))
REPORT = os.environ.get("FUZZ_REPORT")
LONGEST_CASE = 10.0  # seconds
MEMORY = 2 << 30  # bytes by which the process may grow


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory, tiny_store, tiny_benchmark):
    return fuzz_targets.Surroundings(tmp_path_factory.mktemp("fuzz"), tiny_store, tiny_benchmark)


@pytest.mark.parametrize("name", fuzz_targets.TARGETS)
def test_every_input_gives_a_documented_error_or_a_right_result(name, surroundings):
    target = fuzz_targets.TARGETS[name](surroundings)
    outcomes: Counter[str] = Counter()
    started = time.monotonic()

    @settings(
        max_examples=CASES,
        deadline=None,
        database=None,
        derandomize=CASES <= 1000,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(target.inputs)
    def run(value):
        with time_limit(LONGEST_CASE):
            try:
                target.use(value)
                outcomes["accepted"] += 1
            except target.documented:
                outcomes["refused"] += 1

    with memory_limit(MEMORY):
        run()
    assert outcomes["refused"], "no input was refused: the target reads nothing"
    if REPORT:
        line = {"target": name, **outcomes, "seconds": round(time.monotonic() - started, 1)}
        with Path(REPORT).open("a") as file:
            file.write(json.dumps(line) + "\n")
