"""`crossings` in plain torch, over all pairs of faces: the same exact arithmetic, for small meshes."""

import torch
from torch import Tensor

from .intersections import Crossings, Grid
from .warp_intersections import LOW_BITS

LOW_MASK = (1 << int(LOW_BITS)) - 1


def crossings_reference(
    vertices: Tensor, faces: Tensor, weld: Tensor, component: Tensor, face_group: Tensor | None = None
) -> Crossings:
    """All pairs of faces that pass through each other: see `crossings`."""
    points, nudges = Grid.around(vertices).positions(vertices).long(), _nudges(component)
    pairs = torch.triu_indices(len(faces), len(faces), 1, device=faces.device).T
    if face_group is not None:
        pairs = pairs[face_group[pairs[:, 0]] == face_group[pairs[:, 1]]]
    a, b = weld[faces[pairs]].unbind(1)  # [N, 3] corners
    common = (a.unsqueeze(2) == b.unsqueeze(1)).any(2)
    shared = common.sum(1)
    pairs, a, b, common, shared = (x[shared < 2] for x in (pairs, a, b, common, shared))

    def sides(face: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        """[N, 3] on which side of a face the corners of another are, and [N] whether both are in one plane."""
        index = torch.stack([face[:, :1].expand(-1, 3), other, *(face[:, i : i + 1].expand(-1, 3) for i in (1, 2))], 2)
        sign, exact = _orientation(points, nudges, index)
        p, q, r = points[face].unbind(1)
        return sign, (exact == 0).all(1) & (torch.linalg.cross(q - p, r - p) != 0).any(1)

    def passes(face: Tensor, ends: Tensor, other: Tensor) -> Tensor:
        """[N, 3] whether side i, from corner i to the next, passes through another face; its ends are on `ends`."""
        start, stop = face, face.roll(-1, 1)
        corners = [x.unsqueeze(2).expand(-1, -1, 3) for x in (start, stop)]
        corners += [x.unsqueeze(1).expand(-1, 3, -1) for x in (other, other.roll(-1, 1))]
        turn, _ = _orientation(points, nudges, torch.stack(corners, -1))  # [N, 3, 3]
        return (ends * ends.roll(-1, 1) < 0) & (turn == turn[..., :1]).all(2)

    (b_sides, b_flat), (a_sides, a_flat) = sides(a, b), sides(b, a)
    meet = (a_sides.amin(1) < 0) & (a_sides.amax(1) > 0) & (b_sides.amin(1) < 0) & (b_sides.amax(1) > 0)
    meet &= ~(a_flat | b_flat)
    pairs, a, b, common, shared, a_sides, b_sides = (x[meet] for x in (pairs, a, b, common, shared, a_sides, b_sides))
    found = torch.cat([common & (shared == 1)[:, None], passes(a, a_sides, b), passes(b, b_sides, a)], 1)
    meet = found.sum(1) == 2
    end = found[meet].nonzero()[:, 1].reshape(-1, 2)  # 0, 1, 2: common corner of a; 3, 4, 5: side of a; then of b
    pairs = pairs[meet]
    of, corner = torch.where(end >= 6, 1, 0), end % 3
    stop = torch.where(end < 3, corner, (corner + 1) % 3)
    sides_of = faces[pairs.gather(1, of).unsqueeze(-1), torch.stack([corner, stop], -1)]  # [K, 2, 2]
    backward = weld[sides_of[..., 0]] > weld[sides_of[..., 1]]
    sides_of = torch.where(backward.unsqueeze(-1), sides_of.flip(-1), sides_of)
    return Crossings(pairs, sides_of, pairs.gather(1, 1 - of))


def _orientation(points: Tensor, nudges: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Sign of the volume of p1 - p0, p2 - p0, p3 - p0 for `index` [..., 4]: of the nudged points, and without."""
    u, v, w = (points[index[..., i]] - points[index[..., 0]] for i in (1, 2, 3))
    du, dv, dw = (nudges[index[..., i]] - nudges[index[..., 0]] for i in (1, 2, 3))
    exact = _sign(_volume(u, v, w))
    sign = exact
    for terms in (
        ((du, v, w), (u, dv, w), (u, v, dw)),  # the coefficients of the first, second and third power of the step
        ((u, dv, dw), (du, dv, w), (du, v, dw)),
        ((du, dv, dw),),
    ):
        high, low = zip(*(_volume(*term) for term in terms), strict=True)
        sign = torch.where(
            sign == 0, _sign((sum(high, start=torch.zeros_like(sign)), sum(low[1:], start=low[0]))), sign
        )
    return sign, exact


def _volume(u: Tensor, v: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """u . (v x w) exactly, as high 2^31 + low: no product in it has more than 63 bits."""
    n = torch.linalg.cross(v, w)
    low = ((n & LOW_MASK) * u).sum(-1)
    return ((n >> int(LOW_BITS)) * u).sum(-1) + (low >> int(LOW_BITS)), low & LOW_MASK


def _sign(halves: tuple[Tensor, Tensor]) -> Tensor:
    high = halves[0] + (halves[1] >> int(LOW_BITS))
    return torch.where(high < 0, -1, ((high > 0) | ((halves[1] & LOW_MASK) > 0)).long())


def _nudges(component: Tensor) -> Tensor:
    """[V, 3] direction of the infinitesimal step of each vertex: that of its component, and a little of its own."""
    axis = torch.arange(3, device=component.device)
    vertex = torch.arange(len(component), device=component.device).unsqueeze(1)
    common = _scrambled(3 * component.long().unsqueeze(1) + axis)
    own = _scrambled(0xFFFFFFFF - (3 * vertex + axis))
    return (common >> 5) - 2**26 + (own >> 19) - 2**12


def _scrambled(key: Tensor) -> Tensor:
    """A hash of 32 bits, in int64; products overflow, their low 32 bits are right all the same."""
    key = ((key ^ (key >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
    key = ((key ^ (key >> 15)) * 0x846CA68B) & 0xFFFFFFFF
    return key ^ (key >> 16)
