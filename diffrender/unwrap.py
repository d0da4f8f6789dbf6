"""uv coordinates of one's own making: a surface cut into charts, which lie side by side on a texture.

A chart is a connected piece of the surface that looks in about the same of six directions, along the axes, and is laid
flat by parallel projection in that direction. No face is seen at less than `LEAST_COSINE`, so none is squeezed much; a
piece that covers another one in its own projection (a winding ramp) is cut off and becomes a chart of its own.
"""

import torch
from torch import Tensor

from .cameras import OrthographicCamera
from .mesh import Mesh
from .topology import connected
from .visibility import visibility

SMOOTHING = 8  # rounds in which each face takes over half of what its neighbours look like: fewer, larger charts
LEAST_COSINE = 0.3  # between a face and its chart: what looks that much away keeps to the axis nearest to it
LAYERS = 16  # times that a surface may wind over itself
HALVINGS = 12  # of the scale, when the largest that fits is searched


def unwrap(mesh: Mesh, size: int, *, padding: int = 2) -> Mesh:
    """`mesh` with new uvs, for a texture of `size` x `size` texels, in which each texel belongs to one place at most.

    Args:
        mesh: its surfaces may be open or closed, of any genus. Its own uvs and materials are left out.
        size: in texels; the charts are scaled alike, as large as fits.
        padding: texels that stay free around each chart on each side: what filters read next to its border.

    Areas on the texture are those on the surface times a common factor, less up to 1 / `LEAST_COSINE` where a face is
    inclined to its axis. Raises ValueError where `size` is too small to hold all charts with their padding.

    >>> from diffrender.primitives import cube
    >>> flat = unwrap(cube(), 64)
    >>> len(flat.uvs)  # the six sides share no corner
    24
    """
    if size < 1 or padding < 0:
        raise ValueError(f"size must be positive and padding not negative; got {size} and {padding}")
    bare = Mesh(mesh.vertices.detach(), mesh.faces)
    if bare.num_faces == 0:
        return mesh.replace(uvs=mesh.vertices.new_zeros(0, 2), uv_faces=mesh.faces, materials=(), material_index=None)
    direction = _directions(bare)
    layer = torch.zeros_like(direction)
    for _ in range(LAYERS):
        chart = _connected(bare, direction + 6 * layer)
        placed, depth, uv_faces = _laid_flat(bare, direction, chart, size, padding)
        hidden = _hidden(placed, depth, uv_faces, size)
        if len(hidden) == 0:
            break
        layer[hidden] += 1
    uvs = torch.stack([placed[:, 0] / size, 1 - placed[:, 1] / size], dim=-1)
    return mesh.replace(uvs=uvs, uv_faces=uv_faces, materials=(), material_index=None)


def _directions(mesh: Mesh) -> Tensor:
    """[F] in which of the directions +x, +y, +z, -x, -y, -z each face looks, much like its neighbours."""
    own = mesh.face_normals()
    smooth = own
    left, right, edge = _neighbours(mesh)
    for _ in range(SMOOTHING):
        both = smooth.new_zeros(mesh.topology.num_edges + 1, 3)  # the last one for sides that are no edge
        both[edge] = smooth[left] + smooth[right]
        smooth = torch.nn.functional.normalize(both[mesh.topology.face_edges].sum(1) + smooth, dim=-1)
    cosine, wanted = torch.cat([own, -own], dim=-1), torch.cat([smooth, -smooth], dim=-1)
    allowed = cosine >= LEAST_COSINE
    return torch.where(allowed, wanted, cosine - 2).argmax(-1)


