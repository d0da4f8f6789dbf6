"""Optimization of vertices: large steps, and the Adam that goes with them.

Nicolet, Jacobson & Jakob 2021, "Large steps in inverse rendering of geometry". Gradients of images are sparse and
rough; following them tangles a mesh. So the optimizer moves u = (I + lambda L) v instead of the vertices v: a step in u
is a step in v that was smoothed by (I + lambda L)^-1 twice, and the mesh stays even while it moves far.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import splu
from torch import Tensor

from .checks import check_tensor, shape_of
from .topology import Topology


class LargeSteps:
    """Vertices in the coordinates that large steps are taken in.

    Args:
        topology: of the mesh; vertices at the same position share one row of u, so that seams stay closed.
        smoothness: lambda. The paper's default is 19; 0 leaves the vertices as they are.

    The system is factorized once, here. On the CPU solves are direct, in float64 and rounded to the dtype of u;
    elsewhere they are conjugate gradients on that device, to the precision of the dtype.

    >>> from diffrender.mesh import Mesh
    >>> mesh = Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]))
    >>> steps = LargeSteps(mesh.topology)
    >>> u = steps.to_differential(mesh.vertices).requires_grad_()
    >>> torch.allclose(steps.to_vertices(u), mesh.vertices)
    True
    """

    def __init__(self, topology: Topology, *, smoothness: float = 19.0) -> None:
        if not 0 <= smoothness < float("inf"):
            raise ValueError(f"smoothness must be at least 0 and finite; got {smoothness}")
        self._roots, self._row = torch.unique(topology.weld, return_inverse=True)  # [R], [V]
        self._system = _system(torch.searchsorted(self._roots, topology.edges), len(self._roots), smoothness)
        self._solve = (_direct_solver if topology.weld.device.type == "cpu" else _conjugate_gradients)(self._system)

    def to_differential(self, vertices: Tensor) -> Tensor:
        """u [R, 3] of `vertices` [V, 3]: what to optimize. Detached."""
        check_tensor("vertices", vertices, ndim=2)
        if vertices.shape[0] != len(self._row):
            raise ValueError(f"vertices must be the {len(self._row)} of the topology; got {shape_of(vertices)}")
        at_roots = vertices.detach()[self._roots]
        return (self._system @ at_roots.to(torch.float64)).to(vertices.dtype)

    def to_vertices(self, u: Tensor) -> Tensor:
        """Vertices [V, 3] of `u` [R, 3], differentiable as often as one likes."""
        check_tensor("u", u, ndim=2)
        if u.shape[0] != len(self._roots):
            raise ValueError(f"u must have {len(self._roots)} rows, as to_differential returns it; got {shape_of(u)}")
        solved: Tensor = _SymmetricSolve.apply(u, self._solve)
        return solved.index_select(0, self._row)


def _system(edges: Tensor, count: int, smoothness: float) -> Tensor:
    """[R, R] sparse I + smoothness * L for the `edges` [E, 2] between `count` vertices, in float64."""
    low, high = edges.unbind(-1)
    every = torch.arange(count, device=edges.device)
    degree = torch.bincount(edges.reshape(-1), minlength=count).to(torch.float64)
    across = degree.new_full((2 * len(edges),), -smoothness)
    index = torch.stack([torch.cat([low, high, every]), torch.cat([high, low, every])])
    values = torch.cat([across, 1 + smoothness * degree])
    return torch.sparse_coo_tensor(index, values, (count, count), check_invariants=True).coalesce()


class _SymmetricSolve(torch.autograd.Function):
    """x of A x = b for a symmetric A; the gradient to b is the same solve again."""

    @staticmethod
    def forward(ctx: Any, right: Tensor, solve: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.solve = solve
        return solve(right)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _SymmetricSolve.apply(gradients[0], ctx.solve), None


def _direct_solver(system: Tensor) -> Callable[[Tensor], Tensor]:
    """Sparse factorization of a symmetric positive definite `system` [R, R]."""
    if system.shape[0] == 0:
        return torch.clone
    rows, columns = system.indices().numpy()
    matrix = sparse.csc_matrix((system.values().numpy(), (rows, columns)), shape=tuple(system.shape))
    # positive definite: pivots stay on the diagonal, and the ordering may be that of the symmetric pattern
    factor = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})

    def solve(right: Tensor) -> Tensor:
        if right.device.type != "cpu":
            raise ValueError(
                f"u must be on the device of the topology, cpu; got {right.device}: move the topology first"
            )
        solved = factor.solve(np.ascontiguousarray(right.detach().to(torch.float64).numpy()))
        return torch.from_numpy(solved).to(right.dtype)

    return solve


def _conjugate_gradients(system: Tensor) -> Callable[[Tensor], Tensor]:
    """Conjugate gradients for a symmetric positive definite `system` [R, R], all columns of the right side at once."""
    matrices: dict[torch.dtype, Tensor] = {}  # the system in each dtype that was asked for

    def solve(right: Tensor) -> Tensor:
        dtype = right.dtype
        if dtype not in matrices:
            matrices[dtype] = system.to(dtype).coalesce()
        # a residual below this is rounding; with a condition number of 1 + 12 lambda, a few hundred, steps suffice
        tolerance = 4 * torch.finfo(dtype).eps * right.norm(dim=0)
        solution = torch.zeros_like(right)
        residual = direction = right.detach()
        squared = residual.square().sum(0)
        for step in range(10 * right.shape[0] + 1):
            # asking the device waits for it, so only every eighth step
            if step % 8 == 0 and not bool((squared.sqrt() > tolerance).any()):  # NaN has no solution to wait for
                break
            moved = matrices[dtype] @ direction
            curvature = (direction * moved).sum(0)
            length = squared / torch.where(curvature > 0, curvature, 1.0)  # zero once a column is solved exactly
            solution = solution + length * direction
            residual = residual - length * moved
            previous, squared = squared, residual.square().sum(0)
            direction = residual + squared / torch.where(previous > 0, previous, 1.0) * direction
        return solution

    return solve


class AdamUniform(torch.optim.Optimizer):
    """Adam with one step size for all entries of a parameter: divided by the largest second moment, not each its own.

    Args:
        params: as for any torch optimizer.
        lr: length of the largest step of an entry, roughly, in the units of the parameter.
        betas: decay of the first and second moment.
        eps: keeps the division finite where all gradients were zero; far below them otherwise.

    Plain Adam moves vertices that hardly matter as far as those that do, which undoes the smoothing of large steps
    (section 3.3 of the paper).

    >>> x = torch.tensor([3.0, 4.0], requires_grad=True)
    >>> optimizer = AdamUniform([x], lr=0.5)
    >>> x.square().sum().backward()
    >>> optimizer.step()
    >>> x
    tensor([2.6250, 3.5000], requires_grad=True)
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.1,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-15,
    ) -> None:
        if lr < 0:
            raise ValueError(f"lr must be at least 0; got {lr}")
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas must be in [0, 1); got {betas}")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """One step; with a `closure` that recomputes the loss, returns the loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state.update(step=0, first=torch.zeros_like(parameter), second=torch.zeros_like(parameter))
        state["step"] += 1
        beta1, beta2 = group["betas"]
        first = state["first"].mul_(beta1).add_(gradient, alpha=1 - beta1)
        second = state["second"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        # Kingma & Ba 2015, algorithm 1, bias corrections included
        scale = (second.max() / (1 - beta2 ** state["step"])).sqrt() + group["eps"]
        parameter.sub_(first / scale, alpha=group["lr"] / (1 - beta1 ** state["step"]))
