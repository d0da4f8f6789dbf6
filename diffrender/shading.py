"""Shading: colours of fragments from materials, normals and lights.

A shader is any callable `(fragments, mesh) -> [N, C]`. The ones here compose: `surface_color` looks up what is painted
on the surface, a light says how much of its light arrives at a point, and `Lambert` multiplies the two.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from .checks import check_finite, check_tensor, shape_of
from .fragments import Fragments, interpolate
from .kernels import where_true
from .mesh import Material, Mesh
from .sampling import sample_texture
from .sampling.environment import panorama_directions

Normals = Literal["smooth", "flat"]
Vector = Tensor | Sequence[float]
LightType = TypeVar("LightType", bound="Light")


def surface_color(fragments: Fragments, mesh: Mesh) -> Tensor:
    """Linear colour [N, C] of the surface itself: glTF's product `base_color * texture(uv) * vertex_colors`.

    Each factor counts where the mesh has it; a mesh that has none is white, with three channels. Textures repeat and
    are filtered bilinearly. Differentiable to textures, colours, uvs and, through the barycentrics, to the geometry.
    """
    color = _material_color(fragments, mesh)
    if mesh.vertex_colors is not None:
        vertex_color = interpolate(mesh.vertex_colors, mesh.faces, fragments)
        color = vertex_color if color is None else color * vertex_color
    return mesh.vertices.new_ones(len(fragments), 3) if color is None else color


def unlit(fragments: Fragments, mesh: Mesh) -> Tensor:
    """The shader without lights: [N, C] `surface_color` as it is."""
    return surface_color(fragments, mesh)


def shading_normals(fragments: Fragments, mesh: Mesh, kind: Normals = "smooth") -> Tensor:
    """Unit normals [N, 3] in the world frame, turned to the side of the face that is seen.

    "flat" takes the face's own normal, "smooth" interpolates those of the vertices. Faces are two-sided: where the
    back of the face is seen the normal is reversed, also a smooth one, so that both sides are lit. It is zero, with a
    finite gradient, on faces without area and where the vertex normals cancel.
    """
    _check_kind(kind)
    if kind == "flat":
        normals = mesh.face_normals().index_select(0, fragments.face_index)
    else:
        normals = _unit(interpolate(mesh.normals(), mesh.faces, fragments))
    return torch.where(fragments.front[:, None], normals, -normals)


class Light(ABC):
    """Something that lights a surface. Subclasses are frozen dataclasses of tensors and write `irradiance`.

    Light is measured in what a white Lambert surface shows under it, which is its irradiance divided by pi: a surface
    of colour `albedo` under irradiance 1 has the colour `albedo`, and no factor of pi appears anywhere else.
    Parameters are tensors, which may require grad, or tuples of numbers; colours are linear RGB.
    """

    @abstractmethod
    def irradiance(self, positions: Tensor, normals: Tensor) -> Tensor:
        """Light [N, 3] arriving at `positions` [N, 3], world frame, on the side of their unit `normals` [N, 3]."""

    def to(self: LightType, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> LightType:
        """The same light with its tensors on `device` and of `dtype`; None keeps what is."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        moved = {k: v.to(device=device, dtype=dtype) for k, v in values.items() if isinstance(v, Tensor)}
        return replace(self, **moved)  # type: ignore[type-var]


@dataclass(frozen=True, eq=False)
class AmbientLight(Light):
    """The same light from everywhere: `irradiance = color`.

    >>> AmbientLight((0.5, 0.5, 1.0)).irradiance(torch.zeros(1, 3), torch.eye(3)[:1])
    tensor([[0.5000, 0.5000, 1.0000]])
    """

    color: Vector = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        _check_vector("color", self.color)

    def irradiance(self, positions: Tensor, normals: Tensor) -> Tensor:
        return _vector("color", self.color, positions).expand_as(positions)