def _neighbours(mesh: Mesh) -> tuple[Tensor, Tensor, Tensor]:
    """The two faces at each edge that has two, and the edge."""
    topology = mesh.topology
    edge = (topology.edge_count == 2).nonzero().squeeze(-1)
    first = topology.edge_start[edge]
    left, right = (topology.edge_halfedges[first + k] // 3 for k in (0, 1))
    return left, right, edge


def _connected(mesh: Mesh, label: Tensor) -> Tensor:
    """[F] number of the chart of each face: connected faces of the same `label`."""
    left, right, _ = _neighbours(mesh)
    same = label[left] == label[right]
    return connected(left[same], right[same], mesh.num_faces)


def _laid_flat(mesh: Mesh, direction: Tensor, chart: Tensor, size: int, padding: int) -> tuple[Tensor, Tensor, Tensor]:
    """The corners of the charts: texels [T, 2], x to the right and y down; height above the chart [T]; faces [F, 3]."""
    key, uv_faces = torch.unique(chart[:, None] * mesh.num_vertices + mesh.faces, return_inverse=True)
    corner = key.new_zeros(len(key)).index_copy(0, uv_faces.reshape(-1), direction.repeat_interleave(3))
    owner = key // mesh.num_vertices
    points = mesh.vertices[key % mesh.num_vertices]
    axis, sign = corner % 3, torch.where(corner < 3, 1.0, -1.0).to(points)
    # right-handed as seen from outside, so that no chart is a mirror image
    right, up, height = (points.gather(1, ((axis + k) % 3)[:, None]).squeeze(-1) for k in (1, 2, 0))
    flat = torch.stack([right * sign, -up], dim=-1)
    count = int(chart.max()) + 1
    spread = owner[:, None].expand(-1, 2)
    low = flat.new_zeros(count, 2).scatter_reduce(0, spread, flat, "amin", include_self=False)
    high = flat.new_zeros(count, 2).scatter_reduce(0, spread, flat, "amax", include_self=False)
    scale, place = _packed(high - low, size, padding)
    return place[owner].to(flat) + padding + (flat - low[owner]) * scale, height * sign, uv_faces


def _packed(boxes: Tensor, size: int, padding: int) -> tuple[float, Tensor]:
    """The largest scale at which `boxes` [N, 2] (width, height) fit on the texture, and their places [N, 2]."""
    place = _shelves(torch.zeros_like(boxes).long() + 2 * padding, size)
    if place is None:
        raise ValueError(
            f"size must be larger: {len(boxes)} charts with padding {padding} do not fit on {size} x {size} texels"
        )
    least, most = 0.0, size / max(float(boxes.max()), torch.finfo(boxes.dtype).tiny)
    for _ in range(HALVINGS):
        scale = (least + most) / 2
        found = _shelves((boxes * scale).ceil().long() + 2 * padding, size)
        least, most, place = (least, scale, place) if found is None else (scale, most, found)
    return least, place


def _shelves(boxes: Tensor, size: int) -> Tensor | None:
    """Places [N, 2] for `boxes` [N, 2] side by side on shelves, the highest first; None where they do not fit."""
    if int(boxes.max()) > size:
        return None
    order = boxes[:, 1].argsort(descending=True, stable=True)
    width, height = boxes[order].unbind(-1)
    ends = width.cumsum(0)
    place, first, y = torch.zeros_like(boxes), 0, 0
    while first < len(boxes):
        before = ends[first] - width[first]
        stop = int(torch.searchsorted(ends, before + size, right=True))
        place[order[first:stop]] = torch.stack(
            [(ends - width)[first:stop] - before, torch.full_like(ends[first:stop], y)], dim=-1
        )
        y += int(height[first])
        first = stop
    return place if y <= size else None


def _hidden(placed: Tensor, depth: Tensor, uv_faces: Tensor, size: int) -> Tensor:
    """Faces that lie below others at the centre of a texel."""
    camera = OrthographicCamera(1.0, 1.0, 0.0, 0.0, size=(size, size)).to(dtype=placed.dtype, device=placed.device)
    above, below = (
        visibility(Mesh(torch.cat([placed, away[:, None]], dim=-1), uv_faces), camera)
        for away in (1 + depth.max() - depth, 1 + depth - depth.min())
    )
    return below[above != below].unique()
