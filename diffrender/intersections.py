"""Intersections: the curves in which surfaces pass through each other, as straight segments that can be differentiated.

Such a curve is no edge of the mesh, but in an image it is one: what is seen jumps there from one surface to the other.
Which faces meet is decided by a kernel (`kernels.intersections`); where they meet can be differentiated: every end of a
segment is the point where a side of one face passes through the plane of the other.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from . import steady
from .checks import shape_of
from .kernels import meeting_points, where_true
from .kernels.intersections import Crossings, NearFaces, crossings, crossings_among, near_faces
from .mesh import Mesh

SLACK = 0.03  # of the mean length of a side: how far vertices may move before near faces are searched for again
MAX_NEAR = 16  # pairs of near faces per face: more, and a search for those that meet is as fast


@dataclass(frozen=True, eq=False)
class Intersections:
    """K straight segments in which two faces pass through each other.

    Attributes:
        ends: [K, 2, 3] in the frame of the mesh; differentiable to its vertices.
        faces: [K, 2] the two faces, lower index first; sorted.
    """

    ends: Tensor
    faces: Tensor


def intersections(mesh: Mesh, face_group: Tensor | None = None) -> Intersections:
    """All segments in which two faces of a mesh pass through each other.

    Where closed surfaces meet, the segments form closed curves: neighbours have an end in common, to the last bit.
    Faces in one plane do not meet, nor do faces with a common side. Surfaces that only touch meet as if one of them
    had been moved by an infinitesimal step, with all that hangs together with it: right through, or not at all.
    Positions are rounded to 2^-30 of the size of the mesh to decide which faces meet, not to say where.

    Args:
        mesh: V vertices, F faces.
        face_group: [F] integers: faces of different groups never meet (those drawn in different images, say).

    >>> import diffrender as dr
    >>> ball = dr.sphere(2)
    >>> pair = dr.join([ball, ball.replace(vertices=ball.vertices + torch.tensor([1.0, 0.0, 0.0]))])
    >>> found = intersections(pair)
    >>> found.ends[..., 0].mean()  # the balls meet half way between their centres
    tensor(0.5000)
    """
    if face_group is not None:
        face_group = _checked_group(face_group, mesh)
    found = _crossings(mesh, face_group)
    if len(found.faces) == 0:
        return Intersections(mesh.vertices[:0].reshape(0, 2, 3), found.faces)
    corners = mesh.faces.index_select(0, found.crossed.reshape(-1))
    ends = meeting_points(mesh.vertices, found.sides.reshape(-1, 2), corners).reshape(-1, 2, 3)
    long = where_true((ends[:, 0] != ends[:, 1]).any(-1))  # the others are points
    return Intersections(ends.index_select(0, long), found.faces.index_select(0, long))


@dataclass(frozen=True, eq=False)
class _LastSearch:
    """What was found out when faces were last searched for.

    Attributes:
        vertices: [V, 3] where they were then.
        slack: how far they may move before faces are searched for again; 0: that is not worth a try.
        near: which faces are near each other, if that was the search.
    """

    vertices: Tensor
    slack: float
    near: NearFaces | None


def _crossings(mesh: Mesh, face_group: Tensor | None) -> Crossings:
    """Which faces meet; without a search as long as vertices move little from call to call.

    The first call searches for faces that meet, the next one, if vertices have hardly moved, for all that are near each
    other, and those after it look at these only. What is found is the same.
    """
    vertices, topology = mesh.vertices.detach(), mesh.topology
    surface = (mesh.faces, topology.weld, topology.component)
    # What is near is found for surfaces that hang together where they are welded, and for all faces of a mesh.
    if face_group is not None or not torch.equal(vertices.index_select(0, topology.weld), vertices):
        return crossings(vertices, *surface, face_group)
    last, near, slack = topology.notes.get("intersections"), None, None
    if isinstance(last, _LastSearch) and last.vertices.dtype == vertices.dtype:
        way = float(torch.linalg.vector_norm(vertices - last.vertices, dim=-1).max()) if len(vertices) else 0.0
        if last.near is not None and way < last.near.slack:
            return crossings_among(last.near, vertices, *surface)
        if way < 2 * last.slack:
            near = near_faces(vertices, *surface, last.slack, MAX_NEAR * mesh.num_faces)
            slack = 0.0 if near is None else last.slack
        elif last.slack == 0:
            slack = 0.0
    slack = SLACK * _mean_side(mesh) if slack is None else slack
    topology.notes["intersections"] = _LastSearch(vertices.clone(), slack, near)
    return crossings(vertices, *surface) if near is None else crossings_among(near, vertices, *surface)


def _mean_side(mesh: Mesh) -> float:
    """The mean length of one side of every face."""
    if mesh.num_faces == 0:
        return 0.0
    start, end = (mesh.vertices.detach().index_select(0, mesh.faces[:, i]) for i in (0, 1))
    return float(steady.mean(torch.linalg.vector_norm(end - start, dim=-1)))


def _checked_group(face_group: object, mesh: Mesh) -> Tensor:
    if not isinstance(face_group, Tensor) or face_group.shape != (mesh.num_faces,) or face_group.is_floating_point():
        raise ValueError(
            f"face_group must hold one integer for each of the {mesh.num_faces} faces; got {shape_of(face_group)}"
        )
    if face_group.device != mesh.vertices.device:
        raise ValueError(
            f"face_group must be on the device of the mesh, {mesh.vertices.device}; got {face_group.device}"
        )
    return face_group
