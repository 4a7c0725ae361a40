"""A training step issues no more operations than budgeted: on a GPU, each is a launch."""

import pytest

from benchmarks.operations import PRECISIONS, STAGES, operations_of_steps
from iirc_train.methods import METHODS

# With ResNet-32, in the second task, with memory_strength and temperature at 1; a margin of some
# 1.5 % is for other versions of torch. `python -m benchmarks.operations` prints the counts.
BUDGETS = {
    "agem": {"fp32": 666, "bf16": 816},
    "der": {"fp32": 678, "bf16": 829},
    "der_plus_plus": {"fp32": 1057, "bf16": 1282},
    "er": {"fp32": 284, "bf16": 359},
    "finetune": {"fp32": 284, "bf16": 359},
    "icarl": {"fp32": 401, "bf16": 515},
    "icarl_cnn": {"fp32": 401, "bf16": 515},
    "icarl_norm": {"fp32": 485, "bf16": 596},
    "lucir": {"fp32": 538, "bf16": 649},
    "mask_seen_classes": {"fp32": 285, "bf16": 360},
}


@pytest.mark.parametrize("name", METHODS)
def test_a_step_stays_within_its_budget_of_operations(name):
    assert name in BUDGETS, f"enter what python -m benchmarks.operations {name} prints, plus 1.5 %"
    counted = operations_of_steps(name)
    assert list(counted) == list(PRECISIONS)
    for precision, operations in counted.items():
        stages = operations.by_stage()
        assert list(stages) == list(STAGES)
        assert min(stages["network"], stages["backward"]) > 100  # three per layer, of 32
        assert sum(stages.values()) <= BUDGETS[name][precision], stages
