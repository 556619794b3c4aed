"""The linear model that LIME and KernelSHAP fit, in closed form.

Captum fits it by scikit-learn, whose checks exchange the warning filters of the whole process: two threads that fit
at once can leave the wrong ones for good.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from xfr_plugin.base.captum import Model

__all__ = ["LeastSquares"]


class LeastSquares(Model):  # type: ignore[misc]  # Captum is not typed
    """Weighted least squares with an intercept, which no penalty touches.

    Args:
        alpha: strength of the ridge; with 0 the smallest of all solutions is taken.

    Example:
        >>> model = LeastSquares()
        >>> model.fit(DataLoader(TensorDataset(features, scores, weights)))
        >>> model.representation().shape  # one coefficient a feature
        torch.Size([1, 50])
    """

    def __init__(self, alpha: float = 0.0) -> None:
        self.alpha = alpha
        self._coefficients = self._intercept = torch.empty(0, dtype=torch.float64)

    def fit(self, train_data: DataLoader[tuple[Tensor, ...]], **kwargs: object) -> None:
        """Fit features of shape (N, F) and values (N,) with weights (N,)."""
        features, values, weights = (torch.cat(part).double() for part in zip(*train_data, strict=True))
        weights = weights.to(features.device)  # Captum makes those of KernelSHAP on the CPU
        shares = (weights.flatten() / weights.sum())[:, None]
        middle, level = (shares * features).sum(0), (shares.flatten() * values.flatten()).sum()
        roots = weights.flatten().sqrt()[:, None]
        left, right = roots * (features - middle), roots * (values.flatten() - level)[:, None]
        ridge = self.alpha**0.5 * torch.eye(features.shape[1], dtype=left.dtype, device=left.device)
        left, right = torch.cat([left, ridge]), torch.cat([right, torch.zeros_like(ridge[:, :1])])
        self._coefficients = cast(Tensor, torch.linalg.pinv(left) @ right).T
        self._intercept = level - (self._coefficients * middle).sum()

    def representation(self) -> Tensor:
        """Coefficients, of shape (1, F)."""
        return self._coefficients

    def __call__(self, x: Tensor) -> Tensor:
        """Values (N, 1) of features (N, F)."""
        return x.double() @ self._coefficients.T + self._intercept
