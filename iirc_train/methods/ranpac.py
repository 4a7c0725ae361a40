"""RanPAC: ridge regression on a random projection of the latents of a frozen network."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field

from iirc_train.buffer import RandomBuffer
from iirc_train.config.experiment import MAX_COUNT, MAX_FACTOR
from iirc_train.config.settings import Role
from iirc_train.methods.definite import ridge_weights
from iirc_train.methods.label_odds import LinearClassifier, Moments, label_odds
from iirc_train.methods.latent_statistics import CollectingMethod, StatisticsConfig
from iirc_train.methods.statistics import Statistics, latent_size

Buffer = RandomBuffer

POWERS = range(-8, 9)
"""Powers of ten to choose λ from."""

LEARNED = 0.8  # share of a task's samples that choose λ by the error on the others
AT_ONCE = 1024  # samples that are projected at a time


class Model(CollectingMethod):
    """Regresses the labels on ReLU features of a fixed random projection of the latents.

    McDonnell et al., "RanPAC: Random projections and pre-trained models for continual learning"
    (NeurIPS 2023), section 4, algorithm 1, without its training on the first task (phase 1). The
    state is the Gram matrix G of the features, and C, their sums by label; the weights are
    (G + λI)⁻¹C. λ is chosen at the end of each task: of weights fitted to the first 80 % of its
    samples, in the order in which they are shown, those with the smallest squared error on the
    other samples.

    In IIRC, the targets have several labels, and a score is the log-odds of a label, given that of
    the paper; see :func:`~iirc_train.methods.label_odds.label_odds`.

    The state is M² + M(C + D + 1) + C + 2 numbers of 8 bytes, for M features, C classes and latents
    of D values; within a task, its latents are kept too.
    """

    class Config(StatisticsConfig):
        """Settings of RanPAC."""

        ranpac_features: Annotated[
            Annotated[int, Field(ge=1, le=MAX_COUNT)] | None,
            Role.STATE,
            Field(
                description="Random features M; by default the paper's 10,000, and at most 16 per "
                "value of a latent"
            ),
        ] = None
        ranpac_ridge: Annotated[
            Annotated[float, Field(gt=0, le=MAX_FACTOR)] | None,
            Field(description="λ of the ridge regression; by default chosen for each task"),
        ] = None
        ranpac_scores: Annotated[
            Literal["linear", "cosine"],
            Field(description="'cosine' divides scores by the norms of both sides, as PILOT does"),
        ] = "linear"

    config: Config

    def _make_statistics(self) -> Statistics:
        d = latent_size(self.net)
        m = self.config.ranpac_features or min(10_000, 16 * d)
        of_latents = {"gram": (m, m), "projection": (d, m), "total": (m,), "n": (), "ridge": ()}
        of_classes = {"sums": (m,), "counts": ()}
        return Statistics((), of_classes, of_latents, dtype=self.statistics_dtype)

    def prepare_model_for_new_task(self, *args: Any, **kwargs: Any) -> None:
        """Start a task; draw the projection before the first one."""
        super().prepare_model_for_new_task(*args, **kwargs)
        if self.cur_task_id == 0:
            projection = self.statistics.of_latents("projection")
            generator = torch.Generator().manual_seed(torch.initial_seed())
            drawn = torch.randn(projection.shape, dtype=projection.dtype, generator=generator)
            projection.copy_(drawn)

    def _features(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the features of latents, float64 (N, M)."""
        return (latents.double() @ self.statistics.of_latents("projection")).relu_()

    def _absorb(self, latents: torch.Tensor, targets: torch.Tensor, first: int) -> None:
        of, of_classes = self.statistics.of_latents, self.statistics.of_classes
        targets = targets.double()
        gram, sums, total = of("gram"), of_classes("sums"), of("total")
        for features, rows in self._in_parts(latents[first:]):
            gram.addmm_(features.T, features)
            sums.addmm_(targets[first:][rows].T, features)
            total.add_(features.sum(dim=0))
        of("n").add_(len(latents) - first)
        of_classes("counts").add_(targets[first:].sum(dim=0))
        ridge = self.config.ranpac_ridge
        if ridge is not None:
            of("ridge").fill_(ridge)
        elif len(latents) > 1:
            of("ridge").copy_(self._best_ridge(latents, targets))

    def _in_parts(self, latents: torch.Tensor) -> Iterator[tuple[torch.Tensor, slice]]:
        """Iterate over the features of latents and their rows, some at a time."""
        for start in range(0, len(latents), AT_ONCE):
            rows = slice(start, start + AT_ONCE)
            yield self._features(latents[rows]), rows

    def _best_ridge(self, latents: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return λ: the power of ten with the smallest squared error on the last samples."""
        n_learned = max(1, int(len(latents) * LEARNED))
        m = len(self.statistics.of_latents("gram"))
        if n_learned <= m:
            features = self._features(latents[:n_learned])
            weights = weights_of_few(features, targets[:n_learned])
        else:
            gram, sums = targets.new_zeros(m, m), targets.new_zeros(targets.shape[1], m)
            for features, rows in self._in_parts(latents[:n_learned]):
                gram.addmm_(features.T, features)
                sums.addmm_(targets[:n_learned][rows].T, features)
            ridges = [targets.new_full((), 10.0**power) for power in POWERS]
            weights = torch.stack([ridge_weights(gram, sums, ridge) for ridge in ridges])
        errors = targets.new_zeros(len(POWERS))
        for features, rows in self._in_parts(latents[n_learned:]):
            errors += (features @ weights.mT - targets[n_learned:][rows]).square().sum(dim=(1, 2))
        ridge: torch.Tensor = 10.0 ** (errors.argmin().double() + POWERS[0])
        return ridge

    def _fit_to_statistics(self) -> None:
        of, of_classes = self.statistics.of_latents, self.statistics.of_classes
        gram, sums = of("gram"), of_classes("sums")
        weight = ridge_weights(gram, sums, torch.where(of("ridge") > 0, of("ridge"), 1))
        if self.predicts_several:
            moments = Moments(sums, of_classes("counts"), of("total"), of("n"), gram)
            self._classifier = label_odds(weight, moments)
        else:
            if self.config.ranpac_scores == "cosine":
                weight = F.normalize(weight, dim=1)
            lowest = torch.finfo(torch.float32).min / 2  # for a class without samples
            bias = torch.zeros_like(weight[:, 0]).masked_fill(of_classes("counts") == 0, lowest)
            self._classifier = LinearClassifier(weight, bias)

    def _scores(self, latents: torch.Tensor) -> torch.Tensor:
        features = self._features(latents)
        if self.config.ranpac_scores == "cosine" and not self.predicts_several:
            features = F.normalize(features, dim=1)
        return self._classifier(features)


def weights_of_few(features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the weights of the ridge regressions of all :data:`POWERS`, for few samples.

    One eigendecomposition, of the matrix of inner products between samples, serves all of them.

    Args:
        features: float64 (N, M), with N at most M.
        targets: float64 (N, classes).

    Returns:
        float64 (powers, classes, M).
    """
    values, vectors = torch.linalg.eigh(features @ features.T)
    has_part = values > len(values) * torch.finfo(values.dtype).eps * values[-1]
    right = vectors.T @ targets
    inverses = [torch.where(has_part, 1 / (values + 10.0**power), 0) for power in POWERS]
    weights: torch.Tensor = torch.stack([right.T * inverse for inverse in inverses]) @ vectors.T
    return weights.matmul(features)
