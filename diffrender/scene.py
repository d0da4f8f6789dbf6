"""The packed scene: the triangles of every view in camera coordinates, without padding.

One mesh seen by several cameras keeps one list of faces and as many copies of its vertices as there are views; several
meshes are joined into one list of faces, each of which is drawn in the view of its mesh.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .cameras import Camera, LinearRays
from .checks import extremes, shape_of
from .derivatives import is_plain_autograd
from .kernels import (
    affine_rays,
    corner_index,
    project_linear,
    seen_from_outside,
    slots_in_groups,
    sort_keys,
    to_cameras,
)
from .mesh import Mesh, join
from .topology import Topology

SAME_RAY = 0.99  # cosine between the ray of a projected point and the point: less means outside of the lens' domain


@dataclass(frozen=True, eq=False)
class Scene:
    """What the stages from visibility to the boundary term share; built by `pack`.

    Attributes:
        mesh: the mesh, or all meshes joined.
        camera: with one flat batch dimension, `[B]`.
        vertices: [P, 3] in the camera frame of their view, differentiable.
        faces: [F, 3] `mesh.faces`.
        face_view: [F] the view each face is drawn in; None when every face is drawn in every view.
        vertex_view: [P] the view of each vertex; None together with `face_view`.
        face_start: [M] where each of the joined meshes starts in `faces`.
        batch_shape: shape of the images' leading dimensions, `()` or `[*batch]`.
        linear_rays: [B] rays affine in the pixel, if the camera has such.
        single: the camera without its batch, if there is only one: spares everybody the indexing.
    """

    mesh: Mesh
    camera: Camera
    vertices: Tensor
    faces: Tensor
    face_view: Tensor | None
    vertex_view: Tensor | None
    face_start: tuple[int, ...]
    batch_shape: tuple[int, ...]
    linear_rays: LinearRays | None
    single: Camera | None

    @property
    def num_views(self) -> int:
        """B, the number of images."""
        return int(self.camera.batch_shape[0])

    @property
    def copies(self) -> int:
        """How many copies there are of every face: as many as views, or 1 where each face has a view of its own."""
        return self.num_views if self.face_view is None else 1

    @property
    def view_of_vertices(self) -> Tensor:
        """[P] the view of every copy of every vertex."""
        if self.vertex_view is not None:
            return self.vertex_view
        return torch.arange(self.num_views, device=self.vertices.device).repeat_interleave(self.mesh.num_vertices)

    @property
    def vertex_stride(self) -> int:
        """How far the copies of a vertex are apart in `vertices`; 0 when there is one copy."""
        return self.mesh.num_vertices if self.face_view is None else 0

    @cached_property
    def stacked_rays(self) -> Tensor | None:
        """[B, 6, 3] `linear_rays` for kernels, without gradient."""
        if self.linear_rays is None:
            return None
        with torch.no_grad():
            parts = [part.expand(self.num_views, 3) for part in vars(self.linear_rays).values()]
            return torch.stack(parts, 1).to(self.vertices.dtype)

    @cached_property
    def projected(self) -> tuple[Tensor, Tensor]:
        """Pixels [P, 2] of all vertices and whether they mean anything [P]; without gradient, for linear cameras."""
        vertices, rays = self.vertices.detach(), self.stacked_rays
        assert rays is not None
        if self.camera.is_central or not bool(rays[:, 4:].any()):
            return project_linear(vertices, self.vertex_view, rays, central=self.camera.is_central)
        xy, _ = self.projected_by_camera  # a fan of rays from a line or a plane: only the camera knows
        return xy, torch.isfinite(xy).all(-1)

    @cached_property
    def projected_by_camera(self) -> tuple[Tensor, Tensor]:
        """Pixels [P, 2] and depth [P] of all vertices, without gradient, as `project` says."""
        with torch.no_grad():
            return self.project_at(self.view_of_vertices, self.vertices.detach())

    @cached_property
    def outside(self) -> Tensor:
        """[copies * F] bool, whether the outside of a face is turned to the camera, which has one centre."""
        assert self.camera.is_central
        return seen_from_outside(self.vertices.detach(), self.faces, self.vertex_stride, self.copies)

    @cached_property
    def vertex_rays(self) -> Tensor:
        """[P, 3] unit directions of the rays that see the vertices, zero where none does; without gradient."""
        vertices = self.vertices.detach()
        if self.linear_rays is not None and not self.camera.is_central:
            return self.linear_rays.direction.detach().to(vertices.dtype).index_select(0, self.view_of_vertices)
        with torch.no_grad():
            return self._directions_to(self.view_of_vertices, vertices, *self.projected_by_camera)

    def rays_to(self, view: Tensor, points: Tensor) -> Tensor:
        """Unit directions [N, 3] of the rays that see camera-frame points [N, 3], each in its `view`; zero for none."""
        return self._directions_to(view, points, *self.project_at(view, points))

    def _directions_to(self, view: Tensor, points: Tensor, xy: Tensor, depth: Tensor) -> Tensor:
        """The same for points that are projected already."""
        origins, directions = (rays.to(points.dtype) for rays in self.rays_at(view, xy))
        directions = directions / torch.linalg.vector_norm(directions, dim=-1, keepdim=True)
        met = (torch.cosine_similarity(points - origins, directions, dim=-1) > SAME_RAY) & (depth > 0)
        return torch.where(met.unsqueeze(-1), directions, 0.0)

    def place(self, points: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
        """Points [K, P, 3] of the mesh that belong to `faces` [K, ...] in the frames of the cameras that see them.

        Returns [B' K P, 3] and the view [B' K] of each group of P; B' is 1 where every face has a view of its own.
        """
        flat = points.reshape(-1, 3)
        if self.face_view is not None:
            view = self.face_view.index_select(0, faces.reshape(len(points), -1)[:, 0])
            each = view.repeat_interleave(points.shape[1])
            return _in_frames(self.camera, each, flat), view
        view = torch.arange(self.num_views, device=flat.device).repeat_interleave(len(points))
        return (self.single or self.camera).world_to_camera(flat).reshape(-1, 3), view

    def rays_at(self, view: Tensor, xy: Tensor) -> tuple[Tensor, Tensor]:
        """Camera-frame origins and directions [N, 3] of pixels `xy` [N, 2], each of its own `view` [N]."""
        if self.linear_rays is not None:
            parts = vars(self.linear_rays).values()
            if self._at_rest(xy):
                assert self.stacked_rays is not None
                directions = affine_rays(xy, view, self.stacked_rays, 3)
                if self.camera.is_central:
                    return directions.new_zeros(1).expand_as(directions), directions
                return affine_rays(xy, view, self.stacked_rays, 0), directions
            one = self.num_views == 1
            rays = LinearRays(*(part.squeeze(0) if one else part.index_select(0, view) for part in parts))
            at = xy if one else xy.unsqueeze(1)
            directions = rays.directions_at(at).reshape(-1, 3)
            if self.camera.is_central:
                return directions.new_zeros(1).expand_as(directions), directions
            return rays.at(at)[0].reshape(-1, 3), directions
        if self.single is not None:
            return self.single.local_rays(xy)
        return self._by_view(view, xy, lambda camera, values: camera.local_rays(values))

    def _at_rest(self, values: Tensor) -> bool:
        """Whether nobody differentiates a linear camera's rays through `values`: kernels are enough, then."""
        asked = values.requires_grad and torch.is_grad_enabled()
        return self.rays_rest and not asked and values.dtype == self.vertices.dtype

    @property
    def rays_rest(self) -> bool:
        """Whether nobody differentiates a linear camera's rays."""
        moving = any(part.requires_grad for part in vars(self.linear_rays).values()) and torch.is_grad_enabled()
        return not moving and is_plain_autograd()

    def project_at(self, view: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels [N, 2] and depth [N] of camera-frame points [N, 3], each in its own `view` [N]."""
        if self.single is not None:
            return self.single.local_project(points)
        return self._by_view(view, points, lambda camera, values: camera.local_project(values))

    def _by_view(
        self, view: Tensor, values: Tensor, method: Callable[[Camera, Tensor], tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        """A method of a batch of cameras, [B, K, C] -> ([B, K, ...], [B, K, ...]), for values [N, C] of their `view`.

        One camera per value would do the same; but what a camera prepares per call, it would prepare N times.
        """
        if len(view) == 0:
            first, second = method(self.camera[view], values.unsqueeze(1))
            return first.squeeze(1), second.squeeze(1)
        present, row = torch.unique(view, return_inverse=True)
        row, order = sort_keys(row)
        slot, longest = slots_in_groups(row, len(present))
        filled = order.new_full((len(present), longest), -1)
        filled.view(-1).index_copy_(0, slot, order)
        filled = torch.where(filled < 0, filled[:, :1], filled)  # empty slots repeat a value known to this camera
        padded = values.index_select(0, filled.reshape(-1)).reshape(*filled.shape, -1)
        slot = torch.empty_like(slot).index_copy_(0, order, slot)
        camera = self.camera if len(present) == self.num_views else self.camera[present]
        first, second = (x.flatten(0, 1).index_select(0, slot) for x in method(camera, padded))
        return first, second

    def offsets(self, view: Tensor) -> Tensor | None:
        """[N] where in `vertices` the copies for views [N] begin; None: there is one copy."""
        return view * self.vertex_stride if self.copies > 1 else None

    def drawn(self, view: Tensor, face_index: Tensor) -> Tensor:
        """[N] faces [N] in views [N], counted through all copies of all faces."""
        return face_index if self.copies == 1 else face_index + view * self.mesh.num_faces

    def corners(self, view: Tensor, face_index: Tensor) -> Tensor:
        """Indices [N, 3] into `vertices` of the corners of faces [N] in views [N]."""
        return corner_index(self.faces, face_index, self.offsets(view))


def pack(mesh: Mesh | Sequence[Mesh], camera: Camera) -> Scene:
    """Bring one mesh, or a list with one mesh per image, into the frames of the cameras.

    Args:
        mesh: one mesh for every camera, or a list of M meshes.
        camera: batched `[*batch]` or not; with a list of meshes its batch must be `[M]` or empty.
    """
    check_camera_and_mesh(camera, mesh)
    if isinstance(mesh, Mesh):
        _check_device(mesh, camera)
        flat, single = camera.flatten_batch(), None
        if flat.batch_shape[0] == 1:
            single = (flat[0] if camera.batch_shape else camera).frozen()
        else:
            flat = flat.frozen()
        dtype = torch.promote_types(mesh.vertices.dtype, flat.dtype)
        vertices = to_cameras(mesh.vertices.to(dtype), flat.R.to(dtype), flat.t.to(dtype))
        _check_extent(vertices)
        shape = tuple(camera.batch_shape)
        return Scene(mesh, flat, vertices, mesh.faces, None, None, (0,), shape, flat.linear_rays(), single)

    meshes = list(mesh)
    if tuple(camera.batch_shape) not in ((), (len(meshes),)):
        raise ValueError(
            f"camera must have no batch or one of {len(meshes)}, a camera per mesh; got {tuple(camera.batch_shape)}"
        )
    for m in meshes:
        _check_device(m, camera)
    device = camera.device
    flat = camera.flatten_batch()
    if not camera.batch_shape:
        flat = flat[torch.zeros(len(meshes), dtype=torch.int64, device=device)]
    joined = join(meshes)
    if len(meshes) > 1:  # a mesh of its own in each view: what touches in space is not welded
        vars(joined)["topology"] = Topology.join([m.topology for m in meshes])

    def view_of(counts: list[int]) -> Tensor:
        return torch.repeat_interleave(
            torch.arange(len(counts), device=device), torch.tensor(counts, dtype=torch.int64, device=device)
        )

    vertex_view = view_of([m.num_vertices for m in meshes])
    vertices = _in_frames(flat, vertex_view, joined.vertices)
    _check_extent(vertices)
    starts = [0]
    for m in meshes[:-1]:
        starts.append(starts[-1] + m.num_faces)
    face_view = view_of([m.num_faces for m in meshes])
    single = flat[0].frozen() if len(meshes) == 1 else None
    return Scene(
        joined, flat, vertices, joined.faces, face_view, vertex_view, tuple(starts), (len(meshes),),
        flat.linear_rays(), single,
    )  # fmt: skip


def _check_extent(vertices: Tensor) -> None:
    """Raise unless the volumes that visibility compares are numbers: `vertices` [P, 3], camera frame."""
    if vertices.numel() == 0:
        return
    low, high = extremes(vertices)
    largest, limit = max(-low, high), torch.finfo(vertices.dtype).max ** (1 / 3) / 4
    if not largest <= limit:
        raise ValueError(
            f"vertices must lie within {limit:.1g} of the camera, or products of three coordinates overflow; got "
            f"{largest:.1g} in {shape_of(vertices)}: choose a larger unit"
        )


def check_camera_and_mesh(camera: object, mesh: object) -> None:
    """Raise unless they are a camera, or a batch of them, and a mesh or a list of meshes."""
    if not isinstance(camera, Camera):
        raise TypeError(
            f"camera must be a Camera; got {shape_of(camera)}: the mesh comes first, and stack_cameras makes one batch "
            "of a list of cameras"
        )
    if camera.batch_shape.numel() == 0:
        raise ValueError(f"camera must hold at least one camera; its batch has the shape {tuple(camera.batch_shape)}")
    if isinstance(mesh, Mesh):
        return
    if not isinstance(mesh, (list, tuple)) or not mesh or not all(isinstance(m, Mesh) for m in mesh):
        got = [shape_of(m) for m in mesh] if isinstance(mesh, (list, tuple)) else shape_of(mesh)
        raise TypeError(f"mesh must be a Mesh or a list of at least one Mesh; got {got} (load_mesh reads files)")


def _check_device(mesh: Mesh, camera: Camera) -> None:
    if mesh.vertices.device != camera.device:
        raise ValueError(
            f"mesh and camera must be on one device; got {mesh.vertices.device} and {camera.device}: "
            "move one with .to(device)"
        )


def _in_frames(camera: Camera, view: Tensor, points: Tensor) -> Tensor:
    """World points [N, 3] in the frames of the cameras `view` [N]."""
    rotation, translation = camera.R.index_select(0, view), camera.t.index_select(0, view)
    return (rotation * points.unsqueeze(-2)).sum(-1) + translation