@dataclass(frozen=True, eq=False)
class DirectionalLight(Light):
    """Light from infinitely far away, like the sun's: `irradiance = color max(0, -normal . direction / |direction|)`.

    Attributes:
        direction: [3] where the light travels *to*, of any length (as in glTF): in a world with y up, (0, -1, 0)
            shines from above.
        color: [3] what a white surface shows that faces the light.

    >>> DirectionalLight((0.0, -2.0, 0.0)).irradiance(torch.zeros(1, 3), torch.tensor([[0.0, 1.0, 0.0]]))
    tensor([[1., 1., 1.]])
    """

    direction: Vector
    color: Vector = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        _check_vector("direction", self.direction)
        _check_vector("color", self.color)
        if not any(_numbers(self.direction)):
            raise ValueError("direction must not be zero: it says where the light travels to, (0, -1, 0) for downwards")

    def irradiance(self, positions: Tensor, normals: Tensor) -> Tensor:
        direction = _unit(_vector("direction", self.direction, positions))
        cosine = -(normals * direction).sum(-1, keepdim=True)
        return cosine.clamp_min(0.0) * _vector("color", self.color, positions)


@dataclass(frozen=True, eq=False)
class PointLight(Light):
    """Light from one point, falling off with the square of the distance d: `color max(0, normal . to_light / d) / d^2`.

    Attributes:
        position: [3] world frame.
        color: [3] what a white surface shows that faces the light at distance 1 (glTF's intensity divided by pi).

    >>> PointLight((0.0, 2.0, 0.0)).irradiance(torch.zeros(1, 3), torch.tensor([[0.0, 1.0, 0.0]]))
    tensor([[0.2500, 0.2500, 0.2500]])
    """

    position: Vector
    color: Vector = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        _check_vector("position", self.position)
        _check_vector("color", self.color)

    def irradiance(self, positions: Tensor, normals: Tensor) -> Tensor:
        to_light = _vector("position", self.position, positions) - positions
        squared = (to_light * to_light).sum(-1, keepdim=True)
        # A point at the light itself sees no direction. The bound keeps d^-5, which the gradient meets, in range.
        closeness = squared.clamp_min(torch.finfo(positions.dtype).tiny ** (1 / 3)).rsqrt()
        facing = (normals * to_light).sum(-1, keepdim=True).clamp_min(0.0)
        return facing * (closeness * closeness * closeness) * _vector("color", self.color, positions)


@dataclass(frozen=True, eq=False)
class SphericalHarmonicsLight(Light):
    """A distant environment, given by the spherical harmonics of its radiance.

    The irradiance is `sum_lm A_l / pi L_lm Y_lm(normal)` with A = pi, 2 pi / 3, pi / 4 (Ramamoorthi & Hanrahan, "An
    efficient representation for irradiance environment maps", 2001). Orders above 2 hardly matter: they leave 1 % on
    average. The truncated sum can be a little negative opposite to a strong light; it is not clamped.

    Attributes:
        coefficients: [(L + 1)^2, 3] radiance coefficients L_lm for L = 0, 1 or 2, one row per (l, m) in the order
            00, 1-1, 10, 11, 2-2, 2-1, 20, 21, 22; the basis is real, without the Condon-Shortley sign, with axes of
            the world frame: 1, y, z, x, xy, yz, 3z^2 - 1, xz, x^2 - y^2, each times its norm. An environment
            of radiance 1 everywhere has L_00 = sqrt(4 pi) and lights a surface to exactly its own colour.

    >>> light = SphericalHarmonicsLight(torch.full((1, 3), math.sqrt(4 * math.pi)))
    >>> light.irradiance(torch.zeros(1, 3), torch.tensor([[0.0, 1.0, 0.0]]))
    tensor([[1.0000, 1.0000, 1.0000]])
    """

    coefficients: Tensor

    def __post_init__(self) -> None:
        value = self.coefficients
        fits = isinstance(value, Tensor) and value.is_floating_point() and value.shape in ((1, 3), (4, 3), (9, 3))
        if not fits:
            raise ValueError(
                f"coefficients must be a float tensor of shape (1, 3), (4, 3) or (9, 3); got {shape_of(value)}: one"
                " row per harmonic up to order 2, higher ones do not reach a Lambert surface"
            )
        check_finite("coefficients", value)

    @classmethod
    def from_panorama(cls, image: Tensor) -> "SphericalHarmonicsLight":
        """The light of an environment: [H, W, 3] radiance by direction, as `sample_panorama` takes it.

        Differentiable to the image. The pixels' own solid angles weigh them.

        >>> light = SphericalHarmonicsLight.from_panorama(torch.ones(64, 128, 3))
        >>> light.irradiance(torch.zeros(1, 3), torch.tensor([[0.0, 1.0, 0.0]])).round(decimals=3)
        tensor([[1., 1., 1.]])
        """
        check_tensor("image", image, ndim=3, last=3, hint="[height, width, 3], linear")
        height, width, _ = image.shape
        polar = torch.linspace(0, math.pi, height + 1, dtype=torch.float64)
        solid_angle = (polar[:-1].cos() - polar[1:].cos()) * (2 * math.pi / width)  # [H]
        directions = panorama_directions((height, width)).to(image)
        arriving = _harmonics(directions.reshape(-1, 3)).reshape(height, width, 9)
        basis = arriving / arriving.new_tensor([1.0] + [2 / 3] * 3 + [1 / 4] * 5)  # Y_lm itself
        rows = torch.stack([(basis[..., k, None] * image).sum(1) for k in range(9)])  # [9, H, 3]
        return cls((rows * solid_angle.to(image)[:, None]).sum(1))

    def irradiance(self, positions: Tensor, normals: Tensor) -> Tensor:
        coefficients = _on(self.coefficients, "coefficients", positions)
        return _harmonics(normals)[:, : len(coefficients)] @ coefficients


