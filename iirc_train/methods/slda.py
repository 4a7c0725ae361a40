"""SLDA: streaming linear discriminant analysis, on the latents of a frozen network."""

from typing import Annotated

import torch
from pydantic import Field

from iirc_train.buffer import RandomBuffer
from iirc_train.methods.definite import ridge_weights
from iirc_train.methods.label_odds import LinearClassifier, Moments, label_odds
from iirc_train.methods.latent_statistics import StatisticsConfig, StatisticsMethod

Buffer = RandomBuffer


class Model(StatisticsMethod):
    """Keeps a mean per class and a covariance that all classes share, updated sample by sample.

    Hayes and Kanan, "Lifelong machine learning with deep streaming linear discriminant analysis"
    (CVPR Workshops 2020), section 3, equations 1 to 4. Samples of a batch are learned together,
    with the result of learning them one after another, in their order. The paper estimates the
    covariance of its first classes at once, from all their samples; here it is streamed from the
    first sample on.

    In IIRC, a sample is centred by the mean of the means of its labels. Each label is discriminated
    from the mean of all samples, and a score is its log-odds; see
    :func:`~iirc_train.methods.label_odds.label_odds`.

    The state is C(D + 1) + D² + 1 numbers of 8 bytes, for C classes and latents of D values; in
    IIRC, D² + D more.
    """

    class Config(StatisticsConfig):
        """Settings of SLDA."""

        slda_shrinkage: Annotated[
            float,
            Field(gt=0, le=1, description="Weight of the identity in the covariance"),
        ] = 1e-4

    config: Config
    class_statistics = {"sums": ("D",), "counts": ()}  # noqa: RUF012
    latent_statistics = {"scatter": ("D", "D"), "n": ()}  # noqa: RUF012
    label_statistics = {"total": ("D",), "products": ("D", "D")}  # noqa: RUF012

    def _learn_latents(self, latents: torch.Tensor, targets: torch.Tensor) -> None:
        latents, targets = latents.double(), targets.double()
        of = self.statistics.of_latents
        sums, counts = self.statistics.of_classes("sums"), self.statistics.of_classes("counts")
        n = of("n")
        means = means_before(latents, targets, sums, counts)
        seen = n + torch.arange(len(latents), dtype=n.dtype, device=n.device)
        centred = latents - means
        of("scatter").addmm_((centred * (seen / (seen + 1)).unsqueeze(1)).T, centred)
        sums.addmm_(targets.T, latents)
        counts.add_(targets.sum(dim=0))
        if self.predicts_several:
            of("total").add_(latents.sum(dim=0))
            of("products").addmm_(latents.T, latents)
        n.add_(len(latents))

    def _fit(self) -> None:
        of, counts = self.statistics.of_latents, self.statistics.of_classes("counts")
        sums = self.statistics.of_classes("sums")
        means = sums / counts.clamp(min=1).unsqueeze(1)
        shrinkage = self.config.slda_shrinkage
        covariance = (1 - shrinkage) / of("n").clamp(min=1) * of("scatter")
        identity = covariance.new_full((), shrinkage)
        if self.predicts_several:
            differences = means - of("total") / of("n").clamp(min=1)
            weight = ridge_weights(covariance, differences, identity)
            moments = Moments(sums, counts, of("total"), of("n"), of("products"))
            self._classifier = label_odds(weight, moments)
        else:
            weight = ridge_weights(covariance, means, identity)
            bias = -(weight * means).sum(dim=1) / 2
            lowest = torch.finfo(torch.float32).min / 2  # for a class without samples
            self._classifier = LinearClassifier(weight, bias.masked_fill(counts == 0, lowest))

    def _scores(self, latents: torch.Tensor) -> torch.Tensor:
        return self._classifier(latents)


def means_before(
    latents: torch.Tensor, targets: torch.Tensor, sums: torch.Tensor, counts: torch.Tensor
) -> torch.Tensor:
    """Return the mean of each sample's class before it, in a batch that is learned in order.

    Args:
        latents: (N, D).
        targets: Indicator targets, (N, classes). For a sample with several labels, the mean is
            that of their means; without labels, it is 0.
        sums: Sum of the latents of each class before the batch, (classes, D).
        counts: Number of these latents, (classes,).

    Returns:
        (N, D); 0 for the first sample of a class.
    """
    before = counts + targets.cumsum(dim=0) - targets  # samples of each class, (N, classes)
    n_labels = targets.sum(dim=1, keepdim=True).clamp(min=1)
    share = targets / before.clamp(min=1) / n_labels
    return share @ sums + (share @ targets.T).tril(-1) @ latents
