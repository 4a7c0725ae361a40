"""The table of steps, the most important first: they run in this order.

Bounds come from a review of the code and from the goals of the project; see docs/performance.md.
Those marked as estimates were calculated, not measured.
"""

from benchmarks.acceptance.step import Expectation as Expect
from benchmarks.acceptance.step import Step

_HERE = "benchmarks.acceptance"
_EXTRAPOLATED = "with 140 epochs per task (min)"

STEPS = (
    Step(
        1,
        "versions",
        20,
        f"{_HERE}.software:versions",
        (Expect("DALI decodes a small JPEG", least=1), Expect("broken", most=0)),
    ),
    Step(
        2,
        "windows",
        40,
        f"{_HERE}.software:windows",
        (Expect("windows are decoded, load *", least=1),),
    ),
    Step(
        4,
        "ordering",
        60,
        f"{_HERE}.correctness:ordering",
        (
            Expect("mismatches, load 0, *", most=0),
            # shown only: default settings leave the JPEG engine alone
            Expect("mismatches, load 0.65, *", most=0, is_estimate=True),
            Expect("mismatches, load 1, *", most=0, is_estimate=True),
        ),
    ),
    Step(
        6,
        "training-step",
        120,
        f"{_HERE}.training:training_step",
        (
            Expect("works: *", least=1),
            Expect("eager TF32 (ms)", 2.8, 4.9, is_estimate=True),
            Expect("eager bfloat16 (ms)", 3.6, 6.2, is_estimate=True),
            Expect("graph * (ms)", 1.5, 2.5, is_estimate=True),
            Expect("fastest (ms)", most=4.9, only_on_gpu=True),
        ),
    ),
    Step(
        3,
        "tests",
        60,
        f"{_HERE}.software:tests",
        (
            Expect("*: exit status", most=0),
            Expect("*: failed", most=0),
            Expect("*: passed", least=1, only_on_gpu=True),
        ),
    ),
    Step(
        5,
        "pixels",
        30,
        f"{_HERE}.correctness:pixels",
        (Expect("mean, *", most=1), Expect("99th percentile, *", most=6)),
    ),
    Step(
        9,
        "run",
        60,
        f"{_HERE}.training:short_run",
        (
            Expect("slowest commit (s)", most=1, only_on_gpu=True),
            Expect("replayed share", least=0.01),
            Expect(_EXTRAPOLATED, most=10, only_on_gpu=True),
        ),
    ),
    Step(
        7,
        "photographs",
        90,
        f"{_HERE}.loading:photographs",
        (
            Expect("decoding alone, fastest (images/s)", 6_000, 16_000, is_estimate=True),
            Expect("ours ÷ decoding alone", least=0.8, only_on_gpu=True),
            Expect("ours ÷ DataLoader", least=2, only_on_gpu=True),
        ),
    ),
    Step(
        8,
        "resident",
        30,
        f"{_HERE}.loading:resident",
        (Expect("resident (images/s)", least=1_000_000, only_on_gpu=True),),
    ),
    Step(
        10,
        "long-run",
        600,
        f"{_HERE}.training:long_run",
        (Expect(_EXTRAPOLATED, most=10, only_on_gpu=True),),
    ),
)
