"""The checks of a decoder on a GPU, rehearsed on the CPU."""

import pytest
import torch

from benchmarks import gpu_checks
from benchmarks.gpu_checks import images_of_all_kinds, ordering_mismatches, pixel_differences
from iirc_data.loader import make_decoder

CPU = torch.device("cpu")


class Forgetful:
    """A decoder whose batches get other pixels if nobody waits: those of the batch before."""

    def __init__(self):
        self._decoder, self._passes = make_decoder("pillow", threads=2), 0

    def images(self, requests):
        self._passes += 1
        before = None
        for images in self._decoder.images(requests):
            yield images if self._passes == 1 or before is None else before
            before = images

    def close(self):
        self._decoder.close()


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(gpu_checks, "_BATCH_SIZE", 3)
    monkeypatch.setattr(gpu_checks, "_PHOTOGRAPHS", 4)
    monkeypatch.setattr(gpu_checks, "_CROP", 32)


@pytest.mark.parametrize("busy", [True, False])
def test_a_decoder_in_order_has_no_mismatches(busy):
    assert ordering_mismatches(lambda: make_decoder(threads=2), 5, busy, CPU) == 0


def test_a_decoder_that_mixes_batches_up_is_found():
    assert ordering_mismatches(Forgetful, 5, True, CPU) == 4


def test_pixels_on_the_cpu_are_pillows():
    pytest.importorskip("nvidia.dali")
    images = images_of_all_kinds(width=64)
    assert len(set(images.values())) == len(images) == 5
    found = pixel_differences(CPU, images)
    assert found.keys() == images.keys()
    assert max(found.values()) == (0.0, 0.0, 0)


def test_other_pixels_are_measured(monkeypatch):
    pytest.importorskip("nvidia.dali")

    class Brighter:
        def __init__(self, *args, **options):
            self._decoder = make_decoder("pillow", threads=1)
            self.close = self._decoder.close

        def images(self, requests):
            for images in self._decoder.images(requests):
                brighter = images.clone()
                brighter[0, 0, 0] ^= 1
                brighter[0, 0, 1, 0] ^= 8
                yield brighter

    monkeypatch.setattr(gpu_checks, "make_decoder", Brighter)
    data = images_of_all_kinds(width=40)["4:4:4"]
    (found,) = pixel_differences(CPU, {"it": data}).values()
    assert found.mean == pytest.approx(11 / (40 * 30 * 3))
    assert (found.p99, found.largest) == (0.0, 8)
