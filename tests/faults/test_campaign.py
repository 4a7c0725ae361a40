"""A few kills, failing writes and damaged files per command; ``make faults`` tries many."""

import pytest

from tests.faults.campaign import Campaign
from tests.faults.commands import commands
from tests.faults.lost_readers import SHARES, LostReaders, remote_dataset

pytestmark = pytest.mark.slow

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


@pytest.fixture(scope="module")
def remote(tmp_path_factory):
    pytest.importorskip("aiohttp")
    with remote_dataset(tmp_path_factory.mktemp("remote")) as remote:
        yield remote


@pytest.mark.parametrize("share", SHARES.values(), ids=SHARES)
def test_what_happens_to_readers_of_a_cache_does_not_change_what_others_read(
    remote, tmp_path, share
):
    readers = LostReaders(remote, tmp_path, seed=0, share=share)
    readers.kill(2)
    assert readers.tally.problems == []
