"""Losses of a batch in which replayed samples have a weight."""

import torch
import torch.nn.functional as F

from iirc_train.config.experiment import MethodConfig


class WeightedLosses:
    """Binary cross-entropy and cross-entropy, with replayed samples weighted by a setting."""

    config: MethodConfig

    def _weight(self, in_buffer: torch.Tensor) -> torch.Tensor | None:
        """Return :meth:`_sample_weight`; None if every sample weighs 1."""
        is_weighted = type(self)._sample_weight is not WeightedLosses._sample_weight
        if is_weighted or self.config.memory_strength != 1:
            return self._sample_weight(in_buffer)
        return None

    def _sample_weight(self, in_buffer: torch.Tensor) -> torch.Tensor:
        """Return the weight of each sample in the loss, (N,): ``memory_strength`` for replayed."""
        weight = torch.ones(len(in_buffer), device=in_buffer.device)
        return weight.masked_fill_(in_buffer, self.config.memory_strength)

    def _classification_loss(
        self,
        logits: torch.Tensor,
        targets: torch.Tensor,
        in_buffer: torch.Tensor,
        temperature: float | None = None,
    ) -> torch.Tensor:
        """Return :meth:`_bce` or :meth:`_ce`, whichever the setting ``loss`` asks for."""
        loss = self._ce if self.config.loss == "ce" else self._bce
        return loss(logits, targets, in_buffer, temperature)

    def _ce(
        self,
        logits: torch.Tensor,
        targets: torch.Tensor,
        in_buffer: torch.Tensor,
        temperature: float | None = None,
    ) -> torch.Tensor:
        """Return the cross-entropy; replayed samples are weighted by ``memory_strength``.

        Args:
            logits: (N, classes).
            targets: Probability of each class, or 1 for the label, (N, classes).
            in_buffer: bool (N,), True for replayed samples.
            temperature: Divides the logits; by default the ``temperature`` setting.

        Returns:
            Mean over samples; a sample without a target counts as 0.
        """
        logits = self._divided(logits, temperature)
        return self._mean(F.cross_entropy(logits, targets, reduction="none"), in_buffer)

    def _mean(self, losses: torch.Tensor, in_buffer: torch.Tensor) -> torch.Tensor:
        """Return the mean of the samples' losses (N,), replayed ones weighted as in the loss."""
        weight = self._weight(in_buffer)
        return losses.mean() if weight is None else (weight * losses).mean()

    def _bce(
        self,
        logits: torch.Tensor,
        targets: torch.Tensor,
        in_buffer: torch.Tensor,
        temperature: float | None = None,
    ) -> torch.Tensor:
        """Return the binary cross-entropy; replayed samples are weighted by ``memory_strength``.

        Args:
            logits: (N, classes).
            targets: In [0, 1], (N, classes).
            in_buffer: bool (N,), True for replayed samples.
            temperature: Divides the logits; by default the ``temperature`` setting.

        Returns:
            Mean over samples and classes.
        """
        logits = self._divided(logits, temperature)
        weight = self._weight(in_buffer)
        if weight is not None:
            weight = weight.unsqueeze(1)
        return F.binary_cross_entropy_with_logits(logits, targets, weight=weight)

    def _divided(self, logits: torch.Tensor, temperature: float | None) -> torch.Tensor:
        """Divide logits by a temperature; the result is contiguous, which fixes the order of sums.

        Args:
            logits: (N, classes).
            temperature: None for the ``temperature`` setting.
        """
        temperature = self.config.temperature if temperature is None else temperature
        return logits.contiguous() if temperature == 1 else logits / temperature
