"""``python -m iirc_train.doctor.on_gpus``: a line of JSON for each finding about the GPUs."""

import json
import sys
from collections.abc import Iterator

import torch

from iirc_train.doctor.decoders import dali_on
from iirc_train.doctor.finding import Finding, guarded, in_gib, said
from iirc_train.doctor.gpus import CHECK_DRIVER


def visible_gpus() -> Iterator[Finding]:
    """Yield each GPU that torch sees, and whether torch computes and DALI decodes on it."""
    n = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not n:
        yield Finding(
            "devices",
            "GPUs that torch sees",
            "none",
            "warning",
            f"training runs on the CPU: install a driver for CUDA {torch.version.cuda} or newer"
            if torch.version.cuda
            else "training runs on the CPU: install a torch that was built for CUDA",
        )
    else:
        yield Finding("devices", "GPUs that torch sees", str(n))
    for number in range(n):
        yield from _one(number)


def _one(number: int) -> Iterator[Finding]:
    found = torch.cuda.get_device_properties(number)
    capability = f"{found.major}.{found.minor}"
    value = f"{found.name}, {in_gib(found.total_memory)}, compute capability {capability}"
    name = f"GPU {number}"
    yield Finding("devices", name, value)
    try:
        total = float(torch.ones(1000, device=f"cuda:{number}").sum())
    except RuntimeError as error:
        remedy = f"choose another GPU with CUDA_VISIBLE_DEVICES; {CHECK_DRIVER}"
        yield Finding("devices", f"{name}, torch", said(error), "broken", remedy)
        return
    if total != 1000:
        value = f"a sum of 1,000 ones is {total:g}"
        yield Finding("devices", f"{name}, torch", value, "broken", "replace the GPU")
        return
    yield Finding("devices", f"{name}, torch", "computes")
    yield dali_on(torch.device("cuda", number))


def _main() -> None:
    for finding in guarded("devices", "GPU", visible_gpus, CHECK_DRIVER):
        sys.stdout.write(json.dumps(finding) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _main()
