"""How long a network waits for its batches, on made-up clocks."""

import pytest
import torch

from iirc_train.runtime.waiting import CPUClock, Waiting


class Device:
    """A made-up GPU that runs behind its host: it passes a mark when its work before it is done.

    Attributes:
        now: Time of the host.
        free: Time at which the device has done all the work that it was given.
    """

    def __init__(self):
        self.now = self.free = 0.0
        self.waits = 0

    def fetch(self, seconds):
        self.now += seconds

    def step(self, seconds):
        self.free = max(self.free, self.now) + seconds

    def mark(self):
        return max(self.free, self.now)

    def between(self, first, second):
        return second - first if second <= self.now else None

    def wait(self, mark):
        self.waits += 1
        self.now = max(self.now, mark)


def trained(device, fetching, steps):
    """Train on batches that take these seconds to fetch, with steps that take these seconds."""

    def batches():
        for seconds in fetching:
            device.fetch(seconds)
            yield seconds

    waiting = Waiting(device)
    for _, step in zip(waiting.each(batches()), steps, strict=True):
        device.step(step)
    return waiting.seconds()


@pytest.mark.parametrize(
    ("fetching", "steps", "waited"),
    [
        ([1, 1, 1], [5, 5, 5], 1),  # the network limits: only the first batch is waited for
        ([3, 3, 3], [1, 1, 1], 3 + 2 + 2),  # loading limits: the device idles between steps
        ([1, 4, 1], [3, 3, 3], 1 + 1),  # a slow batch is waited for once
        ([2, 2], [0, 0], 4),
        ([], [], 0),
    ],
)
def test_a_device_waits_only_while_it_has_no_step_to_compute(fetching, steps, waited):
    assert trained(Device(), fetching, steps) == waited


def test_the_host_waits_for_the_device_only_at_the_end():
    device = Device()
    trained(device, [1] * 100, [5] * 100)
    assert device.waits == 1


class Event:
    """A made-up event of torch: on a device that passes it when it is asked for the second time."""

    recorded = 0

    def __init__(self, enable_timing=False):
        self.is_timed = enable_timing
        self.asked = 0

    def record(self, stream):
        assert stream == "the stream of cuda:1"
        Event.recorded += 1
        self.milliseconds = 500 * Event.recorded

    def query(self):
        self.asked += 1
        return self.asked > 1

    def synchronize(self):
        self.asked += 1

    def elapsed_time(self, later):
        assert self.is_timed and later.is_timed and later.asked > 1
        return later.milliseconds - self.milliseconds


def test_on_a_gpu_events_in_its_stream_are_compared(monkeypatch):
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"the stream of {device}")
    waiting = Waiting.on(torch.device("cuda", 1))
    assert list(waiting.each("abc")) == ["a", "b", "c"]
    assert waiting.seconds() == pytest.approx(3 * 0.5)
    assert waiting.seconds() == pytest.approx(3 * 0.5)


def test_on_a_cpu_all_fetching_is_waiting_and_computing_is_not(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("iirc_train.runtime.waiting.time.perf_counter", lambda: now[0])

    def batches():
        for _ in range(3):
            now[0] += 2
            yield "batch"

    waiting = Waiting(CPUClock())
    for batch in waiting.each(batches()):
        assert batch == "batch"
        now[0] += 5
    assert waiting.seconds() == 6


def test_an_error_in_loading_passes_through():
    def batches():
        yield 1
        raise ValueError("an image is damaged")

    seen = []
    with pytest.raises(ValueError, match="an image is damaged"):
        for batch in Waiting(CPUClock()).each(batches()):
            seen.append(batch)
    assert seen == [1]
