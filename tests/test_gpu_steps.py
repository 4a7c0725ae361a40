"""What only runs on a GPU, as far as a CPU can show it: its graphs, steps and hand-over."""

from contextlib import contextmanager
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from benchmarks.images import DrawnPhotographs
from iirc_data.augment import IMAGE_PRESETS, TRANSFORM_PRESETS, uniform
from iirc_data.augment.network_images import NetworkImages, preset_for
from iirc_data.errors import LoaderError
from iirc_data.loader import make_decoder, make_loader
from iirc_data.loader.decoder import DecodeRequest, with_number
from iirc_data.loader.make import needs_windows
from iirc_data.loader.pillow import PillowDecoder
from iirc_data.loader.window_probe import WindowDecoding
from iirc_data.sources.images import look_at
from iirc_train.config import ExperimentConfig
from iirc_train.training import components
from tests.test_loader import everything

pytest.importorskip("nvidia.dali")

from nvidia.dali import Pipeline, types

from iirc_data.loader import dali, dali_pipeline, single_decoder
from iirc_data.loader.dali_graph import Decoding, Steps, images_of

GPU = torch.device("cuda", 0)
WAYS = [True, False]
RESIZES = [None, "bilinear", "bicubic"]
WINDOWS = pytest.mark.parametrize("decodes_windows", WAYS, ids=["windows", "whole"])


def photographs():
    source = DrawnPhotographs(n_images=8, width=200)
    return [np.frombuffer(s.data, np.uint8) for s in source.samples("train", "photograph")]


def request_of(preset, training):
    encoded = photographs()
    looks = [look_at(image, "it") for image in encoded]
    sizes = np.array([(look.height, look.width) for look in looks], np.int32)
    preset = BICUBIC if preset == "bicubic" else TRANSFORM_PRESETS[preset]
    transform = preset.train if training else preset.evaluate
    random = uniform(0, 0, 0, len(encoded), transform.n_random)
    return DecodeRequest(encoded, transform.parameters(*sizes.T, random), "image {}".format)


TRANSFORMS = pytest.mark.parametrize(
    ("preset", "training"),
    [("imagenet", True), ("imagenet", False), ("cifar", True), ("bicubic", False)],
)
IMAGENET = IMAGE_PRESETS["imagenet"]
BICUBIC = preset_for(
    NetworkImages(224, 248, IMAGENET.mean, IMAGENET.std, "bicubic"), IMAGENET
).transforms


def assert_alike(found, expected):
    difference = (found.float() - expected.float()).abs()
    assert difference.mean() < 0.5
    assert difference.max() <= 4


# --- graphs -----------------------------------------------------------------------------------


def ending(steps):
    """Build a graph, without DALI's backend, and return where its images are."""
    pipeline = Pipeline(batch_size=4, num_threads=1, device_id=0)
    with pipeline:
        images = images_of(steps)
        pipeline.set_outputs(images)
    pipeline._build_graph()
    return images.device


@WINDOWS
def test_every_graph_for_a_gpu_ends_there(decodes_windows):
    """DALI checks names of arguments, and where operators run and read them."""
    for load, has_small_images in product([0.0, 0.65, 1.0], WAYS):
        decoding = Decoding("mixed", decodes_windows, load, has_small_images)
        for steps in product(WAYS, RESIZES, [None, (224, 200)], WAYS):
            assert ending(Steps(*steps, decoding)) == "gpu"
            assert ending(Steps(*steps, Decoding("cpu", decodes_windows))) == "cpu"


@pytest.mark.parametrize("option", [{"no_such_option": 1}, {"device": "gpu"}])
def test_a_graph_with_a_wrong_argument_is_found(option, monkeypatch):
    options = Decoding("mixed").options
    monkeypatch.setattr(Decoding, "options", property(lambda self: {**options, **option}))
    with pytest.raises((KeyError, ValueError, RuntimeError)):
        ending(Steps(True, "bilinear", None, False))


