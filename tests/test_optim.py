"""Large steps and AdamUniform against dense linear algebra, finite differences and hand-computed steps."""

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from diffrender.mesh import Mesh
from diffrender.optim import AdamUniform, LargeSteps, _conjugate_gradients
from diffrender.primitives import cube, sphere, torus
from diffrender.regularizers import uniform_laplacian


def test_differential_coordinates_are_those_of_the_paper():
    mesh = torus(dtype=torch.float64)
    matrix = torch.eye(mesh.num_vertices).double() + 19 * uniform_laplacian(mesh.topology, dtype=torch.float64)
    torch.testing.assert_close(LargeSteps(mesh.topology).to_differential(mesh.vertices), matrix @ mesh.vertices)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("smoothness", [0.0, 1.0, 19.0, 1000.0])
def test_vertices_come_back(dtype, smoothness):
    mesh = sphere(3, dtype=dtype)
    steps = LargeSteps(mesh.topology, smoothness=smoothness)
    back = steps.to_vertices(steps.to_differential(mesh.vertices))
    assert back.dtype == dtype
    # u is rounded, and the inverse of I + lambda L has norm 1: one rounding of u, which is up to 1 + 12 lambda large
    # where the mesh is rough, here far less
    torch.testing.assert_close(back, mesh.vertices, rtol=0, atol=4 * torch.finfo(dtype).eps * (1 + smoothness))


def test_zero_smoothness_changes_nothing():
    mesh = sphere(1)
    assert torch.equal(LargeSteps(mesh.topology, smoothness=0).to_differential(mesh.vertices), mesh.vertices)


def test_gradients_agree_with_differences():
    mesh = cube(dtype=torch.float64)
    steps = LargeSteps(mesh.topology)
    u = steps.to_differential(mesh.vertices).requires_grad_()
    assert torch.autograd.gradcheck(steps.to_vertices, u)
    assert torch.autograd.gradgradcheck(steps.to_vertices, u)


