"""The kernels' oracle in plain torch: every face against every ray, in the same arithmetic.

Slow and simple. It is what the Warp kernels are tested against, and what runs where Warp has no backend.
"""

import torch
from torch import Tensor

MAX_OUTSIDE = 0.25  # of a barycentric: far beyond what rounding does to a face that is not edge-on
AT_EDGE = 2  # epsilons, of the distance: a ray that passes an edge so nearly goes through it
EDGE_ON = 4  # epsilons, of the distance: the height in the image of a face in which rounding decides what is seen
EPSILON = {torch.float32: 1.2e-7, torch.float64: 2.3e-16}
CHUNK_ELEMENTS = 1 << 22  # rays x faces looked at together; bounds the memory


def first_hit_reference(
    corners: Tensor,
    origins: Tensor | None,
    directions: Tensor,
    *,
    z_depth: bool,
    cull: bool = False,
    face_edges: Tensor | None = None,
    skip_edge: Tensor | None = None,
    skip_faces: Tensor | None = None,
    edges: Tensor | None = None,
    beside: Tensor | None = None,
    limit: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """First face [N] (-1: none) and depth [N] (infinity: none) along rays [N, 3] among `corners` [F, 3, 3]."""
    hits, depths = [], []
    size = max(CHUNK_ELEMENTS // max(corners.shape[0], 1), 1)
    for begin in range(0, directions.shape[0], size):
        part = slice(begin, begin + size)
        nudge = None if beside is None else beside[part]
        rays = None if origins is None else origins[part], directions[part], z_depth, cull
        depth = hit_depths(corners, *rays, nudge)
        if nudge is not None and limit is not None and edges is not None and face_edges is not None:
            assert skip_edge is not None
            known = skip_edge[part, None] >= 0
            vertices = edges[face_edges.clamp(min=0)].flatten(1)  # [F, 6]
            vertices = torch.where((face_edges < 0).repeat_interleave(2, dim=1), -1, vertices)
            common = vertices[None, :, :, None] == edges[skip_edge[part].clamp(min=0)][:, None, None]
            other = hit_depths(corners, *rays, -nudge)
            hides = torch.isinf(depth) & (other < limit[part, None]) & known & ~common.any(-1).any(-1)
            depth = torch.where(hides, other, depth)
        if face_edges is not None and skip_edge is not None:
            skipped = (face_edges.unsqueeze(0) == skip_edge[part, None, None]).any(-1) & (skip_edge[part, None] >= 0)
            depth = torch.where(skipped, torch.inf, depth)
        if skip_faces is not None:
            number = torch.arange(corners.shape[0], device=corners.device)
            depth = torch.where((skip_faces[part, :, None] == number).any(1), torch.inf, depth)
        if corners.shape[0] == 0:
            hits.append(torch.full_like(depth, -1, dtype=torch.int64).sum(1) - 1)
            depths.append(directions.new_full((len(depth),), torch.inf))
            continue
        best = depth.amin(1)
        face = (depth == best.unsqueeze(1)).to(torch.uint8).argmax(1)  # the lowest face at the least depth
        hits.append(torch.where(torch.isinf(best), -1, face))
        depths.append(best)
    if not hits:
        return directions.new_zeros(0, dtype=torch.int64), directions.new_zeros(0)
    return torch.cat(hits), torch.cat(depths)


def hit_depths(
    corners: Tensor,
    origins: Tensor | None,
    directions: Tensor,
    z_depth: bool,
    cull: bool,
    nudge: Tensor | None = None,
) -> Tensor:
    """Depth [N, F] at which each ray meets each face, infinity where it does not; `nudge` [N, 3] as `beside`."""
    points = [corners[:, i].unsqueeze(0) for i in range(3)]  # [1, F, 3]
    if origins is not None:
        points = [p - origins.unsqueeze(1) for p in points]  # [N, F, 3]
    d = directions.unsqueeze(1)  # [N, 1, 3]
    normals = [
        plane_normal(points[1], points[2]),
        plane_normal(points[2], points[0]),
        plane_normal(points[0], points[1]),
    ]
    w = [dot3(d, n) for n in normals]
    signs = [side_sign(wi, n) for wi, n in zip(w, normals, strict=True)]
    measure = torch.zeros_like(d) if z_depth else d / dot3(d, d).unsqueeze(-1)
    if z_depth:
        measure[..., 2] = 1
    total = (w[0] + w[1]) + w[2]
    inside = (signs[0] != 0) & (signs[0] == signs[1]) & (signs[0] == signs[2]) & (total != 0)
    if cull:
        inside &= signs[0] < 0
    z = [dot3(measure, p) for p in points]
    depth = ((w[0] * z[0] + w[1] * z[1]) + w[2] * z[2]) / total
    if nudge is not None:
        sides = [(points[i], points[(i + 1) % 3]) for i in (1, 2, 0)]
        eps = AT_EDGE * EPSILON[d.dtype]
        start = 0.0 if origins is None else 2 * _extent(origins).unsqueeze(1)
        inside = torch.ones_like(inside)
        bounds = []
        for x, n, (p, q) in zip(w, normals, sides, strict=True):
            bound = eps * (_extent(p + q) + start) * _extent(torch.linalg.cross(*torch.broadcast_tensors(d, q - p)))
            inside &= torch.where(x.abs() <= bound, dot3(nudge.unsqueeze(1), n), x).sign() == total.sign()
            bounds.append(bound)
        inside &= total.abs() > (bounds[0] + bounds[1]) + bounds[2]
        if cull:
            inside &= total < 0
    return torch.where(inside & (depth > 0), depth, torch.inf)


def barycentrics_reference(
    vertices: Tensor,
    faces: Tensor,
    face_index: Tensor,
    offsets: Tensor | None,
    origins: Tensor | None,
    directions: Tensor,
    z_depth: bool,
    held: Tensor | None = None,
    hold_backs: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Barycentrics [N, 3] and depth [N] where N rays meet the planes of their faces.

    Args:
        vertices: [P, 3].
        faces: [F, 3] index into the vertices; counted from `offsets` [N] on, if given.
        face_index: [N] index into `faces`.
        origins, directions: [N, 3] of the rays; None: the origin.
        z_depth: depth is z; otherwise it is the ray's parameter.
        held: [N] bool, those that do not move: without a derivative; None: all do.
        hold_backs: nor do those on faces seen from behind.

    The third result, [N] bool, says whether the corners are counter-clockwise for somebody at the ray's start.

    Rays that pass a triangle by more than `MAX_OUTSIDE` of its size get the weights of its nearest part, without a
    gradient: this happens where an almost edge-on face meets the rounding of an edge.

    The weight of a corner is the direction's distance from the plane through the origin and the opposite side,
    w = d . n (Olano & Greer 1997). A triangle that contains the origin in its plane has no barycentrics, and one that
    does so within rounding only random ones, of immense derivatives: they get equal weights and no gradient.
    """
    corners = vertices[corner_index(faces, face_index, offsets)]  # [N, 3, 3]
    if origins is not None:
        corners = corners - origins.unsqueeze(1)
    start, end = corners[:, [1, 2, 0]], corners[:, [2, 0, 1]]
    normals = torch.linalg.cross(start + end, end - start)  # [N, 3, 3] twice start x end
    weights = (normals * directions.unsqueeze(1)).sum(-1)
    total = weights.sum(-1, keepdim=True)
    front = total.squeeze(-1) < 0
    rounding = (_extent(start + end) * _extent(end - start)).sum(-1, keepdim=True) * _extent(directions).unsqueeze(-1)
    edge_on = EDGE_ON * EPSILON[total.dtype]
    flat = total.abs() <= (edge_on * rounding.detach()).clamp(min=smallest_total(total.dtype))
    weights = torch.where(flat, 1.0 / 3.0, weights / torch.where(flat, torch.ones_like(total), total))
    outside = ((weights < -MAX_OUTSIDE) | (weights > 1 + MAX_OUTSIDE)).any(-1, keepdim=True)
    nearest = weights.detach().clamp(0, 1)
    weights = torch.where(outside, nearest / nearest.sum(-1, keepdim=True), weights)
    if z_depth:
        depth = (weights * corners[..., 2]).sum(-1)
    else:
        along = (corners * directions.unsqueeze(1)).sum(-1)
        depth = (weights * along).sum(-1) / (directions * directions).sum(-1)
    if hold_backs:
        held = ~front if held is None else held | ~front
    if held is not None:
        weights = torch.where(held.unsqueeze(-1), weights.detach(), weights)
        depth = torch.where(held, depth.detach(), depth)
    return weights, depth, front


def corner_index(faces: Tensor, face_index: Tensor, offsets: Tensor | None) -> Tensor:
    """[N, 3] the vertices of faces [N], counted from `offsets` [N] on, if given."""
    index = faces.index_select(0, face_index)
    return index if offsets is None else index + offsets.unsqueeze(-1)


def smallest_total(dtype: torch.dtype) -> float:
    """Weights that sum to less have no reciprocal: the smallest normal number, with some room."""
    return 1e3 * torch.finfo(dtype).tiny


def plane_normal(a: Tensor, b: Tensor) -> Tensor:
    """2 a x b [..., 3], antisymmetric to the last bit."""
    s, e = a + b, b - a
    return torch.stack(
        [
            s[..., 1] * e[..., 2] - s[..., 2] * e[..., 1],
            s[..., 2] * e[..., 0] - s[..., 0] * e[..., 2],
            s[..., 0] * e[..., 1] - s[..., 1] * e[..., 0],
        ],
        dim=-1,
    )


def dot3(a: Tensor, b: Tensor) -> Tensor:
    """a . b over the last dimension, summed from the left like the kernels do."""
    return (a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1]) + a[..., 2] * b[..., 2]


def _extent(v: Tensor) -> Tensor:
    return (v[..., 0].abs() + v[..., 1].abs()) + v[..., 2].abs()


def side_sign(w: Tensor, n: Tensor) -> Tensor:
    """Sign of `w`; where it is zero that of the first component of `n` that is not."""
    sign = torch.sign(w)
    for axis in range(3):
        sign = torch.where(sign == 0, torch.sign(n[..., axis]), sign)
    return sign
