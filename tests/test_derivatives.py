"""First and second derivatives of the continuous stages, one after another as `render` chains them, in float64.

Each stage's own tests check its first derivatives closely; here gradcheck's fast mode, which compares along random
directions, goes through all of them, twice: `gradgradcheck` differentiates the gradient again.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffrender.cameras import (
    Camera,
    FisheyeCamera,
    OpenCVCamera,
    OrthographicCamera,
    PinholeCamera,
    look_at,
    se3_exp,
    so3_exp,
)
from diffrender.derivatives import differentiable_once
from diffrender.fragments import Fragments, fragments_along, interpolate
from diffrender.io.images import decode_srgb, encode_srgb
from diffrender.losses import color_loss, iou, psnr, silhouette_loss
from diffrender.mesh import Material, Mesh
from diffrender.pixel_rays import pixel_rays
from diffrender.primitives import sphere
from diffrender.regularizers import edge_length, laplacian_smoothness, normal_consistency
from diffrender.render import covered
from diffrender.scene import pack
from diffrender.shading import AmbientLight, DirectionalLight, Lambert, PointLight, SphericalHarmonicsLight, unlit
from diffrender.visibility import face_image

SIZE = (11, 14)


class Stereographic(Camera):
    """A user's camera: one method, the inverse found by iteration."""

    def __init__(self, f: float | Tensor, bend: float | Tensor, *, size: tuple[int, int]) -> None:
        super().__init__(size=size, f=f, bend=bend)

    def to_pixels(self, points: Tensor) -> Tensor:
        plane = points[..., :2] / (points.norm(dim=-1, keepdim=True) + points[..., 2:])
        scale = self.f * (1 + self.bend * (plane * plane).sum(-1))
        return scale[..., None] * plane + plane.new_tensor([7.3, 5.1])


CAMERAS: dict[str, Camera] = {
    "pinhole": PinholeCamera(14.0, 13.0, 7.3, 5.1, size=SIZE),
    "orthographic": OrthographicCamera(4.2, 3.9, 7.3, 5.1, size=SIZE),
    "fisheye": FisheyeCamera(14.0, 13.0, 7.3, 5.1, k=(0.05, -0.01, 0.0, 0.0), size=SIZE),
    "opencv": OpenCVCamera(14.0, 13.0, 7.3, 5.1, dist=(-0.2, 0.05, 0.002, -0.003), size=SIZE),
    "custom": Stereographic(28.0, 0.2, size=SIZE),
}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def leaves(*values: Tensor) -> list[Tensor]:
    return [value.detach().clone().requires_grad_() for value in values]


def assert_twice_differentiable(function: Callable[..., Tensor | tuple[Tensor, ...]], *inputs: Tensor) -> None:
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


def looked_at(kind: str) -> tuple[Camera, Mesh, Fragments]:
    """The camera, a ball before it, and a few of the fragments that it sees: what visibility holds fixed."""
    camera = CAMERAS[kind].to(dtype=torch.float64).replace(t=(0.1, 0.2, 3.0))
    mesh = sphere(1, dtype=torch.float64)
    scene = pack(mesh, camera)
    rays = pixel_rays(scene)
    _, fragments = covered(scene, rays, face_image(scene, rays))
    chosen = torch.arange(0, len(fragments), 5)
    assert len(chosen) >= 4
    values = {name: value.detach()[chosen] for name, value in vars(fragments).items()}
    return camera, mesh, Fragments(**values)


def again(scene_mesh: Mesh, camera: Camera, fixed: Fragments) -> Fragments:
    """The fragments that visibility found, computed anew from other vertices and another camera."""
    scene = pack(scene_mesh, camera)
    rays = scene.rays_at(fixed.view, fixed.xy)
    return fragments_along(scene, fixed.view, fixed.xy, fixed.face_index, *rays)


# Cameras, fragments and shading


@pytest.mark.parametrize("kind", CAMERAS)
def test_from_vertices_pose_and_lens_to_barycentrics_depth_and_attributes(kind: str) -> None:
    camera, mesh, fixed = looked_at(kind)
    names = list(camera._names)

    def function(vertices: Tensor, attribute: Tensor, turn: Tensor, t: Tensor, *lens: Tensor) -> tuple[Tensor, ...]:
        moved = camera.replace(R=so3_exp(turn), t=t, **dict(zip(names, lens, strict=True)))
        fragments = again(mesh.replace(vertices=vertices), moved, fixed)
        return fragments.barycentrics, fragments.depth, interpolate(attribute, mesh.faces, fragments)

    turn = torch.tensor([0.01, -0.02, 0.03], dtype=torch.float64)
    lens = [getattr(camera, name) for name in names]
    inputs = leaves(mesh.vertices, random(mesh.num_vertices, 2), turn, camera.t, *lens)
    assert_twice_differentiable(function, *inputs)


@pytest.mark.parametrize("normals", ["smooth", "flat"])
@pytest.mark.parametrize("kind", ["pinhole", "custom"])
def test_from_vertices_and_lights_to_lit_colours(kind: str, normals: str) -> None:
    camera, mesh, fixed = looked_at(kind)
    # Above the surface everywhere: a fragment on the terminator would sit on the kink of max(0, cosine).
    towards_viewer = torch.tensor([0.2, -0.3, 1.0], dtype=torch.float64)

    def function(vertices: Tensor, color: Tensor, direction: Tensor, position: Tensor, sh: Tensor) -> Tensor:
        lights = [
            AmbientLight(color),
            DirectionalLight(direction, color),
            PointLight(position, color),
            SphericalHarmonicsLight(sh),
        ]
        moved = mesh.replace(vertices=vertices)
        return Lambert(lights, normals=normals)(again(moved, camera, fixed), moved)  # type: ignore[arg-type]

    position = torch.tensor([0.5, 0.3, -4.0], dtype=torch.float64)
    inputs = leaves(mesh.vertices, random(3), towards_viewer, position, random(9, 3, seed=1))
    assert_twice_differentiable(function, *inputs)


