"""Steps 7 and 8: loading photographs, and small images that are resident."""

import torch

from benchmarks import limits, peers
from benchmarks.acceptance.step import Situation
from benchmarks.acceptance.training import noise
from benchmarks.contenders import Contender, Workload, measure, ours
from benchmarks.images import DrawnPhotographs, opened
from iirc_data.shards import ShardStore

DECODING, OURS, PEER = "decoding alone", "ours", "DataLoader"
_THREADS = (8, 16)
_IMAGES = 4000  # per epoch: photographs are repeated
_EPOCHS = 3


def photographs(situation: Situation) -> None:
    """Report images per second of decoding alone, of our loader, and of a DataLoader."""
    threads = (1, 2) if situation.rehearse else _THREADS
    n_images = 32 if situation.rehearse else _IMAGES
    drawn = DrawnPhotographs(4, width=96) if situation.rehearse else DrawnPhotographs()
    with opened(situation.photographs, drawn, n_images, 4 * threads[-1]) as store:
        fastest: dict[str, float] = {}
        for number in threads:
            contenders = [
                Contender(DECODING, "limit", limits.dali),
                Contender(OURS, "ours", ours("dali")),
            ]
            if number == threads[-1]:
                contenders.append(Contender(PEER, "peer", peers.pillow))
            workload = _workload(situation, store, n_images, number)
            for speed in measure(workload, contenders, 1 if situation.rehearse else _EPOCHS):
                name = f"{speed.contender}, {number} threads (images/s)"
                situation.report(name, speed.note if speed.median is None else speed.median)
                known = fastest.get(speed.contender, 0.0)
                fastest[speed.contender] = max(known, speed.median or 0.0)
    situation.report(f"{DECODING}, fastest (images/s)", fastest[DECODING])
    for other in (DECODING, PEER):
        situation.report(f"{OURS} ÷ {other}", fastest[OURS] / max(fastest[other], 1e-9))


def resident(situation: Situation) -> None:
    """Report images per second of our loader on resident images of 32 x 32 pixels."""
    store = ShardStore.open(noise(situation))
    n_images = 50 if situation.rehearse else 50_000
    workload = Workload.of_size(
        store,
        n_images,
        preset="cifar",
        normalize=True,
        batch_size=128,
        workers=2 if situation.rehearse else _THREADS[-1],
        device=torch.device(situation.device),
    )
    contenders = [Contender(OURS, "ours", ours("auto", resident=True))]
    (speed,) = measure(workload, contenders, _EPOCHS)
    situation.report("resident (images/s)", speed.note if speed.median is None else speed.median)


def _workload(situation: Situation, store: ShardStore, n_images: int, threads: int) -> Workload:
    return Workload.of_size(
        store,
        n_images,
        preset="imagenet",
        normalize=True,
        batch_size=16 if situation.rehearse else 128,
        workers=threads,
        device=torch.device(situation.device),
    )
