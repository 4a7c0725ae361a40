"""KNN: the labels of the nearest samples, on the latents of a frozen network."""

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field

from iirc_train.buffer import RandomBuffer
from iirc_train.config.experiment import MAX_COUNT, MAX_FACTOR
from iirc_train.methods.latent_statistics import CollectingMethod, StatisticsConfig
from iirc_train.methods.statistics import Statistics

Buffer = RandomBuffer

AT_ONCE = 1 << 26
"""Cosines, and labels of neighbours, that are in memory at a time."""


class Model(CollectingMethod):
    """Keeps the latents of all samples, and lets those with the highest cosine vote.

    The vote of a neighbour weighs exp(cosine / T), as in Wu et al., "Unsupervised feature learning
    via non-parametric instance discrimination" (CVPR 2018), section 3.4; the default of 20
    neighbours is that of Caron et al., "Emerging properties in self-supervised vision transformers"
    (ICCV 2021), section 4.1. A score is a label's share of the votes; in IIRC, less 1/2: a label is
    predicted that more than half of the votes are for.

    The state is 4ND + NC bytes, for N samples, C classes of the benchmark and latents of D values:
    it grows with the samples, unlike that of the other methods on a frozen network.
    """

    class Config(StatisticsConfig):
        """Settings of KNN."""

        knn_neighbours: Annotated[
            int, Field(ge=1, le=MAX_COUNT, description="Number of neighbours that vote")
        ] = 20
        knn_temperature: Annotated[
            float,
            Field(gt=0, le=MAX_FACTOR, description="Temperature T of the weight exp(cosine / T)"),
        ] = 0.07

    config: Config

    def _make_statistics(self) -> Statistics:
        return Statistics(of_samples=("units", "labels"))

    def _absorb(self, latents: torch.Tensor, targets: torch.Tensor, first: int) -> None:
        n_later = sum(self.n_cla_per_tsk) - targets.shape[1]
        self.statistics.append("units", F.normalize(latents[first:], dim=1))
        self.statistics.append("labels", F.pad(targets[first:].bool(), (0, n_later)))

    def _scores(self, latents: torch.Tensor) -> torch.Tensor:
        units, labels = (self.statistics.of_samples(name) for name in ("units", "labels"))
        if units is None or labels is None:
            return latents.new_zeros(len(latents), self.n_seen_classes)
        k = min(self.config.knn_neighbours, len(units))
        shares = []
        numbers = max(len(units), k * self.n_seen_classes)  # per sample
        for part in torch.split(latents, max(1, AT_ONCE // numbers)):
            cosines, nearest = (F.normalize(part, dim=1) @ units.T).topk(k, dim=1)
            weight = (cosines / self.config.knn_temperature).softmax(dim=1)
            votes = labels[nearest][:, :, : self.n_seen_classes].to(weight.dtype)
            shares.append((weight.unsqueeze(1) @ votes).squeeze(1))
        share = torch.cat(shares)
        return share - 0.5 if self.predicts_several else share