@dataclass(frozen=True, eq=False)
class Lambert:
    """The shader of matte surfaces: `surface_color` times the light that arrives, summed over the lights.

    No shadows and no light from surface to surface. Without any light everything is black.

    Attributes:
        lights: any number of them, in a list or tuple.
        normals: "smooth" or "flat", see `shading_normals`.

    >>> shader = Lambert([AmbientLight((0.2, 0.2, 0.2)), DirectionalLight((0, 0, 1))], normals="flat")
    """

    lights: Sequence[Light]
    normals: Normals = "smooth"

    def __post_init__(self) -> None:
        if isinstance(self.lights, Light):
            raise TypeError(f"lights must be a list of lights; got one {shape_of(self.lights)}: write [light]")
        object.__setattr__(self, "lights", tuple(self.lights))
        for i, light in enumerate(self.lights):
            if not isinstance(light, Light):
                raise TypeError(f"lights[{i}] must be a Light; got {shape_of(light)}")
        _check_kind(self.normals)

    @property
    def faceted(self) -> bool:
        """Whether the colour jumps at every edge: `render` then follows them all."""
        return self.normals == "flat"

    def __call__(self, fragments: Fragments, mesh: Mesh) -> Tensor:
        """Linear colour [N, 3]."""
        albedo = surface_color(fragments, mesh)
        if albedo.shape[-1] != 3:
            raise ValueError(
                f"lights need colours with 3 channels (RGB); got {albedo.shape[-1]} from the mesh's vertex_colors or"
                " materials: render other attributes unlit"
            )
        positions = interpolate(mesh.vertices, mesh.faces, fragments)
        normals = shading_normals(fragments, mesh, self.normals)
        arriving = torch.zeros_like(positions)
        for light in self.lights:
            arriving = arriving + light.irradiance(positions, normals)
        return albedo * arriving


# --- shaders of buffers: what a fragment is, rather than how it looks ---------------------------------------------


def depth_shader(fragments: Fragments, mesh: Mesh) -> Tensor:
    """[N, 1] depth in the camera's own measure."""
    return fragments.depth[:, None]


def normal_shader(fragments: Fragments, mesh: Mesh) -> Tensor:
    """[N, 3] smooth unit normals in the world frame, on the side that is seen."""
    return shading_normals(fragments, mesh)


def position_shader(fragments: Fragments, mesh: Mesh) -> Tensor:
    """[N, 3] points on the surface, in the world frame."""
    return interpolate(mesh.vertices, mesh.faces, fragments)


def uv_shader(fragments: Fragments, mesh: Mesh) -> Tensor:
    """[N, 2] texture coordinates; (0, 0) is the lower left corner of the texture."""
    if mesh.uvs is None or mesh.uv_faces is None:
        raise ValueError("mesh must have uvs to show them; got a mesh with uvs None")
    return interpolate(mesh.uvs, mesh.uv_faces, fragments)


