"""Nonlinear least squares: robust, batched Levenberg-Marquardt on Jacobians by autograd.

Minimizes F(x) = 1/2 sum_n rho(|r_n(x)|^2) over named tensors. Each observation n has a few residuals (two for a pixel),
and a kernel rho, the identity unless asked otherwise, tames those that are far off.

Where the observations come in blocks (views), parameters are either shared or belong to one block. Then the normal
matrix has the shape of an arrow: blocks along the diagonal, bordered by the shared rows. The blocks are eliminated
first (the Schur complement; Triggs et al. 2000, "Bundle adjustment: a modern synthesis", section 6), so that the cost
grows linearly with their number.

Damping: Marquardt's, in units of the columns' lengths (never shrinking, Moré 1978), controlled by the gain ratio as in
Nielsen 1999, "Damping parameter in Marquardt's method". Kernels: iteratively reweighted normal equations, which stay
positive where Triggs' second-order correction would not.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from .checks import check_finite, check_tensor, shape_of

Named: TypeAlias = dict[str, Tensor]
Residuals: TypeAlias = Callable[[Named], Tensor]

FIRST_DAMPING = 1e-3  # of the scaled diagonal: starts are decent, and a bad one costs a few steps
LARGEST_DAMPING = 1e20  # steps are far below rounding then
PARTICIPATES = 0.05  # of the largest entry of a null vector, in units of the columns' lengths: belongs to it


class Kernel(Protocol):
    """rho of the squared length s of an observation's residuals, with rho(s) = s to first order at 0."""

    def __call__(self, squared: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """rho, its first and its second derivative, all shaped like `squared`."""


def _check_scale(scale: float) -> None:
    if not 0 < scale < math.inf:
        raise ValueError(f"scale must be a length of residuals above 0; got {scale}")


@dataclass(frozen=True)
class Huber:
    """Quadratic up to `scale`, linear beyond: convex, for outliers that are few or near.

    >>> Huber(2.0)(torch.tensor([1.0, 16.0]))[:2]  # 16 counts as 2 * 2 * 4 - 4
    (tensor([ 1., 12.]), tensor([1.0000, 0.5000]))
    """

    scale: float

    def __post_init__(self) -> None:
        _check_scale(self.scale)

    def __call__(self, squared: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        k2 = self.scale * self.scale
        inside = squared <= k2
        far = torch.where(inside, k2, squared)  # no division by zero in the branch that is not taken
        root = far.sqrt()
        value = torch.where(inside, squared, 2 * self.scale * root - k2)
        return value, self.scale / root, torch.where(inside, 0.0, -0.5 * self.scale / (root * far))


@dataclass(frozen=True)
class Cauchy:
    """scale^2 log(1 + s / scale^2): outliers lose their influence; not convex, so wants a decent start.

    >>> Cauchy(1.0)(torch.tensor([0.0, 1.0]))[1]
    tensor([1.0000, 0.5000])
    """

    scale: float

    def __post_init__(self) -> None:
        _check_scale(self.scale)

    def __call__(self, squared: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        c2 = self.scale * self.scale
        weight = 1 / (1 + squared / c2)
        return c2 * torch.log1p(squared / c2), weight, -weight * weight / c2


@dataclass(frozen=True, eq=False)
class Solution:
    """Where a minimization ended. `*B` is (B,) for a batch of problems, () for one; `V` blocks only where there are.

    Attributes:
        parameters: the best found, by name, shaped like the start.
        residuals: [*B, V, N, D] there; zero where not observed.
        weights: [*B, V, N] influence of each observation, rho'; zero where not observed.
        cost: [*B] the minimum, F.
        reasons: why each problem ended: "gradient", "step", "cost" (each below the tolerance), "stalled" (no step in
            any direction lowers the cost further) or "max_steps".
        steps: linear systems solved.
        covariance: [*B, S, S] of the shared parameters, flattened in their order; infinite where undetermined.
        deviations: standard deviations of all parameters, by name; infinite where undetermined.
        undetermined: one sentence for each problem whose residuals leave a combination of parameters free.
    """

    parameters: Named
    residuals: Tensor
    weights: Tensor
    cost: Tensor
    reasons: tuple[str, ...]
    steps: int
    covariance: Tensor
    deviations: Named
    undetermined: tuple[str, ...]

    @property
    def converged(self) -> bool:
        """Whether every problem reached a tolerance (or the end of what rounding allows)."""
        return "max_steps" not in self.reasons


def least_squares(
    residuals: Residuals,
    start: Mapping[str, Tensor],
    *,
    per_block: Collection[str] = (),
    batched: bool = False,
    observed: Tensor | None = None,
    kernel: Kernel | None = None,
    max_steps: int = 100,
    tolerance: float | None = None,
) -> Solution:
    """Minimize the sum of squared residuals over named parameters.

    Args:
        residuals: from the parameters by name to [N, D]: N observations with D residuals each. Must be twice
            differentiable by autograd (first derivatives come from two reverse passes, all columns at once).
        start: tensors of one floating dtype and any shape.
        per_block: names of the parameters [V, ...] that belong to blocks of observations. The residuals then are
            [V, N, D], and block v may depend on row v of these only.
        batched: B independent problems at once: parameters, residuals and what follows get a first dimension B, and
            problem b may depend on row b only.
        observed: mask, shaped like the residuals without D; others count as absent.
        kernel: `Huber(scale)`, `Cauchy(scale)` or your own; None: plain least squares.
        max_steps: linear systems to solve at most.
        tolerance: relative, of step, cost and gradient; default: the dtype's rounding to the power 2 / 3.

    Uncertainties are those of linearized least squares with independent observations of one unknown variance, that is
    estimated from the residuals (and, with a kernel, of its M-estimate: Huber & Ronchetti 2009, section 7.6).

    Raises:
        ValueError: names or shapes that do not fit, residuals that are not finite at the start, derivatives that are
            not finite where the search comes to, fewer residuals than parameters.

    >>> x = torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=torch.float64)
    >>> y = 2 * torch.exp(-0.5 * x)
    >>> found = least_squares(
    ...     lambda p: (p["a"] * torch.exp(-p["b"] * x) - y)[:, None],
    ...     {"a": torch.tensor(1.0, dtype=torch.float64), "b": torch.tensor(1.0, dtype=torch.float64)},
    ... )
    >>> {name: round(value.item(), 9) for name, value in found.parameters.items()}
    {'a': 2.0, 'b': 0.5}
    """
    problem = _Problem(residuals, start, frozenset(per_block), batched, observed, kernel)
    problem.check()
    if max_steps < 0:
        raise ValueError(f"max_steps must be at least 0; got {max_steps}")
    return _minimize(problem, max_steps, tolerance)


# The problem, flattened: vectors shared [B, S] and own [B, V, K], residuals [B, V, N, D]


@dataclass(frozen=True, eq=False)
class _Point:
    """Parameters, what remains there, and its cost."""

    shared: Tensor  # [B, S]
    own: Tensor  # [B, V, K]
    residuals: Tensor  # [B, V, N, D]
    weights: Tensor  # [B, V, N]
    cost: Tensor  # [B]

    def chosen(self, other: "_Point", take: Tensor) -> "_Point":
        """`other` for the problems in the mask `take` [B], this one for the rest."""

        def pick(a: Tensor, b: Tensor) -> Tensor:
            return torch.where(take.reshape(-1, *([1] * (a.ndim - 1))), b, a)

        return _Point(*(pick(getattr(self, name), getattr(other, name)) for name in self.__dataclass_fields__))


class _Problem:
    """The caller's function and parameters in the flat form that the solver works on."""

    def __init__(
        self,
        residuals: Residuals,
        start: Mapping[str, Tensor],
        per_block: frozenset[str],
        batched: bool,
        observed: Tensor | None,
        kernel: Kernel | None,
    ) -> None:
        self.residuals, self.per_block, self.batched, self.kernel = residuals, per_block, batched, kernel
        self.start = {name: value.detach() if isinstance(value, Tensor) else value for name, value in start.items()}
        self.given = observed

    def check(self) -> None:
        """Everything that the caller may have got wrong; sets the sizes."""
        unknown = sorted(self.per_block - set(self.start))
        if not self.start:
            raise ValueError("start must name at least one parameter; got none")
        if unknown:
            raise ValueError(f"per_block names {unknown}, which start has not; it has {list(self.start)}")
        for name, value in self.start.items():
            check_tensor(f"start[{name!r}]", value)
            check_finite(f"start[{name!r}]", value)
        types = {(value.dtype, value.device) for value in self.start.values()}
        if len(types) > 1:
            raise ValueError(f"start must have one dtype and device; got {sorted(map(str, types))}")
        leads = {name: self._lead(name, value) for name, value in self.start.items()}
        self.count = self._agreed({name: lead[0] for name, lead in leads.items()}, "problems") if self.batched else 1
        if self.count == 0:
            raise ValueError("start must hold at least one problem; got a batch of none")
        blocks = {name: leads[name][-1] for name in self.per_block}
        self.blocks = self._agreed(blocks, "blocks") if blocks else 1
        with torch.no_grad():
            value = self.residuals(dict(self.start))
        lead = (*([self.count] if self.batched else []), *([self.blocks] if self.per_block else []))
        check_tensor("residuals(start)", value)
        if value.ndim != len(lead) + 2 or value.shape[: len(lead)] != lead:
            wanted = ", ".join([*map(str, lead), "N", "D"])
            raise ValueError(f"residuals must return [{wanted}], N observations of D each; got {shape_of(value)}")
        self.lead, self.shape = lead, (self.count, self.blocks, *value.shape[-2:])
        self.observed = self._mask(value)
        check_finite("residuals(start)", torch.where(self.observed[..., None], value.reshape(self.shape), 0.0))
        sizes = [value.numel() // self.count for name, value in self.start.items()]
        fewest = int(self.observed.sum((-2, -1)).min()) * self.shape[-1]
        if fewest < sum(sizes):
            raise ValueError(f"{sum(sizes)} parameters need as many residuals; {fewest} are observed")

    def _lead(self, name: str, value: Tensor) -> tuple[int, ...]:
        dims = int(self.batched) + int(name in self.per_block)
        if value.ndim < dims:
            raise ValueError(f"start[{name!r}] must have {dims} leading dimensions (problems, blocks); got a number")
        return tuple(value.shape[:dims])

    @staticmethod
    def _agreed(counts: dict[str, int], what: str) -> int:
        if len(set(counts.values())) > 1:
            raise ValueError(f"start must agree on the number of {what}; got {counts}")
        return next(iter(counts.values()))

    def _mask(self, value: Tensor) -> Tensor:
        if self.given is None:
            return torch.ones(self.shape[:-1], dtype=torch.bool, device=value.device)
        wanted = value.shape[:-1]
        if not isinstance(self.given, Tensor) or self.given.dtype != torch.bool or self.given.shape != wanted:
            raise ValueError(f"observed must be a mask of shape {tuple(wanted)}; got {shape_of(self.given)}")
        return self.given.reshape(self.shape[:-1])

    def flatten(self, named: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """[B, S] and [B, V, K]."""
        like = next(iter(named.values()))
        empty = like.new_empty(self.count, self.blocks, 0)
        shared = [v.reshape(self.count, -1) for name, v in named.items() if name not in self.per_block]
        own = [v.reshape(self.count, self.blocks, -1) for name, v in named.items() if name in self.per_block]
        return torch.cat([empty[:, 0], *shared], -1), torch.cat([empty, *own], -1)

    def named(self, shared: Tensor, own: Tensor) -> Named:
        """The inverse of `flatten`."""
        out, at = {}, {False: 0, True: 0}
        for name, value in self.start.items():
            mine = name in self.per_block
            size = value.numel() // (self.count * (self.blocks if mine else 1))
            flat = own if mine else shared
            out[name] = flat[..., at[mine] : at[mine] + size].reshape(value.shape)
            at[mine] += size
        return out

    def entries(self) -> tuple[list[str], list[str]]:
        """Names of the entries of the shared vector, and of that of a block."""
        names: tuple[list[str], list[str]] = ([], [])
        for name, value in self.start.items():
            mine = name in self.per_block
            size = value.numel() // (self.count * (self.blocks if mine else 1))
            names[mine].extend([name] if size == 1 else [f"{name}[{i}]" for i in range(size)])
        return names

    def evaluate(self, shared: Tensor, own: Tensor) -> Tensor:
        """Residuals [B, V, N, D], zero where not observed."""
        value = self.residuals(self.named(shared, own)).reshape(self.shape)
        return torch.where(self.observed[..., None], value, 0.0)

    @torch.no_grad()
    def at(self, shared: Tensor, own: Tensor) -> _Point:
        residuals = self.evaluate(shared, own)
        squared = (residuals * residuals).sum(-1)
        value, weight = (squared, torch.ones_like(squared)) if self.kernel is None else self.kernel(squared)[:2]
        cost = torch.where(self.observed, value, 0.0).sum((-2, -1)) / 2
        cost = torch.where(cost.isnan(), math.inf, cost)
        return _Point(shared, own, residuals, torch.where(self.observed, weight, 0.0), cost)

    def jacobian(self, point: _Point) -> tuple[Tensor, Tensor]:
        """[B, V, N, D, S] and [B, V, N, D, K].

        J^T u is linear in u, so its derivative by u in a direction e is J e: a column from two reverse passes, and
        all columns at once from a batch of directions. A block's own columns share a direction over all blocks.
        """
        shared, own = point.shared.clone().requires_grad_(), point.own.clone().requires_grad_()
        with torch.enable_grad():
            residuals = self.evaluate(shared, own)
            if not residuals.requires_grad:
                raise ValueError("residuals must depend on the parameters, undetached; their gradient is not recorded")
            u = torch.zeros_like(residuals).requires_grad_()
            pulled = torch.autograd.grad(residuals, (shared, own), u, create_graph=True, materialize_grads=True)
        unit = torch.eye(shared.shape[-1] + own.shape[-1], dtype=u.dtype, device=u.device)
        along = (
            unit[:, None, : shared.shape[-1]].expand(-1, *shared.shape),
            unit[:, None, None, shared.shape[-1] :].expand(-1, *own.shape),
        )
        used = [(p, a) for p, a in zip(pulled, along, strict=True) if p.requires_grad]
        (columns,) = torch.autograd.grad(
            [p for p, _ in used], u, [a for _, a in used], is_grads_batched=True, materialize_grads=True
        )
        wrong = ~torch.isfinite(columns).flatten(1).all(-1)
        if bool(wrong.any()):
            names = [name for part in self.entries() for name in part]
            listed = ", ".join(names[i] for i in wrong.nonzero()[:, 0].tolist())
            raise ValueError(f"residuals must have finite derivatives; not so by {listed}: a root or norm of zero?")
        return tuple(columns.movedim(0, -1).split([shared.shape[-1], own.shape[-1]], dim=-1))


# The linear algebra of arrows


@dataclass(frozen=True, eq=False)
class _Arrow:
    """A symmetric arrow matrix: `corner` [B, S, S], `border` [B, V, S, K], `blocks` [B, V, K, K]."""

    corner: Tensor
    border: Tensor
    blocks: Tensor

    def diagonal(self) -> tuple[Tensor, Tensor]:
        """[B, S] and [B, V, K]."""
        return self.corner.diagonal(dim1=-2, dim2=-1), self.blocks.diagonal(dim1=-2, dim2=-1)

    def scaled(self, shared: Tensor, own: Tensor) -> "_Arrow":
        """Rows and columns times `shared` [B, S] and `own` [B, V, K]."""
        return _Arrow(
            shared[:, :, None] * self.corner * shared[:, None, :],
            shared[:, None, :, None] * self.border * own[:, :, None, :],
            own[..., :, None] * self.blocks * own[..., None, :],
        )

    def solve(self, damping: Tensor, shared: Tensor, own: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x of (A + damping I) x = b for `damping` [B], and where [B] that matrix is positive to rounding."""
        corner, blocks = (_add_diagonal(m, damping) for m in (self.corner, self.blocks))
        factor, wrong = torch.linalg.cholesky_ex(blocks)
        across = torch.cholesky_solve(self.border.mT, factor)  # [B, V, K, S]
        inner = torch.cholesky_solve(own[..., None], factor)[..., 0]
        factor, wrong_corner = torch.linalg.cholesky_ex(corner - (self.border @ across).sum(1))
        right = shared - (self.border @ inner[..., None])[..., 0].sum(1)
        x = torch.cholesky_solve(right[..., None], factor)[..., 0]
        y = inner - (across @ x[:, None, :, None])[..., 0]
        fine = (wrong == 0).all(-1) & (wrong_corner == 0) & torch.isfinite(x).all(-1) & torch.isfinite(y).all((-2, -1))
        return x, y, fine


def _add_diagonal(matrix: Tensor, value: Tensor) -> Tensor:
    value = value.reshape(-1, *([1] * (matrix.ndim - 1)))
    return matrix + value * torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)


def _normal(jacobian: tuple[Tensor, Tensor], weights: Tensor) -> _Arrow:
    """J^T W J."""
    shared, own = (j.flatten(-3, -2) for j in jacobian)  # [B, V, N D, S], [B, V, N D, K]
    w = weights.repeat_interleave(jacobian[0].shape[-2], -1)[..., None]
    return _Arrow((shared.mT @ (w * shared)).sum(1), shared.mT @ (w * own), own.mT @ (w * own))


def _downhill(jacobian: tuple[Tensor, Tensor], point: _Point) -> tuple[Tensor, Tensor]:
    """-J^T W r: [B, S] and [B, V, K]."""
    r = (point.weights[..., None] * point.residuals).flatten(-2)[..., None]
    shared, own = ((j.flatten(-3, -2).mT @ r)[..., 0] for j in jacobian)
    return -shared.sum(1), -own


# The iteration


@dataclass(eq=False)
class _Damping:
    """Per problem [B]: how much to damp, and how fast to damp more (Nielsen 1999)."""

    value: Tensor
    growth: Tensor

    def update(self, taken: Tensor, gain: Tensor) -> None:
        eased = self.value * (1 - (2 * gain.clamp(0, 1) - 1) ** 3).clamp(min=1 / 3)
        raised = (self.value * self.growth).clamp(max=LARGEST_DAMPING)
        self.value = torch.where(taken, eased, raised)
        self.growth = torch.where(taken, 2.0, (2 * self.growth).clamp(max=1e6)).to(self.value)


def _minimize(problem: _Problem, max_steps: int, tolerance: float | None) -> Solution:
    point = problem.at(*problem.flatten(problem.start))
    check_finite("the cost of the start", point.cost)
    if tolerance is None:
        tolerance = torch.finfo(point.cost.dtype).eps ** (2 / 3)
    damping = _Damping(torch.full_like(point.cost, FIRST_DAMPING), torch.full_like(point.cost, 2.0))
    length = [torch.zeros_like(point.shared), torch.zeros_like(point.own)]  # of the columns, the largest so far
    reason = [""] * problem.count
    moved = torch.ones_like(point.cost, dtype=torch.bool)
    start, eps = point, torch.finfo(point.cost.dtype).eps
    steps = 0
    while True:
        if bool(moved.any()):
            jacobian = problem.jacobian(point)
            normal, down = _normal(jacobian, point.weights), _downhill(jacobian, point)
            now = [d.clamp(min=0).sqrt() for d in normal.diagonal()]
            length = [torch.maximum(a, b) for a, b in zip(length, now, strict=True)]
            flat = _steepness(down, now, point.cost) <= tolerance
            _note(reason, flat, "gradient")
        if all(reason) or steps == max_steps:
            break
        scale = [1 / torch.where(part > 0, part, 1.0) for part in length]
        step = normal.scaled(*scale).solve(damping.value, *(s * d for s, d in zip(scale, down, strict=True)))
        steps += 1
        before = point
        moved, point = _try(problem, point, down, length, scale, step, damping, reason, tolerance)
        # Residuals that are rounding beside the first ones; these may be huge, so the way must be at its end, too.
        near = _distance(length, before, point) <= eps**0.5 * _distance(length, start, point)
        _note(reason, moved & near & (point.cost <= eps**2 * start.cost), "cost")
        _note(reason, damping.value >= LARGEST_DAMPING, "stalled")
    return _conclude(problem, point, jacobian, [why or "max_steps" for why in reason], steps)


def _try(
    problem: _Problem,
    point: _Point,
    down: tuple[Tensor, Tensor],
    length: list[Tensor],
    scale: list[Tensor],
    step: tuple[Tensor, Tensor, Tensor],
    damping: _Damping,
    reason: list[str],
    tolerance: float,
) -> tuple[Tensor, _Point]:
    """Take the scaled `step` where it lowers the cost; which problems moved [B], and to where."""
    *parts, fine = step
    running = torch.tensor([not why for why in reason], device=fine.device)
    shared, own = (torch.where(_like(fine & running, p), s * p, 0.0) for s, p in zip(scale, parts, strict=True))
    trial = problem.at(point.shared + shared, point.own + own)
    # What the linear model promises: 1/2 h^T (lambda D^2 h - g), with -g downhill.
    squared = _total(part * part for part in parts)
    promised = (damping.value * squared + _total((shared * down[0], own * down[1]))) / 2
    lowered = point.cost - trial.cost
    taken = running & fine & (lowered > 0) & (promised > 0)
    damping.update(taken | ~running, torch.where(taken, lowered / torch.where(taken, promised, 1.0), 0.0))
    size = _total((a * b) ** 2 for a, b in zip(length, (point.shared, point.own), strict=True)).sqrt()
    _note(reason, running & fine & (squared.sqrt() <= tolerance * (size + tolerance)), "step")
    gained = torch.maximum(lowered.abs(), promised)
    _note(reason, taken & (gained <= tolerance * point.cost), "cost")
    return taken, point.chosen(trial, taken)


def _distance(length: list[Tensor], a: _Point, b: _Point) -> Tensor:
    """[B] between two points, in units of the columns' lengths."""
    return _total([(length[0] * (a.shared - b.shared)) ** 2, (length[1] * (a.own - b.own)) ** 2]).sqrt()


def _total(parts: Iterable[Tensor]) -> Tensor:
    """Sum of everything but the first dimension."""
    return torch.stack([part.flatten(1).sum(1) for part in parts]).sum(0)


def _like(mask: Tensor, part: Tensor) -> Tensor:
    return mask.reshape(-1, *([1] * (part.ndim - 1)))


def _note(reason: list[str], ended: Tensor, why: str) -> None:
    for b in ended.nonzero()[:, 0].tolist():
        reason[b] = reason[b] or why


def _steepness(down: tuple[Tensor, Tensor], length: list[Tensor], cost: Tensor) -> Tensor:
    """[B] the largest cosine between the residuals and a column of the Jacobian; 0 where nothing is left."""
    remaining, tiny = (2 * cost).sqrt()[:, None], torch.finfo(cost.dtype).tiny
    worst = [
        torch.cat((d.flatten(1).abs() / (n.flatten(1) * remaining).clamp(min=tiny), remaining * 0), -1).amax(-1)
        for d, n in zip(down, length, strict=True)
    ]
    return torch.maximum(*worst)


# What is known at the end


def _conclude(
    problem: _Problem, point: _Point, jacobian: tuple[Tensor, Tensor], reasons: list[str], steps: int
) -> Solution:
    covariance, deviations, undetermined = _uncertainty(problem, point, jacobian)
    return Solution(
        parameters={name: value.clone() for name, value in problem.named(point.shared, point.own).items()},
        residuals=point.residuals.reshape(*problem.lead, *problem.shape[2:]),
        weights=point.weights.reshape(*problem.lead, problem.shape[2]),
        cost=point.cost if problem.batched else point.cost[0],
        reasons=tuple(reasons),
        steps=steps,
        covariance=covariance if problem.batched else covariance[0],
        deviations=deviations,
        undetermined=undetermined,
    )


def _variance(problem: _Problem, point: _Point, rank: Tensor) -> Tensor:
    """[B] what J^T J's inverse is to be multiplied by: the residuals' variance, or that of the kernel's M-estimate.

    `rank` [B] counts the parameters that were determined.
    """
    size = problem.shape[-1]
    squared = (point.residuals * point.residuals).sum(-1)
    number = problem.observed.sum((-2, -1)) * size
    scatter = (point.weights * point.weights * squared).sum((-2, -1)) / (number - rank).clamp(min=1)
    if problem.kernel is None:
        return scatter
    # Mean derivative of the influence psi(r) = rho'(|r|^2) r: its trace over the size is rho' + 2 rho'' |r|^2 / size.
    _, slope, curvature = problem.kernel(squared)
    mean = torch.where(problem.observed, slope + 2 * curvature * squared / size, 0.0).sum((-2, -1)) * size / number
    return scatter / (mean * mean)


def _uncertainty(
    problem: _Problem, point: _Point, jacobian: tuple[Tensor, Tensor]
) -> tuple[Tensor, Named, tuple[str, ...]]:
    """Covariance [B, S, S] of the shared parameters, all standard deviations, and sentences about what is free."""
    normal = _normal(jacobian, problem.observed.to(point.cost.dtype))
    length = [d.clamp(min=0).sqrt() for d in normal.diagonal()]
    inverse_length = [torch.where(n > 0, 1 / n, 1.0) for n in length]
    normal = normal.scaled(*inverse_length)
    # Rounding of the sums in a matrix of unit diagonal.
    least = 64 * (normal.corner.shape[-1] + normal.blocks.shape[-1]) * torch.finfo(point.cost.dtype).eps
    blocks, free_blocks = _pseudo_inverse(normal.blocks, least)
    across = blocks @ normal.border.mT  # [B, V, K, S]
    corner, free = _pseudo_inverse(normal.corner - (normal.border @ across).sum(1), least)
    own = blocks.diagonal(dim1=-2, dim2=-1) + ((across @ corner[:, None]) * across).sum(-1)
    kept = [torch.linalg.vector_norm(part, dim=-2) == 0 for part in (free, free_blocks)]  # columns without null vector
    variance = _variance(problem, point, kept[0].sum(-1) + kept[1].sum((-2, -1)))
    # A free direction n of the shared parameters drags along -across n of every block.
    dragged = torch.linalg.vector_norm(across @ free[:, None], dim=-1)
    stuck = torch.linalg.vector_norm(free_blocks, dim=-1)
    loose = [torch.linalg.vector_norm(free, dim=-1), torch.maximum(dragged, stuck)]
    undefined = [part > PARTICIPATES for part in loose]
    variances = [corner.diagonal(dim1=-2, dim2=-1), own]
    spread = [
        torch.where(u, math.inf, (v.clamp(min=0) * _like(variance, v)).sqrt() * n)
        for u, v, n in zip(undefined, variances, inverse_length, strict=True)
    ]
    covariance = variance[:, None, None] * corner * inverse_length[0][:, :, None] * inverse_length[0][:, None, :]
    unknown = undefined[0][:, :, None] | undefined[0][:, None, :]
    covariance = torch.where(unknown, math.inf, covariance)
    return covariance, problem.named(*spread), _sentences(problem, undefined)


def _pseudo_inverse(matrix: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """Of symmetric matrices [..., n, n], and their null vectors as columns [..., n, n], zero where there is none."""
    if matrix.shape[-1] == 0:
        return matrix, matrix
    values, vectors = torch.linalg.eigh(matrix)
    null = values <= least
    return (vectors * torch.where(null, 0.0, 1 / values)[..., None, :]) @ vectors.mT, vectors * null[..., None, :]


def _sentences(problem: _Problem, undefined: list[Tensor]) -> tuple[str, ...]:
    """What the residuals leave free, one sentence for a problem."""
    shared_names, own_names = problem.entries()
    said = []
    for b in (undefined[0].any(-1) | undefined[1].any(-1).any(-1)).nonzero()[:, 0].tolist():
        names = [shared_names[i] for i in undefined[0][b].nonzero()[:, 0].tolist()]
        for v, k in undefined[1][b].nonzero().tolist():
            names.append(f"{own_names[k]} of block {v}")
        listed = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        where = f"problem {b}: " if problem.batched else ""
        said.append(f"{where}the residuals do not determine {listed}: some change of these leaves all of them alike")
    return tuple(said)
