"""Radial lens polynomials: how far they are monotone, and their inverse up to there."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

MAX_ITERATIONS = 60  # Newton needs about 5; 60 halvings of the bracket exhaust float64


def polynomial(x: Tensor, coefficients: Sequence[Tensor | float]) -> Tensor:
    """Horner's rule: c0 + c1 x + c2 x^2 + ..."""
    total = torch.zeros_like(x) + coefficients[-1]
    for c in reversed(coefficients[:-1]):
        total = total * x + c
    return total


def first_positive_root(coefficients: Tensor) -> Tensor:
    """The smallest s > 0 where 1 + c1 s + ... + cn s^n = 0, infinite if there is none: [..., n] -> [...].

    With w = 1 / s the polynomial is monic, w^n + c1 w^(n-1) + ... + cn, so vanishing coefficients do no harm; its
    largest positive root is an eigenvalue of the companion matrix.

    >>> first_positive_root(torch.tensor([[-3.0, 2.0], [0.0, 0.0]]))  # (1 - s) (1 - 2 s), and 1
    tensor([0.5000,    inf])
    """
    n = coefficients.shape[-1]
    companion = torch.zeros(*coefficients.shape[:-1], n, n, dtype=torch.float64, device=coefficients.device)
    companion[..., 0, :] = -coefficients.detach()
    companion[..., 1:, :-1] = torch.eye(n - 1, dtype=torch.float64, device=coefficients.device)
    w = torch.linalg.eigvals(companion)
    # A root that is real comes out with an imaginary part of rounding size; where two meet, of its square root.
    real = (w.imag.abs() <= 1e-7 * w.abs()) & (w.real > 0)
    largest = torch.where(real, w.real, 0.0).amax(-1)
    return (1 / largest).to(coefficients.dtype)


def invert_monotone(evaluate: Callable[[Tensor], tuple[Tensor, Tensor]], target: Tensor, upper: Tensor) -> Tensor:
    """x in [0, upper] with `evaluate(x)[0] == target`, by Newton's method kept inside a shrinking bracket.

    `evaluate` gives value and slope, increasing on [0, upper] and close to x for small x. A target beyond the value at
    `upper` ends there.
    """
    low, high = torch.zeros_like(target), upper.expand_as(target)
    x = torch.minimum(target, high)
    # Convergence is quadratic: after a step of relative size sqrt(eps) the next would be rounding.
    tolerance = torch.finfo(target.dtype).eps ** 0.5
    for _ in range(MAX_ITERATIONS):
        value, slope = evaluate(x)
        over = value > target
        high, low = torch.where(over, x, high), torch.where(over, low, x)
        newton = x - (value - target) / slope
        moved = torch.where((newton >= low) & (newton <= high), newton, 0.5 * (low + high))
        done = (moved - x).abs() <= tolerance * x
        x = moved
        if bool(done.all()):
            break
    return x
