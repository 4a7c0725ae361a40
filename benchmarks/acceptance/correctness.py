"""Steps 4 and 5: whether batches stay in order on a busy GPU, and whether its pixels are right."""

from functools import partial

import torch

from benchmarks.acceptance.software import LOADS
from benchmarks.acceptance.step import Situation
from benchmarks.gpu_checks import images_of_all_kinds, ordering_mismatches, pixel_differences
from iirc_data.loader import make_decoder

_BATCHES = 200


def ordering(situation: Situation) -> None:
    """Report how many batches change if nothing waits for the GPU, by share of the JPEG engine."""
    device = torch.device(situation.device)
    n_batches = 2 if situation.rehearse else _BATCHES
    for load in LOADS[:1] if situation.rehearse else LOADS:
        factory = partial(make_decoder, "dali", device, hw_decoder_load=load)
        for state, busy in (("idle", False), ("busy", True)):
            found = ordering_mismatches(factory, n_batches, busy, device)
            situation.report(f"mismatches, load {load:g}, {state}", found)


def pixels(situation: Situation) -> None:
    """Report how decoded pixels differ from Pillow's, for each kind of JPEG."""
    images = images_of_all_kinds(100) if situation.rehearse else images_of_all_kinds()
    for name, found in pixel_differences(torch.device(situation.device), images).items():
        situation.report(f"mean, {name}", found.mean)
        situation.report(f"99th percentile, {name}", found.p99)
        situation.report(f"largest, {name}", found.largest)
