"""Linear systems of covariances, positive definite in spite of rounding errors."""

import torch


def ridge_weights(gram: torch.Tensor, sums: torch.Tensor, ridge: torch.Tensor) -> torch.Tensor:
    """Return the weights of a ridge regression.

    Args:
        gram: Sum of the outer products of the samples' features, float64 (M, M).
        sums: Sum of the features by label, float64 (classes, M).
        ridge: λ, (). A λ below the rounding errors of ``gram`` is raised to them.

    Returns:
        float64 (classes, M).
    """
    regularized = gram.clone()
    regularized.diagonal().add_(torch.maximum(ridge, _rounding(gram, gram.dtype)))
    factor, _ = torch.linalg.cholesky_ex(regularized)
    weights: torch.Tensor = torch.cholesky_solve(sums.T, factor).T
    return weights


def definite_factor(matrix: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return the Cholesky factor of a symmetric matrix.

    If the matrix is singular up to rounding errors, such as the covariance of equal latents, their
    bound is added to its diagonal first.

    Args:
        matrix: Positive semidefinite up to rounding, float64 (D, D).
        dtype: Type in which the factor is used, whose rounding errors count.

    Returns:
        Lower triangular, float64 (D, D).
    """
    factor: torch.Tensor
    factor, info = torch.linalg.cholesky_ex(matrix)
    least = _rounding(matrix, dtype)
    is_singular = (info > 0) | (factor.diagonal().square().amin() < least)
    if matrix.device.type == "cpu" and not is_singular:  # a GPU would wait for the answer
        return factor
    raised = matrix.clone()
    raised.diagonal().add_(torch.where(is_singular, least, 0))
    factor, _ = torch.linalg.cholesky_ex(raised)
    return factor


def _rounding(matrix: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return a bound of the rounding errors of a positive semidefinite matrix's eigenvalues, ()."""
    return len(matrix) * torch.finfo(dtype).eps * matrix.diagonal().amax()