def test_conjugate_gradients_agree_with_the_factorization():
    mesh = sphere(3, dtype=torch.float64)
    steps = LargeSteps(mesh.topology)
    right = torch.randn(mesh.num_vertices, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    iterated = _conjugate_gradients(steps._system)(right)
    # a condition number below 1 + 19 * 12, times the tolerance of the residual
    torch.testing.assert_close(iterated, steps.to_vertices(right), rtol=0, atol=1e-11)


def test_conjugate_gradients_stop_at_a_right_side_of_zeros():
    steps = LargeSteps(sphere(1).topology)
    assert not _conjugate_gradients(steps._system)(torch.zeros(42, 3)).any()


def test_conjugate_gradients_do_not_search_for_what_nan_would_give():
    class Counted(TorchDispatchMode):
        operations = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.operations += 1
            return func(*args, **(kwargs or {}))

    solve = _conjugate_gradients(LargeSteps(sphere(1).topology)._system)
    with Counted() as counted:
        assert solve(torch.full((42, 3), torch.nan)).shape == (42, 3)
    assert counted.operations < 50  # and not ten steps for every row


def test_vertices_at_one_position_stay_together():
    mesh = cube(dtype=torch.float64)
    corners = mesh.faces.reshape(-1)
    split = Mesh(mesh.vertices[corners], torch.arange(36).reshape(-1, 3))
    steps = LargeSteps(split.topology)
    u = steps.to_differential(split.vertices)
    assert u.shape == (8, 3)
    moved = steps.to_vertices(u + torch.randn(8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    # as on the mesh that was never split, whose rows stand in another order
    order = corners.new_zeros(8)
    order[corners] = torch.arange(36)
    assert torch.equal(moved, moved[order][corners])


def test_large_steps_reach_a_smooth_target_sooner_than_plain_steps():
    # Every fifth vertex of a sphere is told where to go, to a stretched sphere: the others must follow.
    mesh = sphere(3, dtype=torch.float64)
    target = mesh.vertices * torch.tensor([1.5, 1.0, 0.7], dtype=torch.float64)
    told = torch.arange(0, mesh.num_vertices, 5)

    def distance_after(steps: int, smoothness: float) -> float:
        large = LargeSteps(mesh.topology, smoothness=smoothness)
        u = large.to_differential(mesh.vertices).requires_grad_()
        optimizer = AdamUniform([u], lr=0.05 * (1 + smoothness))
        for _ in range(steps):
            optimizer.zero_grad()
            (large.to_vertices(u)[told] - target[told]).square().mean().backward()
            optimizer.step()
        return float((large.to_vertices(u.detach()) - target).square().mean())

    start = float((mesh.vertices - target).square().mean())
    assert distance_after(60, smoothness=19.0) < 0.05 * start
    assert distance_after(60, smoothness=0.0) > 0.5 * start  # only the told ones move: four of five stay behind


def test_u_of_another_mesh_is_refused():
    steps = LargeSteps(cube().topology)
    with pytest.raises(ValueError, match=r"u must have 8 rows, as to_differential returns it; got \(9, 3\)"):
        steps.to_vertices(torch.zeros(9, 3))
    with pytest.raises(ValueError, match=r"vertices must be the 8 of the topology; got \(9, 3\)"):
        steps.to_differential(torch.zeros(9, 3))


@pytest.mark.parametrize("smoothness", [-1.0, float("inf"), float("nan")])
def test_smoothness_must_be_a_weight(smoothness):
    with pytest.raises(ValueError, match="smoothness must be at least 0 and finite"):
        LargeSteps(cube().topology, smoothness=smoothness)


def test_adam_uniform_takes_the_steps_of_the_formula():
    x = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    optimizer = AdamUniform([x], lr=0.1, betas=(0.5, 0.75))
    gradients = [torch.tensor([0.2, -0.4], dtype=torch.float64), torch.tensor([0.6, 0.2], dtype=torch.float64)]
    for gradient in gradients:
        x.grad = gradient
        optimizer.step()
    # step 1: m = g / 2, v = g^2 / 4; corrected m = g, v = g^2; max v = 0.16: x -= 0.1 g / 0.4
    # step 2: m = (0.35, 0), v = (0.0975, 0.04); corrected m = m / 0.75, v = v / 0.4375
    first = torch.tensor([1.0 - 0.05, -2.0 + 0.1], dtype=torch.float64)
    second = first - 0.1 * torch.tensor([0.35 / 0.75, 0.0], dtype=torch.float64) / (0.0975 / 0.4375) ** 0.5
    torch.testing.assert_close(x.detach(), second)


def test_adam_uniform_does_not_depend_on_the_scale_of_the_loss():
    def path(scale: float) -> torch.Tensor:
        x = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64, requires_grad=True)
        optimizer = AdamUniform([x], lr=0.1)
        for _ in range(5):
            optimizer.zero_grad()
            (scale * x.square().sum()).backward()
            optimizer.step()
        return x.detach()

    torch.testing.assert_close(path(1e-6), path(1.0), rtol=1e-8, atol=0)  # eps is 1e-15 of gradients of 1e-6


def test_adam_uniform_stays_put_without_a_gradient():
    x = torch.ones(3, requires_grad=True)
    optimizer = AdamUniform([x], lr=0.1)
    optimizer.step()
    x.grad = torch.zeros(3)
    optimizer.step()
    assert torch.equal(x.detach(), torch.ones(3))


def test_adam_uniform_continues_from_its_state():
    def loss(x):
        return (x - torch.tensor([0.3, 0.1])).square().sum()

    x = torch.tensor([1.0, -2.0], requires_grad=True)
    optimizer = AdamUniform([x], lr=0.1)

    def advance(optimizer, x, count):
        for _ in range(count):
            optimizer.zero_grad()
            optimizer.step(lambda: (value := loss(x)).backward() or value)

    advance(optimizer, x, 3)
    resumed = x.detach().clone().requires_grad_()
    other = AdamUniform([resumed], lr=0.5)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    advance(optimizer, x, 3)
    advance(other, resumed, 3)
    assert torch.equal(x, resumed)


def test_adam_uniform_refuses_settings_that_diverge():
    with pytest.raises(ValueError, match="lr must be at least 0"):
        AdamUniform([torch.zeros(1)], lr=-1.0)
    with pytest.raises(ValueError, match=r"betas must be in \[0, 1\)"):
        AdamUniform([torch.zeros(1)], betas=(0.9, 1.0))
