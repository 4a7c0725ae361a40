"""SimpleCIL: the class mean with the highest cosine, on the latents of a frozen network."""

import torch
import torch.nn.functional as F

from iirc_train.buffer import RandomBuffer
from iirc_train.methods.label_odds import LinearClassifier, Moments, label_odds
from iirc_train.methods.latent_statistics import StatisticsMethod

Buffer = RandomBuffer


class Model(StatisticsMethod):
    """Predicts the class whose mean latent has the highest cosine with the sample's.

    Zhou et al., "Revisiting class-incremental learning with pre-trained models: generalizability
    and adaptivity are all you need" (2023), section 4.1.

    In IIRC, a score is the log-odds of a label, given the cosine with its mean; see
    :func:`~iirc_train.methods.label_odds.label_odds`.

    The state is C(2D + 1) numbers of 8 bytes, for C classes and latents of D values; in IIRC,
    D² + D + 1 more.
    """

    class_statistics = {"sums": ("D",), "unit_sums": ("D",), "counts": ()}  # noqa: RUF012
    label_statistics = {"unit_total": ("D",), "unit_products": ("D", "D"), "n": ()}  # noqa: RUF012

    def _learn_latents(self, latents: torch.Tensor, targets: torch.Tensor) -> None:
        latents, targets = latents.double(), targets.double()
        units = F.normalize(latents, dim=1)
        self.statistics.of_classes("sums").addmm_(targets.T, latents)
        self.statistics.of_classes("unit_sums").addmm_(targets.T, units)
        self.statistics.of_classes("counts").add_(targets.sum(dim=0))
        if self.predicts_several:
            self.statistics.of_latents("unit_total").add_(units.sum(dim=0))
            self.statistics.of_latents("unit_products").addmm_(units.T, units)
            self.statistics.of_latents("n").add_(len(latents))

    def _fit(self) -> None:
        of, counts = self.statistics.of_latents, self.statistics.of_classes("counts")
        weight = F.normalize(self.statistics.of_classes("sums"), dim=1)
        if self.predicts_several:
            sums = self.statistics.of_classes("unit_sums")
            moments = Moments(sums, counts, of("unit_total"), of("n"), of("unit_products"))
            self._classifier = label_odds(weight, moments)
        else:  # a class without samples has the lowest cosine
            self._classifier = LinearClassifier(weight, -(counts == 0).double())

    def _scores(self, latents: torch.Tensor) -> torch.Tensor:
        return self._classifier(F.normalize(latents.double(), dim=1))
