"""Environment maps: values by direction, from six faces of a cube or from one panorama, without seams."""

import math

import torch
from torch import Tensor

from .. import steady
from ..checks import check_size, check_tensor, shape_of
from .sample import look_up
from .splat import pixel_centers

# OpenGL 4.6 core specification, table 8.19: for each face +x -x +y -y +z -z, the axes that s, t and the face stand for,
# and their signs.
_AXES = ((2, 1, 0), (2, 1, 0), (0, 2, 1), (0, 2, 1), (0, 1, 2), (0, 1, 2))
_SIGNS = ((-1, -1, 1), (1, -1, -1), (1, 1, 1), (1, -1, -1), (1, -1, 1), (-1, -1, -1))


def sample_cubemap(faces: Tensor, directions: Tensor) -> Tensor:
    """Values of a cube map by direction, bilinear also across edges and corners; differentiable to both.

    Args:
        faces: [6, N, N, C] in the order +x, -x, +y, -y, +z, -z, each as seen from inside in OpenGL's orientation, row 0
            at t = 0.
        directions: [..., 3] of any length, world frame. The zero vector, infinity and NaN read the middle of a face,
            with a zero gradient.

    Returns:
        [..., C]. It is continuous: texels beyond an edge are those of the neighbour, and the missing one at a corner is
        the mean of the three that meet there.

    >>> faces = torch.arange(6.0).view(6, 1, 1, 1)
    >>> sample_cubemap(faces, torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, -1.0], [1.0, 1.0, 0.0]])).flatten().tolist()
    [0.0, 5.0, 1.0]
    """
    check_tensor("faces", faces, ndim=4)
    if faces.shape[0] != 6 or faces.shape[1] != faces.shape[2] or faces.shape[1] == 0:
        raise ValueError(f"faces must be (6, N, N, C) with N > 0; got {shape_of(faces)}")
    check_tensor("directions", directions, last=3)
    side = faces.shape[1]
    face, st = _on_cube(_of_unit_size(directions))
    shift = torch.stack([torch.ones_like(face), 1 + face * (side + 2)], -1)
    xy = st * side + shift.to(st.dtype)
    framed = _framed(faces.to(torch.promote_types(faces.dtype, torch.float32)))
    values = look_up(framed.flatten(0, 1), xy, "bilinear", "clamp", 0.0)
    return values.to(torch.promote_types(faces.dtype, directions.dtype))


def cubemap_directions(side: int) -> Tensor:
    """[6, N, N, 3] the directions of the texels of a cube map, with the component of their face 1 or -1.

    >>> cubemap_directions(1)[:, 0, 0].tolist()[:2]
    [[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]
    """
    size = check_size("(side, side)", (side, side))
    return _face_directions(2 * pixel_centers(size, torch.zeros(())) / side - 1)


