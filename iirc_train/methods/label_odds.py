"""Several labels from linear scores: the log-odds of each label, from first and second moments."""

from typing import NamedTuple

import torch


class LinearClassifier(NamedTuple):
    """Scores that are linear in a sample's features.

    Attributes:
        weight: float64 (classes, features).
        bias: float64 (classes,).
    """

    weight: torch.Tensor
    bias: torch.Tensor

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """Return the scores of features (N, features), float64 (N, classes)."""
        return torch.addmm(self.bias, features.double(), self.weight.T)


class Moments(NamedTuple):
    """Moments of the features of the samples seen so far, all float64.

    Attributes:
        sums: Sum over the samples that show a label, (classes, features).
        counts: Number of these samples, (classes,).
        total: Sum over all samples, (features,).
        n: Number of all samples, ().
        products: Sum of the outer products of each sample's features, (features, features).
    """

    sums: torch.Tensor
    counts: torch.Tensor
    total: torch.Tensor
    n: torch.Tensor
    products: torch.Tensor


def label_odds(weight: torch.Tensor, moments: Moments) -> LinearClassifier:
    """Return the log-odds of each label, given its score.

    The scores of the samples that show a label, and of those that do not, are taken as two normal
    distributions with a common variance: linear discriminant analysis in one dimension (Hastie,
    Tibshirani and Friedman, "The elements of statistical learning", section 4.3), with the
    frequency of the label as prior. Their means and the variance are those over all samples seen so
    far, in closed form. A score of 0 is a probability of 1/2.

    Args:
        weight: Maps features to scores, float64 (classes, features).
        moments: Of the features.

    Returns:
        The log-odds, which are linear in the features. A label whose samples do not score higher
        than others has the log-odds of its frequency.
    """
    sums, counts, total, n, products = moments
    one = torch.ones_like(n)
    positives = counts.clamp(min=1)
    negatives = (n - counts).clamp(min=1)
    of_label = (weight * sums).sum(dim=1)
    with_label = of_label / positives
    without = (weight @ total - of_label) / negatives
    squares = ((weight @ products) * weight).sum(dim=1)
    spread = squares - counts * with_label.square() - (n - counts) * without.square()
    variance = spread / torch.maximum(n, one)
    floor = torch.finfo(weight.dtype).eps * squares.clamp(min=torch.finfo(weight.dtype).tiny)
    gain = ((with_label - without) / torch.maximum(variance, floor)).clamp(min=0)
    gain = torch.where((counts > 0) & (counts < n), gain, 0)
    prior = (counts + 0.5).log() - (n - counts + 0.5).log()
    return LinearClassifier(gain.unsqueeze(1) * weight, prior - gain * (with_label + without) / 2)