def test_small_images_take_little_memory_and_only_a_gpu_gets_its_options():
    on_gpu = Decoding("mixed", has_small_images=True).options
    assert on_gpu["device_memory_padding"] == on_gpu["host_memory_padding"] == 1 << 20
    assert "device_memory_padding" not in Decoding("mixed").options
    assert on_gpu["hw_decoder_load"] == 0.0
    assert on_gpu["affine"] is False
    assert on_gpu.keys() - Decoding().options.keys() == {
        "affine",
        "hw_decoder_load",
        "device_memory_padding",
        "host_memory_padding",
    }


# --- steps ------------------------------------------------------------------------------------


@WINDOWS
@TRANSFORMS
def test_the_steps_of_a_gpu_yield_the_images_of_the_cpu(preset, training, decodes_windows):
    request = request_of(preset, training)
    decoding = Decoding("cpu", decodes_windows)
    steps = Steps.of(request.augmentation, on_gpu=True, decoding=decoding)
    assert not steps.leaves_size
    pipeline = dali_pipeline.DaliPipeline(steps, 8, 2, torch.device("cpu"))
    pipeline.submit(request)
    with pipeline.outputs() as decoded:
        found = torch.from_dlpack(decoded.as_tensor()).clone()
    (expected,) = make_decoder("dali", threads=2).images([request])
    assert_alike(found, expected)


# --- hand-over --------------------------------------------------------------------------------


class Stream:
    cuda_stream = 0


class PretendedGpu:
    """A CPU that DaliDecoder takes for a GPU; the graph is the GPU's, on the CPU."""

    def __init__(self, monkeypatch):
        self.streams, self.steps, self.windows_work = [], [], True
        self.current, self.stream = None, Stream()
        build, share = dali_pipeline._build_pipeline, Pipeline.share_outputs
        cpu = torch.device("cpu")

        def built(steps, n, threads, device):
            assert device == GPU
            self.steps.append(steps)
            here = steps.decoding._replace(device="cpu")
            return build(steps._replace(decoding=here), n, threads, cpu)

        @contextmanager
        def chosen(device):
            before, self.current = self.current, device
            yield
            self.current = before

        def current_stream(device=None):
            assert device or self.current is not None, "the stream of another GPU"
            return self.stream

        def shared(pipeline, cuda_stream=None):
            self.streams.append(cuda_stream)
            return share(pipeline)

        def copied(decoded, device):
            assert device == GPU
            return dali_pipeline.copied_on_gpu(decoded, cpu)

        monkeypatch.setattr(dali_pipeline, "_build_pipeline", built)
        monkeypatch.setattr(torch.cuda, "device", chosen)
        monkeypatch.setattr(torch.cuda, "current_stream", current_stream)
        monkeypatch.setattr(Pipeline, "share_outputs", shared)
        for module in (dali, single_decoder):
            monkeypatch.setattr(module, "copied_on_gpu", copied)
        monkeypatch.setattr(
            dali,
            "window_decoding",
            lambda device, hw_decoder_load: WindowDecoding(self.windows_work, "pretended"),
        )


@pytest.fixture
def pretended(monkeypatch):
    return PretendedGpu(monkeypatch)


@TRANSFORMS
def test_batches_are_taken_in_the_current_stream(preset, training, pretended):
    request = request_of(preset, training)
    (expected,) = make_decoder("pillow", threads=2).images([request])
    decoder = dali.DaliDecoder(GPU, threads=2)
    for found in decoder.images([request] * 3):
        assert_alike(found, expected)
    assert len(pretended.streams) == 2 + 3  # the first run is discarded
    assert all(stream is pretended.stream for stream in pretended.streams)
    (steps,) = pretended.steps
    assert steps.decoding == Decoding("mixed")
    assert not steps.leaves_size


