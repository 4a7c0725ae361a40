"""FeCAM: the class with the smallest Mahalanobis distance, on the latents of a frozen network."""

from typing import Annotated, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator

from iirc_train.buffer import RandomBuffer
from iirc_train.config.experiment import MAX_FACTOR
from iirc_train.config.settings import Role
from iirc_train.methods.definite import definite_factor
from iirc_train.methods.latent_statistics import CollectingMethod, StatisticsConfig

Buffer = RandomBuffer


class Model(CollectingMethod):
    """Keeps a mean and a covariance per class, and predicts by the Mahalanobis distance.

    Goswami et al., "FeCAM: Exploiting the heterogeneity of class distributions in exemplar-free
    continual learning" (NeurIPS 2023), section 4: Tukey's transform of the latents (equation 9),
    shrinkage of the covariances (equation 7), their normalisation to correlations (equation 8), and
    distances between vectors of unit length (equation 6). As in the paper, Tukey's transform is
    left out where latents are negative, as those of a vision transformer are. A class is learned
    from the samples of one task.

    The method has only the loss ``ce``: a distance says which class is nearest, not whether a
    sample shows it, so IIRC is refused.

    The state is C(D² + D + 1) + 1 numbers of 4 bytes, for C classes and latents of D values: the
    Cholesky factor of each class's correlations, and its mean. Within a task, its latents are kept
    too.
    """

    class Config(StatisticsConfig):
        """Settings of FeCAM."""

        fecam_tukey: Annotated[
            float,
            Role.STATE,
            Field(gt=0, le=MAX_FACTOR, description="Exponent β of Tukey's transform; 1 for none"),
        ] = 0.5
        fecam_diagonal: Annotated[
            float,
            Field(
                gt=0,
                le=MAX_FACTOR,
                description="Shrinkage: mean variances added to the diagonal of a covariance",
            ),
        ] = 1.0
        fecam_off_diagonal: Annotated[
            float,
            Field(
                ge=0,
                le=MAX_FACTOR,
                description="Shrinkage: mean covariances added off the diagonal, at most as "
                "much as fecam_diagonal (the paper: 0 for a vision transformer)",
            ),
        ] = 1.0
        fecam_shrinkages: Annotated[
            int,
            Field(ge=1, le=10, description="Times that a covariance is shrunk (the authors: 2)"),
        ] = 1

        @model_validator(mode="after")
        def _stays_definite(self) -> Self:
            if self.fecam_off_diagonal > self.fecam_diagonal:
                raise ValueError(
                    f"fecam_off_diagonal {self.fecam_off_diagonal:g} above fecam_diagonal "
                    f"{self.fecam_diagonal:g} has no distance: lower it"
                )
            return self

    config: Config
    losses = ("ce",)
    class_statistics = {"means": ("D",), "factors": ("D", "D"), "counts": ()}  # noqa: RUF012
    latent_statistics = {"is_signed": ()}  # noqa: RUF012
    statistics_dtype = torch.float32

    def _absorb(self, latents: torch.Tensor, targets: torch.Tensor, first: int) -> None:
        of = self.statistics.of_classes
        is_signed = self.statistics.of_latents("is_signed")
        torch.maximum(is_signed, (latents.amin() < 0).float(), out=is_signed)
        latents, targets = latents.double(), targets.double()
        for number in range(self.n_old_classes, self.n_seen_classes):
            members, weight = members_of(latents, targets[:, number])
            transformed = self._transformed(members)
            count = weight.sum()
            mean = (weight @ members) / count.clamp(min=1)
            centred = transformed - (weight @ transformed) / count.clamp(min=1)
            covariance = (centred * weight.unsqueeze(1)).T @ centred / (count - 1).clamp(min=1)
            of("means")[number] = mean.float()
            of("factors")[number] = self._factor(covariance).float()
            of("counts")[number] = count.float()

    def _transformed(self, latents: torch.Tensor) -> torch.Tensor:
        """Return Tukey's transform of latents that are not negative, and others unchanged."""
        if self.config.fecam_tukey == 1:
            return latents
        transformed = latents.clamp(min=0).pow(self.config.fecam_tukey)
        return torch.where(self.statistics.of_latents("is_signed") > 0, latents, transformed)

    def _factor(self, covariance: torch.Tensor) -> torch.Tensor:
        """Return the Cholesky factor of the correlations of a covariance after shrinkage."""
        config = self.config
        for _ in range(config.fecam_shrinkages):
            covariance = shrunk(covariance, config.fecam_diagonal, config.fecam_off_diagonal)
        deviation = covariance.diagonal().sqrt()
        deviation = torch.where(deviation > 0, deviation, 1)
        correlations = covariance / torch.outer(deviation, deviation)
        correlations.diagonal().fill_(1)
        return definite_factor(correlations)

    def _scores(self, latents: torch.Tensor) -> torch.Tensor:
        of = self.statistics.of_classes
        vectors = F.normalize(self._transformed(latents), dim=1)
        means = F.normalize(self._transformed(of("means")), dim=1)
        distances = [
            torch.linalg.solve_triangular(factor, (vectors - mean).T, upper=False).square().sum(0)
            for mean, factor in zip(means, of("factors"), strict=True)
        ]
        lowest = torch.finfo(torch.float32).min
        return (-torch.stack(distances, dim=1)).masked_fill(of("counts") == 0, lowest)


def members_of(latents: torch.Tensor, member: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the latents of a class, and the weight of each.

    Selecting rows would wait for a GPU: there, all latents are returned, and others weigh 0.

    Args:
        latents: (N, D).
        member: 1 for samples of the class, 0 for others, (N,).
    """
    if latents.device.type != "cpu":
        return latents, member
    rows = member.nonzero().squeeze(1)
    return latents[rows], member[rows]


def shrunk(covariance: torch.Tensor, diagonal: float, off_diagonal: float) -> torch.Tensor:
    """Return a covariance plus multiples of its mean diagonal and its mean off-diagonal value.

    A negative mean off the diagonal counts as 0: added to the covariance of latents that sum to 0,
    as those after a layer normalisation do, it would leave the result singular.

    Args:
        covariance: (D, D).
        diagonal: Factor of what is added to the diagonal.
        off_diagonal: Factor of what is added elsewhere; at most ``diagonal``.
    """
    n = len(covariance)
    mean = covariance.diagonal().mean()
    others = (covariance.sum() - n * mean) / max(n * (n - 1), 1)
    added = (off_diagonal * others.clamp(min=0)).expand(n, n).clone()
    added.diagonal().copy_((diagonal * mean).expand(n))
    return covariance + added
