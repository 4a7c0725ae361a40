"""An output layer with a linear correction of the logits of each task's classes.

Wu et al., "Large scale incremental learning" (CVPR 2019), section 4.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn


class BiasCorrectedLinear(nn.Linear):
    """A linear layer that multiplies the logits of a task's classes by alpha, and adds beta.

    Only the alpha and beta that are being fitted are parameters; :meth:`fix` keeps them for the
    classes of their task. So a pass costs the same after any number of tasks.

    Args:
        layer: The layer to correct; its weight and bias become those of the new one.
        n_cla_per_tsk: Number of classes of each task.

    Attributes:
        alpha: Factor of the task of :meth:`begin`, (1,); initially 1.
        beta: Offset of that task, (1,); initially 0.
        fixed_alpha: Factors of the other classes, (classes,).
        fixed_beta: Offsets of the other classes, (classes,).
    """

    fixed_alpha: torch.Tensor
    fixed_beta: torch.Tensor
    is_current: torch.Tensor

    def __init__(self, layer: nn.Linear, n_cla_per_tsk: Sequence[int]) -> None:
        super().__init__(layer.in_features, layer.out_features, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        like = layer.weight.detach()
        self.alpha = nn.Parameter(like.new_ones(1), requires_grad=False)
        self.beta = nn.Parameter(like.new_zeros(1), requires_grad=False)
        n = layer.out_features
        self.register_buffer("fixed_alpha", like.new_ones(n))
        self.register_buffer("fixed_beta", like.new_zeros(n))
        self.register_buffer("is_current", torch.zeros(n, dtype=torch.bool, device=like.device))
        self._bounds = [sum(n_cla_per_tsk[:task]) for task in range(len(n_cla_per_tsk) + 1)]

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        """Return corrected logits (N, classes) of latents (N, D)."""
        logits = F.linear(latent, self.weight, self.bias)
        alpha = torch.where(self.is_current, self.alpha, self.fixed_alpha)
        beta = torch.where(self.is_current, self.beta, self.fixed_beta)
        return logits * alpha + beta

    def begin(self, task_id: int) -> None:
        """Start to fit the correction of a task's classes."""
        self.is_current[self._bounds[task_id] : self._bounds[task_id + 1]] = True
        self.alpha.requires_grad_(True)
        self.beta.requires_grad_(True)

    @torch.no_grad()
    def fix(self) -> None:
        """Keep the correction that was fitted."""
        for parameter, fixed, start in (
            (self.alpha, self.fixed_alpha, 1.0),
            (self.beta, self.fixed_beta, 0.0),
        ):
            fixed.copy_(torch.where(self.is_current, parameter, fixed))
            parameter.requires_grad_(False).fill_(start)
        self.is_current.fill_(False)
