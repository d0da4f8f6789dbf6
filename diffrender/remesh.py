"""Remeshing: triangles of the size one asks for, nearly equilateral, on the same surface.

Botsch & Kobbelt 2004, "A remeshing approach to multiresolution modeling": split the long edges, collapse the short
ones, flip those that even out the valences, move vertices along the surface to the middle of their neighbours; a few
times over. Each pass does all operations at once that do not touch each other; the others wait for the next.

Collapses keep what the surface is (the link condition of Dey, Edelsbrunner, Guha & Nekhayev 1999), put the vertex
where it is nearest to the planes around (Garland & Heckbert 1997), and no operation turns a triangle over. New places
on the surface are on the triangles that were there, bent as their normals say (Boubekeur & Alexa 2008, "Phong
tessellation", which is right for spheres with a factor of 1/2), so that round shapes do not shrink; vertices on
creases stay where they are.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .checks import check_finite, shape_of
from .mesh import Mesh
from .topology import halfedge_ends

LONG, SHORT = 4 / 3, 4 / 5  # times the target: neither is undone by the other (section 4 of the paper)
PASSES = 12  # at most, of one kind of operation, until nothing is left to do
FEW = 0.002  # of the edges: fewer operations than that are not worth another pass
TURNED = 0.5  # cosine: the normal of a triangle turns by less than 60 degrees in one operation
FLAT = 0.9  # cosine between the faces at an edge that may be flipped: sharper edges are part of the shape
CREASE = 0.6  # cosine between the faces at an edge that is a crease
BEND = 0.5  # of Phong tessellation: exact for spheres up to the fourth power of the edge length
DAMPING = 0.7  # share of the way to the middle of the neighbours
SLIVER = 1e-3  # area relative to the squared longest side, below which a triangle has no normal to speak of


def remesh(mesh: Mesh, length: float | Tensor, *, iterations: int = 5) -> Mesh:
    """The surface of `mesh` with edges of the given length, from 4/5 to 4/3 of it where the shape allows.

    Args:
        mesh: vertices at the same position become one. Colours and given normals of vertices are interpolated.
        length: one for all edges, or [V] at each vertex of the mesh, interpolated between them.
        iterations: of splits, collapses, flips and moves.

    A closed manifold stays one, of the same genus. Open borders stay where they are, up to the collapse of edges along
    them; edges with more than two faces and their vertices are left alone. Detached: nothing flows back through it.

    Raises ValueError for meshes with uvs or materials, whose seams it does not know.

    >>> import diffrender as dr
    >>> ball = dr.sphere(2)
    >>> ball = remesh(dr.Mesh(ball.vertices, ball.faces), 0.2)
    >>> a, b = ball.vertices[ball.topology.edges].unbind(1)
    >>> ball.topology.closed, bool(((a - b).norm(dim=-1) - 0.2).abs().mean() < 0.03)
    (True, True)
    """
    if mesh.uvs is not None or mesh.materials:
        raise ValueError("mesh must have no uvs and no materials: remeshing does not know their seams")
    if iterations < 0:
        raise ValueError(f"iterations must be at least 0; got {iterations}")
    state = _State.of(mesh, _lengths(length, mesh))
    for _ in range(iterations):
        state = _split(state)
        state = _collapse(state)
        state = _flip(state)
        state = _relax(state)
    return state.mesh(mesh)


@dataclass(frozen=True, eq=False)
class _State:
    """A welded mesh in the making.

    Attributes:
        vertices: [V, 3].
        values: [V, 1 + C] target length, then what is interpolated along with it.
        faces: [F, 3].
    """

    vertices: Tensor
    values: Tensor
    faces: Tensor

    @staticmethod
    def of(mesh: Mesh, length: Tensor) -> "_State":
        given = [x for x in (mesh.vertex_colors, mesh.vertex_normals) if x is not None]
        values = torch.cat([length[:, None], *given], dim=-1).detach()
        faces = mesh.topology.weld[mesh.faces]
        alive = (faces != faces.roll(1, dims=1)).all(-1)  # the others have lost a side to the weld
        return _compact(mesh.vertices.detach(), values, faces[alive])

    def mesh(self, like: Mesh) -> Mesh:
        """With the attributes that `like` has."""
        sizes = [0 if x is None else x.shape[-1] for x in (like.vertex_colors, like.vertex_normals)]
        colors, normals = self.values[:, 1:].split(sizes, dim=-1)
        return Mesh(
            self.vertices,
            self.faces,
            vertex_colors=colors if sizes[0] else None,
            vertex_normals=torch.nn.functional.normalize(normals, dim=-1) if sizes[1] else None,
        )

    @property
    def length(self) -> Tensor:
        return self.values[:, 0]


class _Edges:
    """Edges of `faces` [F, 3] between `count` vertices, and what is around them.

    Attributes:
        ends: [E, 2] lower vertex first, in lexicographic order.
        of_face: [F, 3] the edge opposite to each corner.
        opposite: [E, 2] corners across from the edge of its one or two faces; -1 where there is no second.
        face: [E, 2] those faces: the first has the edge from the lower to the higher end, if any has.
        faces: [E] how many faces there are.
        fixed: [V] whether a vertex is at an edge with more than two faces, or two that disagree about the outside.
        border: [V] whether it is at an edge with one face.
    """

    def __init__(self, faces: Tensor, count: int) -> None:
        start, end = halfedge_ends(faces)
        low, high = torch.minimum(start, end), torch.maximum(start, end)
        self.count = count
        self.key, self.of_halfedge, self.faces = torch.unique(
            low * count + high, return_inverse=True, return_counts=True
        )
        self.ends = torch.stack([self.key // count, self.key % count], dim=-1)
        self.of_face = self.of_halfedge.reshape(-1, 3)
        halfedge = torch.arange(len(start), device=faces.device)
        self.face = faces.new_full((len(self.key), 2), -1)
        forward = start < end
        self.face[self.of_halfedge[forward], 0] = halfedge[forward] // 3
        self.face[self.of_halfedge[~forward], 1] = halfedge[~forward] // 3
        self.opposite = torch.full_like(self.face, -1)
        corner = faces.reshape(-1)
        self.opposite[self.of_halfedge[forward], 0] = corner[forward]
        self.opposite[self.of_halfedge[~forward], 1] = corner[~forward]
        both = (self.face >= 0).sum(-1)
        self.inner = (self.faces == 2) & (both == 2)
        self.border = self.at(self.faces == 1)
        self.fixed = self.at((self.faces > 2) | (both < self.faces))

    def at(self, chosen: Tensor) -> Tensor:
        """[V] whether a vertex is an end of one of the `chosen` edges."""
        found = torch.zeros(self.count, dtype=torch.bool, device=chosen.device)
        found[self.ends[chosen].reshape(-1)] = True
        return found

    def exist(self, a: Tensor, b: Tensor) -> Tensor:
        """Whether there is an edge between vertices `a` and `b`."""
        key = torch.minimum(a, b) * self.count + torch.maximum(a, b)
        place = torch.searchsorted(self.key, key).clamp(max=max(len(self.key) - 1, 0))
        return self.key[place] == key

    def valence(self) -> Tensor:
        """[V] number of edges."""
        return torch.bincount(self.ends.reshape(-1), minlength=self.count)

    def lengths(self, vertices: Tensor) -> Tensor:
        return (vertices[self.ends[:, 0]] - vertices[self.ends[:, 1]]).norm(dim=-1)


def _lengths(length: float | Tensor, mesh: Mesh) -> Tensor:
    """[V] checked."""
    target = torch.as_tensor(length).to(mesh.vertices).detach()
    if target.shape not in ((), (mesh.num_vertices,)):
        raise ValueError(
            f"length must be a number, or one for each of the {mesh.num_vertices} vertices; got {shape_of(target)}"
        )
    check_finite("length", target)
    if bool((target <= 0).any()):
        raise ValueError(f"length must be positive; got {float(target.min())}")
    return target.expand(mesh.num_vertices)


def _compact(vertices: Tensor, values: Tensor, faces: Tensor) -> _State:
    """Only the vertices that faces use, in their order."""
    used = torch.zeros(len(vertices), dtype=torch.bool, device=faces.device)
    used[faces.reshape(-1)] = True
    return _State(vertices[used], values[used], (used.cumsum(0) - 1)[faces])


# ------------------------------------------------------------------------------------------------------------- split


def _split(state: _State) -> _State:
    """Halve all edges that are too long, until there are none."""
    for _ in range(PASSES):
        edges = _Edges(state.faces, len(state.vertices))
        long = edges.lengths(state.vertices) > LONG * state.length[edges.ends].mean(-1)
        if not bool(long.any()):
            break
        state = _halved(state, edges, long)
    return state


def _halved(state: _State, edges: _Edges, long: Tensor) -> _State:
    """The mesh with a vertex in the middle of each edge that is `long` [E]; faces are cut to match."""
    ends = edges.ends[long]
    halves = torch.full_like(state.vertices[ends][..., 0], 0.5)
    middles = _bent(state.vertices[ends], _smooth_normals(state, edges)[ends], halves)
    vertices = torch.cat([state.vertices, middles])
    values = torch.cat([state.values, state.values[ends].mean(1)])
    middle = torch.where(long, len(state.vertices) + long.cumsum(0) - 1, -1)[edges.of_face]  # [F, 3], -1 where none
    count = (middle >= 0).sum(-1)
    pieces = [state.faces[count == 0]]

    def turned(which: Tensor, first: Tensor) -> tuple[Tensor, ...]:
        """Corners and middles of the faces `which`, beginning with the corner `first`."""
        order = (first[:, None] + torch.arange(3, device=first.device)) % 3
        return *state.faces[which].gather(1, order).unbind(-1), *middle[which].gather(1, order).unbind(-1)

    one = count == 1
    a, b, c, m, _, _ = turned(one, (middle[one] >= 0).int().argmax(-1))  # the middle is across from a
    pieces += [torch.stack([a, b, m], -1), torch.stack([a, m, c], -1)]
    two = count == 2
    a, b, c, _, n, p = turned(two, (middle[two] < 0).int().argmax(-1))  # the whole side is across from a
    pieces += [torch.stack([a, p, n], -1)]
    # the quadrilateral p b c n is cut along its shorter diagonal
    straight = (vertices[p] - vertices[c]).square().sum(-1) < (vertices[b] - vertices[n]).square().sum(-1)
    pieces += [
        torch.stack([p, b, torch.where(straight, c, n)], -1),
        torch.stack([torch.where(straight, p, b), c, n], -1),
    ]
    three = count == 3
    (a, b, c), (m, n, p) = state.faces[three].unbind(-1), middle[three].unbind(-1)
    pieces += [torch.stack(x, -1) for x in ((a, p, n), (p, b, m), (n, m, c), (m, n, p))]
    return _State(vertices, values, torch.cat(pieces))


# ---------------------------------------------------------------------------------------------------------- collapse


def _collapse(state: _State) -> _State:
    """Collapse edges that are too short, until none is left that may be."""
    for _ in range(PASSES):
        edges = _Edges(state.faces, len(state.vertices))
        length = edges.lengths(state.vertices)
        candidate = (length < SHORT * state.length[edges.ends].mean(-1)).nonzero().squeeze(-1)
        candidate = candidate[_keeps_the_surface(edges, candidate)]
        place = _best_place(state, edges, candidate)
        good = _keeps_its_side(state, edges, candidate, place)
        candidate, place = candidate[good], place[good]
        chosen = _apart(edges, candidate, -length[candidate], around=True)
        state = _collapsed(state, edges, candidate[chosen], place[chosen])
        if len(candidate) == 0 or int(chosen.sum()) < FEW * len(edges.key):
            break
    return state


def _keeps_the_surface(edges: _Edges, candidate: Tensor) -> Tensor:
    """[N] whether the surface stays what it is when the edges `candidate` [N] collapse (the link condition)."""
    ends, opposite = edges.ends[candidate], edges.opposite[candidate]
    a, b = ends.unbind(-1)
    single = edges.faces[candidate] == 1
    good = (edges.inner[candidate] | single) & ~(edges.fixed[a] | edges.fixed[b])
    good &= single | ~(edges.border[a] & edges.border[b])  # an edge across, which would pinch the surface
    # with a valence of 3 (2 on a border) the vertex across would be left with two faces back to back (or none)
    least = torch.where(edges.border, 2, 3)
    spare = (edges.valence() > least)[opposite.clamp(min=0)] | (opposite < 0)
    good &= spare.all(-1)
    # no neighbours in common but the vertices across
    start, neighbour = _neighbours(edges)
    row, at = _ragged(start, a)
    common = edges.exist(neighbour[at], b[row])
    number = torch.zeros_like(candidate).index_add_(0, row, common.long())
    return good & (number == edges.faces[candidate])


def _best_place(state: _State, edges: _Edges, candidate: Tensor) -> Tensor:
    """[N, 3 + C] vertex and values at the end or the middle of each edge, where it is nearest to the planes around."""
    a, b = edges.ends[candidate].unbind(-1)
    both = torch.cat([state.vertices, state.values], dim=-1)
    options = torch.stack([both[a], both[b], (both[a] + both[b]) / 2], dim=1)  # [N, 3, 3 + C]
    quadric = _quadrics(state, edges)
    point = torch.cat([options[..., :3], torch.ones_like(options[..., :1])], dim=-1).to(quadric)
    error = torch.einsum("nki,nij,nkj->nk", point, quadric[a] + quadric[b], point)
    # a vertex on the border stays there; and the middle, where it is as good: flat places stay even
    on_border = edges.border[a] != edges.border[b]
    error[:, 0] += torch.where(on_border & edges.border[b], torch.inf, 0.0)
    error[:, 1] += torch.where(on_border & edges.border[a], torch.inf, 0.0)
    error[:, 2] += torch.where(on_border, torch.inf, 0.0)
    tiny = 1e-8 * state.length[a].square() * edges.lengths(state.vertices)[candidate].square()
    best = torch.where(error[:, 2] <= error.amin(-1) + tiny, 2, error.argmin(-1))
    return options[torch.arange(len(best), device=best.device), best]


def _quadrics(state: _State, edges: _Edges) -> Tensor:
    """[V, 4, 4] sum of squared distances to the planes of the faces around, weighted by area.

    On a border, planes that stand on the faces along it keep it in its place.
    """
    vertices = state.vertices.to(torch.float64)  # squares of small distances between large numbers
    corners = vertices[state.faces]
    doubled = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = doubled.norm(dim=-1, keepdim=True)
    normal = torch.nn.functional.normalize(doubled, dim=-1)
    rim = (edges.faces == 1).nonzero().squeeze(-1)
    start, end = vertices[edges.ends[rim]].unbind(1)
    upright = torch.linalg.cross(end - start, normal[edges.face[rim].amax(-1)])  # as long as the edge
    weight = (end - start).square().sum(-1, keepdim=True)
    planes = torch.cat(
        [_planes(normal, corners[:, 0], area), _planes(torch.nn.functional.normalize(upright, dim=-1), start, weight)]
    )
    vertex = torch.cat([state.faces, torch.cat([edges.ends[rim], edges.ends[rim, :1]], dim=-1)])
    result = planes.new_zeros(len(state.vertices), 4, 4)
    for k in range(3):  # corners; the first end of a border edge counts twice
        result.index_add_(0, vertex[:, k], planes)
    return result


def _planes(normal: Tensor, point: Tensor, weight: Tensor) -> Tensor:
    """[N, 4, 4] weighted squared distance to planes, as quadratic forms of (x, y, z, 1)."""
    plane = torch.cat([normal, -(normal * point).sum(-1, keepdim=True)], dim=-1)
    return weight[..., None] * plane[:, :, None] * plane[:, None, :]


def _keeps_its_side(state: _State, edges: _Edges, candidate: Tensor, place: Tensor) -> Tensor:
    """[N] whether no triangle around turns over or becomes a sliver, and no edge too long, when edges collapse."""
    start, of_corner = _corners_at(state.faces, len(state.vertices))
    good = torch.ones_like(candidate, dtype=torch.bool)
    a, b = edges.ends[candidate].unbind(-1)
    for moved, other in ((a, b), (b, a)):
        row, at = _ragged(start, moved)
        corner = of_corner[at]
        face, first = corner // 3, corner % 3
        order = (first[:, None] + torch.arange(3, device=first.device)) % 3
        index = state.faces[face].gather(1, order)  # [M, 3], the moved vertex first
        stays = (index[:, 1] != other[row]) & (index[:, 2] != other[row])  # the others vanish
        row, index = row[stays], index[stays]
        before = state.vertices[index]
        after = torch.stack([place[row, :3], before[:, 1], before[:, 2]], dim=1)
        bad = _turned(before, after)
        goal = (place[row, 3:4] + state.length[index[:, 1:]]) / 2
        bad |= ((after[:, 1:] - after[:, :1]).norm(dim=-1) > LONG * goal).any(-1)
        good[row[bad]] = False
    return good


def _collapsed(state: _State, edges: _Edges, chosen: Tensor, place: Tensor) -> _State:
    """The mesh with the `chosen` edges, which are apart, collapsed to `place`."""
    kept, gone = edges.ends[chosen].unbind(-1)
    both = torch.cat([state.vertices, state.values], dim=-1)
    both[kept] = place
    target = torch.arange(len(both), device=gone.device)
    target[gone] = kept
    faces = target[state.faces]
    alive = (faces != faces.roll(1, dims=1)).all(-1)
    return _compact(both[:, :3], both[:, 3:], faces[alive])


# -------------------------------------------------------------------------------------------------------------- flip


def _flip(state: _State) -> _State:
    """Flip edges where that brings the valences nearer to 6 (4 on a border), until none is left that may be."""
    faces, vertices = state.faces, state.vertices
    for _ in range(PASSES):
        edges = _Edges(faces, len(vertices))
        a, b = edges.ends.unbind(-1)
        c, d = edges.opposite.clamp(min=0).unbind(-1)  # faces (a, b, c) and (b, a, d)
        surplus = edges.valence() - torch.where(edges.border, 4, 6)
        # the sum of squares of a, b, c, d, when a and b lose an edge and c and d gain one
        gain = surplus[a] + surplus[b] - surplus[c] - surplus[d] - 2
        candidate = ((gain > 0) & edges.inner & (c != d) & ~edges.exist(c, d)).nonzero().squeeze(-1)
        a, b, c, d = (x[candidate] for x in (a, b, c, d))
        before = vertices[torch.stack([a, b, c, b, a, d], -1)].reshape(-1, 2, 3, 3)
        after = vertices[torch.stack([c, d, b, d, c, a], -1)].reshape(-1, 2, 3, 3)
        normal = _normals(before)
        bad = (normal[:, 0] * normal[:, 1]).sum(-1) < FLAT
        bad |= (_turned(before, after) | _turned(before.flip(1), after)).any(-1)
        candidate = candidate[~bad]
        chosen = candidate[_apart(edges, candidate, gain[candidate].to(vertices), around=False)]
        a, b = edges.ends[chosen].unbind(-1)
        c, d = edges.opposite[chosen].unbind(-1)
        faces = faces.clone()
        faces[edges.face[chosen, 0]] = torch.stack([c, d, b], -1)
        faces[edges.face[chosen, 1]] = torch.stack([d, c, a], -1)
        if len(chosen) < max(1, FEW * len(edges.key)):
            break
    return _State(vertices, state.values, faces)


# ------------------------------------------------------------------------------------------------------------- relax


def _relax(state: _State) -> _State:
    """Move vertices towards the middle of their neighbours, along the surface."""
    edges = _Edges(state.faces, len(state.vertices))
    low, high = edges.ends.unbind(-1)
    # heavier neighbours where edges shall be long: the sizes follow the field
    weight = state.length[edges.ends].mean(-1, keepdim=True)
    total = torch.zeros_like(state.vertices[:, :1]).index_add_(0, low, weight).index_add_(0, high, weight)
    apart = weight * (state.vertices[high] - state.vertices[low])
    pull = torch.zeros_like(state.vertices).index_add_(0, low, apart).index_add_(0, high, -apart) / total
    normals = _smooth_normals(state, edges)
    still = (normals == 0).all(-1)
    goal = torch.where(still[:, None], state.vertices, state.vertices + DAMPING * pull)
    both = _onto(state, normals, goal)
    both[still, :3], both[still, 3:] = state.vertices[still], state.values[still]
    for _ in range(PASSES):  # take back what would turn a triangle over
        turned = _turned(state.vertices[state.faces], both[state.faces][..., :3])
        if not bool(turned.any()):
            break
        back = state.faces[turned].reshape(-1)
        both[back, :3], both[back, 3:] = state.vertices[back], state.values[back]
    return _State(both[:, :3], both[:, 3:], state.faces)


def _smooth_normals(state: _State, edges: _Edges) -> Tensor:
    """[V, 3] unit normals, area-weighted; zero at vertices on creases, on borders and where faces disagree."""
    corners = state.vertices[state.faces]
    doubled = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal = torch.nn.functional.normalize(doubled, dim=-1)
    left, right = normal[edges.face.clamp(min=0)].unbind(1)
    rough = edges.at(edges.inner & ((left * right).sum(-1) < CREASE)) | edges.border | edges.fixed
    total = torch.zeros_like(state.vertices)
    for k in range(3):
        total.index_add_(0, state.faces[:, k], doubled)
    return torch.where(rough[:, None], 0.0, torch.nn.functional.normalize(total, dim=-1))


def _bent(corners: Tensor, normals: Tensor, weights: Tensor) -> Tensor:
    """[N, 3] points at `weights` [N, K] of `corners` [N, K, 3], bent towards the planes at the corners.

    A corner whose normal is zero has no plane, and bends nothing.
    """
    flat = (weights[..., None] * corners).sum(1)
    above = ((flat[:, None] - corners) * normals).sum(-1, keepdim=True)
    return flat - BEND * (weights[..., None] * above * normals).sum(1)


def _onto(state: _State, normals: Tensor, goal: Tensor) -> Tensor:
    """[V, 3 + C] the point of the faces around each vertex that is nearest to `goal` [V, 3], bent, and its values."""
    start, of_corner = _corners_at(state.faces, len(state.vertices))
    row, at = _ragged(start, torch.arange(len(goal), device=goal.device))
    corners = state.vertices[state.faces[of_corner[at] // 3]]
    weights = _nearest_weights(goal[row], corners)
    distance = ((weights[..., None] * corners).sum(1) - goal[row]).square().sum(-1)
    least = distance.new_full((len(goal),), torch.inf).scatter_reduce_(0, row, distance, "amin")
    index = torch.arange(len(row), device=row.device)
    first = torch.full_like(row[: len(goal)], len(row)).scatter_reduce_(
        0, row, torch.where(distance == least[row], index, len(row)), "amin"
    )
    corner, weights = state.faces[of_corner[at[first]] // 3], weights[first]
    values = (weights[..., None] * state.values[corner]).sum(1)
    return torch.cat([_bent(state.vertices[corner], normals[corner], weights), values], dim=-1)


def _nearest_weights(point: Tensor, corners: Tensor) -> Tensor:
    """[N, 3] barycentrics of the point of each triangle [N, 3, 3] that is nearest to `point` [N, 3].

    Inside, where the point projects into the triangle; otherwise the best of the nearest points on its sides.
    """
    a, b, c = corners.unbind(1)
    u, v, w = b - a, c - a, point - a
    uu, uv, vv, uw, vw = ((x * y).sum(-1) for x, y in ((u, u), (u, v), (v, v), (u, w), (v, w)))
    determinant = uu * vv - uv * uv
    flat = determinant <= SLIVER**2 * uu * vv
    safe = torch.where(flat, 1.0, determinant)
    s, t = (vv * uw - uv * vw) / safe, (uu * vw - uv * uw) / safe
    inside = torch.stack([1 - s - t, s, t], dim=-1)
    sides = []
    for k in range(3):
        start, end = corners[:, k], corners[:, (k + 1) % 3]
        along = end - start
        share = ((point - start) * along).sum(-1) / along.square().sum(-1).clamp(min=torch.finfo(along.dtype).tiny)
        share = share.clamp(0, 1)
        sides.append(torch.stack([1 - share, share, torch.zeros_like(share)], dim=-1).roll(k, dims=-1))
    options = torch.stack(sides, dim=1)  # [N, 3, 3]
    distance = (options @ corners - point[:, None]).square().sum(-1)
    best = options[torch.arange(len(point), device=point.device), distance.argmin(-1)]
    return torch.where(((inside >= 0).all(-1) & ~flat)[:, None], inside, best)


# ---------------------------------------------------------------------------------------------------------- together


def _apart(edges: _Edges, candidate: Tensor, merit: Tensor, *, around: bool) -> Tensor:
    """[N] a choice of the `candidate` edges that do not touch each other: local maxima of `merit` [N].

    `around`: no two may have ends that are neighbours; otherwise no two may share an end or a vertex across. Ties are
    broken by a permutation and not by the index, which would let them wait for each other in long rows.
    """
    shuffle = torch.randperm(len(candidate), generator=torch.Generator().manual_seed(0)).to(candidate)
    order = torch.argsort(merit[shuffle], stable=True)
    rank = torch.empty_like(candidate)
    rank[shuffle[order]] = torch.arange(len(candidate), device=candidate.device)
    touched = edges.ends[candidate]
    if not around:
        touched = torch.cat([touched, edges.opposite[candidate]], dim=-1)
    best = rank.new_full((edges.count,), -1)
    best.scatter_reduce_(0, touched.reshape(-1), rank[:, None].expand_as(touched).reshape(-1), "amax")
    if around:
        low, high = edges.ends.unbind(-1)
        near = best.clone()
        near.scatter_reduce_(0, low, best[high], "amax").scatter_reduce_(0, high, best[low], "amax")
        best = near
    return (best[touched] == rank[:, None]).all(-1)


def _neighbours(edges: _Edges) -> tuple[Tensor, Tensor]:
    """[V + 1] where the neighbours of each vertex start in [2E] the neighbours."""
    low, high = edges.ends.unbind(-1)
    here, there = torch.cat([low, high]), torch.cat([high, low])
    order = torch.argsort(here, stable=True)
    return _starts(here, edges.count), there[order]


def _corners_at(faces: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """[V + 1] where the corners at each vertex start in [3F] the corners, numbered 3 f + i."""
    vertex = faces.reshape(-1)
    return _starts(vertex, count), torch.argsort(vertex, stable=True)


def _starts(index: Tensor, count: int) -> Tensor:
    number = torch.bincount(index, minlength=count)
    return torch.cat([number.new_zeros(1), number.cumsum(0)])


def _ragged(start: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Entries of the rows `chosen` [N] of a table whose row i is start[i] to start[i + 1]: row (0 to N - 1), place."""
    number = start[chosen + 1] - start[chosen]
    row = torch.repeat_interleave(number)
    first = torch.cat([number.new_zeros(1), number.cumsum(0)])[:-1]
    return row, start[chosen][row] + torch.arange(len(row), device=row.device) - first[row]


def _normals(corners: Tensor) -> Tensor:
    """[..., 3] unit normals of triangles [..., 3, 3]; zero for those that are flat."""
    sides = corners[..., 1:, :] - corners[..., :1, :]
    return torch.nn.functional.normalize(torch.linalg.cross(sides[..., 0, :], sides[..., 1, :]), dim=-1)


def _turned(before: Tensor, after: Tensor) -> Tensor:
    """[...] whether triangles [..., 3, 3] turn by too much, or become slivers, unless they have been worse before."""
    turn = (_normals(before) * _normals(after)).sum(-1)
    thin, thinner = _thickness(before), _thickness(after)
    return (turn < TURNED) & (thin > SLIVER) | (thinner < SLIVER) & (thinner < thin)


def _thickness(corners: Tensor) -> Tensor:
    """[...] doubled area over the squared longest side."""
    sides = corners - corners.roll(1, dims=-2)
    area = torch.linalg.cross(sides[..., 0, :], sides[..., 1, :]).norm(dim=-1)
    return area / sides.square().sum(-1).amax(-1).clamp(min=torch.finfo(corners.dtype).tiny)