# --- the pieces ---------------------------------------------------------------------------------------------------


def _material_color(fragments: Fragments, mesh: Mesh) -> Tensor | None:
    """Colours [N, C] by the materials of the mesh, or None where no material has any."""
    channels = next((m.channels for m in mesh.materials if m.channels is not None), None)
    if channels is None:
        return None
    uv = None if mesh.uvs is None else uv_shader(fragments, mesh)
    if len(mesh.materials) == 1:
        return _painted(mesh.materials[0], uv, len(fragments), mesh.vertices.new_ones(channels))
    assert mesh.material_index is not None
    of_fragment = mesh.material_index.index_select(0, fragments.face_index)
    members = [where_true(of_fragment == i) for i in range(len(mesh.materials))]
    colors = [
        _painted(
            material, None if uv is None else uv.index_select(0, rows), len(rows), mesh.vertices.new_ones(channels)
        )
        for material, rows in zip(mesh.materials, members, strict=True)
    ]
    return mesh.vertices.new_zeros(len(fragments), channels).index_copy(0, torch.cat(members), torch.cat(colors))


def _painted(material: Material, uv: Tensor | None, count: int, white: Tensor) -> Tensor:
    """Colours [count, C] of one material at `uv` [count, 2]; `white` [C] stands for a base colour that is not given."""
    base = white if material.base_color is None else material.base_color
    if material.texture is None:
        return base.expand(count, -1)
    assert uv is not None
    values = sample_texture(material.texture, uv)
    return values if material.base_color is None else values * base


def _harmonics(normals: Tensor) -> Tensor:
    """A_l / pi Y_lm [N, 9] at unit vectors [N, 3]."""
    x, y, z = normals.unbind(-1)
    first = 2 / 3 * math.sqrt(3 / (4 * math.pi))
    second = 1 / 4 * math.sqrt(15 / (4 * math.pi))
    return torch.stack(
        [
            torch.full_like(x, math.sqrt(1 / (4 * math.pi))),
            first * y,
            first * z,
            first * x,
            second * x * y,
            second * y * z,
            second / math.sqrt(12) * (3 * z * z - 1),
            second * x * z,
            second / 2 * (x * x - y * y),
        ],
        dim=-1,
    )


def _unit(vectors: Tensor) -> Tensor:
    """Vectors [..., 3] of length 1; zero, with a finite gradient, where the squared length is not a normal number."""
    squared = (vectors * vectors).sum(-1, keepdim=True)
    usable = squared > torch.finfo(vectors.dtype).tiny
    return torch.where(usable, vectors, 0.0) * torch.where(usable, squared, 1.0).rsqrt()


def _check_kind(kind: str) -> None:
    if kind not in ("smooth", "flat"):
        raise ValueError(f"normals must be 'smooth' or 'flat'; got {kind!r}")


def _check_vector(name: str, value: Any) -> None:
    """Raise unless `value` is three finite numbers, as a tensor or a sequence."""
    shape = tuple(value.shape) if isinstance(value, Tensor) else (len(value),) if isinstance(value, Sequence) else None
    if shape != (3,):
        got = f"{len(value)} values" if shape and not isinstance(value, Tensor) else shape_of(value)
        raise ValueError(f"{name} must be three numbers or a tensor of shape (3,); got {got}")
    numbers = _numbers(value)
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"{name} must be finite; got {numbers}")


def _numbers(value: Vector) -> list[float]:
    return [float(v.detach() if isinstance(v, Tensor) else v) for v in value]


def _vector(name: str, value: Vector, like: Tensor) -> Tensor:
    """A light's parameter as a tensor [3] with dtype and device of `like`."""
    if isinstance(value, Tensor):
        return _on(value, name, like)
    return torch.stack([torch.as_tensor(v, dtype=like.dtype, device=like.device) for v in value])


def _on(value: Tensor, name: str, like: Tensor) -> Tensor:
    if value.device != like.device:
        raise ValueError(
            f"{name} of the light must be on the device of the mesh, {like.device}; got {value.device}:"
            " move the light with light.to(device)"
        )
    return value.to(like.dtype)
