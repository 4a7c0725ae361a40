"""A few kills, failing writes and damaged files per command; ``make faults`` tries many."""

import pytest

from tests.faults.campaign import Campaign
from tests.faults.commands import commands

SHORT = ("shard a folder", "shard CIFAR", "shard ILSVRC", "publish", "pull", "train icarl")


@pytest.fixture(scope="module")
def all_commands(tmp_path_factory):
    with commands(tmp_path_factory.mktemp("raw")) as found:
        yield found


@pytest.mark.parametrize("name", SHORT)
def test_what_happens_to_a_command_does_not_change_its_end(all_commands, tmp_path, name):
    campaign = Campaign(all_commands[name], tmp_path, seed=0)
    campaign.kill(2)
    campaign.fail(1)
    campaign.damage(1)
    assert campaign.tally.problems == []
    assert campaign.tally.kills >= 2