def sample_panorama(image: Tensor, directions: Tensor) -> Tensor:
    """Values of an equirectangular panorama by direction, bilinear also over the poles; differentiable to both.

    Args:
        image: [H, W, C] with an even W; the upper border is +y, the middle looks along -z, +x is to the right.
        directions: [..., 3] of any length, world frame. The zero vector, infinity and NaN have a zero gradient.

    Returns:
        [..., C].

    >>> columns = torch.arange(4.0).view(1, 4, 1).expand(2, 4, 1)  # behind left, left, right, behind right
    >>> sample_panorama(columns, torch.tensor([[0.0, 0.0, -1.0], [1.0, 0.0, -1.0]])).flatten().tolist()
    [1.5, 2.0]
    """
    check_tensor("image", image, ndim=3)
    height, width, _ = image.shape
    if height == 0 or width == 0 or width % 2:
        raise ValueError(
            f"image must be (H, W, C) with an even W, to meet itself over the poles; got {shape_of(image)}"
        )
    check_tensor("directions", directions, last=3)
    x, y, z = _of_unit_size(directions).unbind(-1)
    level = x * x + z * z > 0  # false at the poles, where longitude is any
    x, z = torch.where(level, x, 0.0), torch.where(level, z, -1.0)
    longitude = steady.atan2(x, -z)
    horizontal = torch.sqrt(x * x + z * z)
    latitude = steady.atan2(torch.where(level, horizontal, 0.0), y)  # from +y
    xy = torch.stack([(longitude / (2 * math.pi) + 0.5) * width, latitude / math.pi * height + 1], -1)
    poles = [row.roll(width // 2, 1) for row in (image[:1], image[-1:])]
    values = look_up(torch.cat([poles[0], image, poles[1]]), xy, "bilinear", ("wrap", "clamp"), 0.0)
    return values.to(torch.promote_types(image.dtype, directions.dtype))


def panorama_directions(size: tuple[int, int]) -> Tensor:
    """[H, W, 3] the unit directions of the pixels of a panorama of `size` (height, width).

    >>> panorama_directions((1, 2))[..., 0].tolist()
    [[-1.0, 1.0]]
    """
    height, width = check_size("size", size)
    x, y = pixel_centers(size, torch.zeros((), dtype=torch.float64)).unbind(-1)
    longitude, latitude = (x / width - 0.5) * 2 * math.pi, y / height * math.pi
    ring = latitude.sin()
    directions = torch.stack([ring * longitude.sin(), latitude.cos(), -ring * longitude.cos()], -1)
    return directions.to(torch.get_default_dtype())


def _of_unit_size(directions: Tensor) -> Tensor:
    """Directions whose largest component is 1 or -1, in single precision at least; 0 where there is no direction.

    So squares neither overflow nor vanish. What is too short for a gradient, which is as large as it is short, is 0.
    """
    directions = directions.to(torch.promote_types(directions.dtype, torch.float32))
    least = torch.finfo(directions.dtype).tiny / torch.finfo(directions.dtype).eps
    size = directions.detach().abs().amax(-1, keepdim=True)
    usable = (size > least) & (size < torch.inf)  # false for NaN
    return torch.where(usable, directions, 0.0) / torch.where(usable, size, 1.0)


def _on_cube(directions: Tensor) -> tuple[Tensor, Tensor]:
    """The face [...] of each direction, and its (s, t) [..., 2] there, in [0, 1]."""
    axis = directions.detach().abs().argmax(-1)
    main = directions.gather(-1, axis.unsqueeze(-1)).squeeze(-1)
    face = 2 * axis + (main.detach() < 0)
    axes, signs = directions.new_tensor(_AXES).long()[face], directions.new_tensor(_SIGNS)[face]
    s, t = (directions.gather(-1, axes[..., i : i + 1]).squeeze(-1) * signs[..., i] for i in range(2))
    length = torch.where(main.detach() != 0, main.abs(), 1.0)
    return face, (torch.stack([s / length, t / length], -1) + 1) / 2


def _face_directions(st: Tensor) -> Tensor:
    """Directions [6, H, W, 3] of the points `st` [H, W, 2], in [-1, 1], of every face."""
    result = st.new_zeros(6, *st.shape[:2], 3)
    for face, (axes, signs) in enumerate(zip(_AXES, _SIGNS, strict=True)):
        for value, axis, sign in zip((*st.unbind(-1), torch.ones_like(st[..., 0])), axes, signs, strict=True):
            result[face, ..., axis] = value * sign + 0.0  # + 0: no negative zeros
    return result


def _framed(faces: Tensor) -> Tensor:
    """Faces [6, N + 2, N + 2, C] with a frame of the texels that lie beyond their edges."""
    side = faces.shape[1]
    centers = 2 * (pixel_centers((side + 2, side + 2), torch.zeros((), dtype=torch.float64)) - 1) / side - 1
    face, st = _on_cube(_face_directions(centers))
    column, row = (st * side).floor().long().clamp(0, side - 1).unbind(-1)
    index = ((face * side + row) * side + column).to(faces.device)
    framed = faces.reshape(6 * side * side, -1).index_select(0, index.reshape(-1)).view(6, side + 2, side + 2, -1)
    rows = torch.arange(side + 2, device=faces.device)
    outer = (rows == 0) | (rows == side + 1)
    corner = (outer[:, None] & outer)[None, :, :, None]
    inner = rows.clamp(1, side)
    across, down, own = framed[:, inner], framed[:, :, inner], framed[:, inner][:, :, inner]
    return torch.where(corner, (across + down + own) / 3, framed)
