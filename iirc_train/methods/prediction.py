"""Prediction: images to scores, scores to labels."""

from abc import abstractmethod

import torch

from iirc_train.config.experiment import MethodConfig
from iirc_train.methods.decisions import highest, threshold
from iirc_train.methods.forward_passes import Networks


class Predictor(Networks):
    """Predicts labels of images: :meth:`scores`, then :meth:`decide`."""

    config: MethodConfig

    @property
    @abstractmethod
    def n_seen_classes(self) -> int:
        """Number of classes of the tasks up to the current one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Predict the labels of images.

        Args:
            x: Images (N, 3, H, W).

        Returns:
            bool (N, classes seen).
        """
        scores = self.scores(x)
        return self._verified(self.decide(scores), scores)

    def scores(self, x: torch.Tensor) -> torch.Tensor:
        """Return a score for each label, higher for a more likely label. By default, logits.

        Args:
            x: Images (N, 3, H, W).

        Returns:
            float (N, classes seen).
        """
        output, _ = self.forward_net(x)
        return output[:, : self.n_seen_classes]

    def decide(self, scores: torch.Tensor) -> torch.Tensor:
        """Predict labels from :meth:`scores`.

        Returns:
            bool (N, classes seen).
        """
        return self._predict(scores)

    def _predict(self, output: torch.Tensor) -> torch.Tensor:
        """Predict labels from logits, in training steps as well, by the setting ``decision``."""
        return highest(output) if self.config.decision == "argmax" else threshold(output)

    def scores_and_predictions(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the scores and predictions of images from a single pass through the network.

        Methods written for the published package override :meth:`forward`. It is called for their
        predictions, in a second pass.
        """
        scores, predictions = self._scores_and_decisions(x)
        return scores, self._verified(predictions, scores)

    def _scores_and_decisions(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the scores and predictions of images, without :meth:`_verified`."""
        scores = self.scores(x)
        overrides_forward = type(self).forward is not Predictor.forward
        return scores, self(x) if overrides_forward else self.decide(scores)

    def _verified(self, predictions: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return what is predicted in the end; by default, what was decided.

        Args:
            predictions: bool (N, classes seen).
            scores: float (N, classes seen).
        """
        return predictions