@pytest.mark.parametrize("kind", ["pinhole", "custom"])
def test_from_vertices_uvs_and_materials_to_unlit_colours(kind: str) -> None:
    """A smooth point of bilinear filtering: fragments of this seed lie away from the lines between texels."""
    camera, mesh, fixed = looked_at(kind)
    assert mesh.uvs is not None

    def function(vertices: Tensor, uvs: Tensor, texture: Tensor, base: Tensor, painted: Tensor) -> Tensor:
        material = Material(texture=texture, base_color=base)
        moved = mesh.replace(vertices=vertices, uvs=uvs, materials=(material,), vertex_colors=painted)
        return unlit(again(moved, camera, fixed), moved)

    inputs = leaves(mesh.vertices, mesh.uvs, random(3, 4, 3), random(3, seed=1), random(mesh.num_vertices, 3, seed=2))
    assert_twice_differentiable(function, *inputs)


# Losses, regularizers, poses


@pytest.mark.parametrize("kind", ["l1", "l2", "huber"])
def test_losses_of_images(kind: str) -> None:
    """All differences of this seed keep away from the kinks at zero and at the huber loss's 0.1."""
    target, mask = random(4, 5, 3, seed=1), random(4, 5, seed=2)
    color, weight = random(4, 5, 3), random(4, 5, seed=3)
    assert ((color - target).abs() - 0.1).abs().min() > 1e-5
    assert (color - target).abs().min() > 1e-5

    def function(color: Tensor, alpha: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        return (
            color_loss(color, target, mask=weight, kind=kind),
            silhouette_loss(alpha, mask, weight=weight),
            iou(alpha, mask),
            psnr(color, target, mask=weight),
        )

    assert_twice_differentiable(function, *leaves(color, random(4, 5, seed=4), weight))


def test_srgb_in_both_directions() -> None:
    assert_twice_differentiable(lambda x: (encode_srgb(x), decode_srgb(x)), *leaves(0.1 + 0.8 * random(5, 6, 3)))


def wobbly() -> Mesh:
    mesh = sphere(0, dtype=torch.float64)
    return Mesh(mesh.vertices + 0.1 * random(mesh.num_vertices, 3), mesh.faces)


@pytest.mark.parametrize(
    "function",
    [
        normal_consistency,
        edge_length,
        lambda mesh: edge_length(mesh, target=0.7),
        Mesh.normals,
        Mesh.face_normals,
    ],
    ids=["normal consistency", "edge length", "target length", "normals", "face normals"],
)
def test_regularizers_and_normals(function: Callable[[Mesh], Tensor]) -> None:
    mesh = wobbly()
    assert_twice_differentiable(lambda v: function(mesh.replace(vertices=v)), *leaves(mesh.vertices))


def test_second_derivative_of_smoothness_is_the_squared_laplacian_at_fixed_scale() -> None:
    """Its scale counts as a constant (so it does not pull edges apart): a quadratic form, H H v = grad of grad . w."""
    mesh = wobbly()
    (vertices,) = leaves(mesh.vertices)
    (gradient,) = torch.autograd.grad(
        laplacian_smoothness(mesh.replace(vertices=vertices)), vertices, create_graph=True
    )
    (again_v,) = torch.autograd.grad((gradient * vertices.detach()).sum(), vertices)
    torch.testing.assert_close(again_v, gradient.detach())


def test_poses() -> None:
    twist = torch.tensor([0.3, -0.2, 0.5, 1.0, -0.4, 0.2], dtype=torch.float64)
    assert_twice_differentiable(se3_exp, *leaves(twist))
    assert_twice_differentiable(lambda eye, target: look_at(eye, target), *leaves(random(3), random(3, seed=1)))
    # At the identity the formula is a series; its second derivative is the symmetrized product of generators.
    assert_twice_differentiable(so3_exp, *leaves(torch.zeros(3, dtype=torch.float64)))


# What has one derivative only


def test_differentiable_once_keeps_the_gradient_and_refuses_the_next_one() -> None:
    x, weight = leaves(random(3), random(3, seed=1))

    def slope(create_graph: bool) -> Tensor:
        value = (weight * differentiable_once(x, "no more").exp()).sum()
        return torch.autograd.grad(value, x, create_graph=create_graph)[0]

    assert torch.equal(slope(False), slope(True))
    torch.testing.assert_close(slope(False), (weight * x.exp()).detach())
    with pytest.raises(RuntimeError, match="no more"):
        torch.autograd.grad(slope(True).sum(), x)
    with pytest.raises(RuntimeError, match="no more"):
        slope(True).sum().backward()
    # By what came from elsewhere the gradient is linear, and the derivative right.
    torch.testing.assert_close(torch.autograd.grad(slope(True).sum(), weight)[0], x.detach().exp())


def test_differentiable_once_refuses_also_where_the_second_derivative_is_zero() -> None:
    """A constant gradient may come from a function that is none: whoever asks must not hear a silent zero."""
    (x,) = leaves(random(3))
    (slope,) = torch.autograd.grad(2 * differentiable_once(x, "no more").sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no more"):
        torch.autograd.grad(slope.sum(), x)