def test_whole_images_are_cut_where_windows_are_not_decoded(pretended):
    request = request_of("imagenet", training=True)
    (expected,) = make_decoder("pillow", threads=2).images([request])
    pretended.windows_work = False
    decoder = dali.DaliDecoder(GPU, threads=2, hw_decoder_load=0.5)
    with pytest.warns(UserWarning, match=r"cuda:0 does not decode windows .*pretended.* whole"):
        (found,) = decoder.images([request])
    assert_alike(found, expected)
    assert pretended.steps[0].decoding == Decoding("mixed", False, 0.5)
    assert decoder.resolved(has_windows=False) == {"hw_decoder_load": 0.5}
    assert decoder.resolved(has_windows=True) == {
        "hw_decoder_load": 0.5,
        "decoded_part": "whole image (pretended)",
    }


def test_windows_are_not_tried_where_nothing_needs_them(pretended, monkeypatch):
    monkeypatch.setattr(dali, "window_decoding", None)
    list(dali.DaliDecoder(GPU, threads=1).images([request_of("cifar", training=True)]))


def test_an_image_that_a_gpu_cannot_decode_is_named(pretended):
    request = request_of("imagenet", training=True)
    broken = [*request.encoded]
    broken[5] = np.frombuffer(b"\xff\xd8\xff\xe0 no image at all", np.uint8)
    decoder = dali.DaliDecoder(GPU, threads=1)
    with pytest.raises(LoaderError, match="image 5"):
        list(decoder.images([replace(request, encoded=broken)]))


def test_images_of_a_view_decide_about_memory(tiny_store, pretended):
    decoder = dali.DaliDecoder(GPU, threads=1)
    loader = make_loader(
        everything(tiny_store),
        tiny_store,
        transforms=TRANSFORM_PRESETS["cifar"],
        train=False,
        resident=False,
        decoder=decoder,
    )
    next(iter(loader))
    large = replace(request_of("cifar", True), most_pixels=1 << 17)
    list(decoder.images([large]))
    assert [steps.decoding.has_small_images for steps in pretended.steps] == [True, False]


# --- settings ---------------------------------------------------------------------------------


def test_a_gpu_without_a_number_is_the_current_one_from_then_on(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    assert with_number(torch.device("cuda")) == torch.device("cuda", 3)
    assert make_decoder("dali", "cuda")._device == torch.device("cuda", 3)
    monkeypatch.setattr(torch.cuda, "current_device", None)
    for name in ("cpu", "cuda:1"):
        assert with_number(torch.device(name)) == torch.device(name)


@pytest.mark.parametrize("decoder", ["dali", "pillow"])
@pytest.mark.parametrize("load", [-0.1, 1.5, float("nan")])
def test_a_load_is_a_fraction(decoder, load):
    with pytest.raises(ValueError, match="hw_decoder_load"):
        make_decoder(decoder, hw_decoder_load=load)


def test_a_run_hands_its_load_on_and_records_what_it_came_to(tiny_settings, monkeypatch):
    asked = []

    class OnGpu(PillowDecoder):
        def resolved(self, has_windows):
            return {"hw_decoder_load": 0.5, "has_windows": has_windows}

    def made(name, device, **options):
        asked.append(options)
        return OnGpu(threads=1)

    monkeypatch.setattr(components, "make_decoder", made)
    config = ExperimentConfig.parse(tiny_settings | {"hw_decoder_load": 0.5, "method": "finetune"})
    with components.Experiment(config) as experiment:
        assert experiment.resolved["hw_decoder_load"] == 0.5
        assert experiment.resolved["has_windows"] is False
    assert asked == [{"hw_decoder_load": 0.5}]
    assert "hw_decoder_load" in ExperimentConfig.free_settings()
    assert needs_windows(TRANSFORM_PRESETS["imagenet"].train)
    assert not needs_windows(TRANSFORM_PRESETS["imagenet"].evaluate)


def test_decoders_for_the_cpu_resolve_nothing():
    for name in ("dali", "pillow"):
        assert make_decoder(name, hw_decoder_load=0.5).resolved(has_windows=True) == {}


def test_the_first_image_is_a_photographs_kind_of_jpeg():
    look = look_at(dali_pipeline._blank_jpeg(16), "it")
    assert (look.height, look.width, look.is_plain) == (16, 16, True)
    assert types.RGB is Decoding("mixed").options["output_type"]
