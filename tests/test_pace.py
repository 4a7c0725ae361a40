"""How many transfers run at the same time, on links that are simulated."""

import pytest

from iirc_data.shards.pace import AT_FIRST, Course, Pace

MB = 1 << 20
BLOCK = 4 * MB


class Simulated:
    """A link of a rate and a latency; each transfer may have a limit of its own."""

    def __init__(self, rate: float, latency: float, limit: float = float("inf")) -> None:
        self.now = 0.0
        self.pace = Pace(8, lambda: self.now)
        self.tick = min(0.05 * BLOCK / rate, latency / 10)
        self.rate, self.latency, self.limit = rate, latency, limit
        self.left: dict[Course, float] = {}
        self.reported: dict[Course, float] = {}
        self.most, self.idle = 0, 0.0

    def step(self) -> None:
        while self.pace.may_begin():
            course = self.pace.begin(BLOCK)
            course.requested()
            self.left[course] = self.reported[course] = float(BLOCK)
        self.most = max(self.most, len(self.left))
        self.now += self.tick
        bodies = [c for c in self.left if self.now >= c.started + self.latency]
        carried = 0.0
        for course in bodies:
            course.begins()
            size = min(self.left[course], self.tick * min(self.rate / len(bodies), self.limit))
            self.left[course] -= size
            carried += size
            while self.reported[course] - self.left[course] >= MB or (
                self.left[course] < 1 <= self.reported[course]
            ):
                part = min(float(MB), self.reported[course])
                self.reported[course] -= part
                course.received(int(part))
            if self.left[course] < 1:
                del self.left[course], self.reported[course]
                course.end(is_complete=True)
        self.idle += self.tick * (1 - min(1.0, carried / (self.tick * self.rate)))

    def run(self, seconds: float) -> None:
        self.most, self.idle, end = 0, 0.0, self.now + seconds
        while self.now < end:
            self.step()


def test_few_transfers_begin_before_anything_is_known():
    link = Simulated(1e6, 0.02)
    link.step()
    assert link.most == AT_FIRST


@pytest.mark.parametrize("rate", [10e6, 50e6])
def test_few_transfers_keep_a_slow_link_busy(rate):
    link = Simulated(rate, 0.02)
    link.run(40 * BLOCK / rate)  # it learns
    link.run(20 * BLOCK / rate)
    assert link.idle < 0.01 * 20 * BLOCK / rate
    assert link.most <= 4


def test_many_transfers_hide_the_latency_of_a_fast_link():
    link = Simulated(1e9, 0.05)
    link.run(3.0)
    assert link.most == 8


def test_more_transfers_run_where_the_server_limits_each():
    link = Simulated(400e6, 0.01, limit=25e6)
    link.run(10.0)
    assert link.most >= 7


def test_a_transfer_that_fails_counts_no_more_and_is_ended_once():
    pace = Pace(2, lambda: 0.0)
    woken: list[bool] = []
    pace.changed = lambda: woken.append(pace.may_begin())
    with pytest.raises(KeyError), pace.begin(10) as course:
        pace.begin(10)
        assert not pace.may_begin()
        raise KeyError
    course.end(is_complete=True)
    assert woken == [True]
