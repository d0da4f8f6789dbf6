"""Rotations in other clothes: axis-angles, quaternions, six numbers; there and back, smooth wherever that is possible.

A rotation has three degrees of freedom, and no three numbers describe all rotations smoothly. Axis-angles are smooth up
to half a turn, which makes them right for changes of a rotation; quaternions and the six numbers of Zhou et al. are
smooth everywhere as parameters of a matrix. Back from the matrix, the only jumps are signs at half a turn.

Our own, though kornia has most of them (the tests compare): it takes a second to import, and the second derivative of
its axis-angle of a matrix is wrong at the identity.
"""

import math

import torch
from torch import Tensor

from diffrender.checks import check_tensor, shape_of

SMALL = 1e-2  # squared angle below which quotients of angles are replaced by their series, right to 1e-16 there


def so3_exp(axis_angle: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] of axis-angles [..., 3] in radians; smooth everywhere, at zero too.

    The exponential of the cross-product matrix, by `torch.linalg.matrix_exp`: no sine over angle to go wrong.

    >>> so3_exp(torch.tensor([0.0, 0.0, torch.pi / 2])).round(decimals=3).abs().tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    check_tensor("axis_angle", axis_angle, last=3)
    return torch.linalg.matrix_exp(cross_matrix(axis_angle))


def so3_log(R: Tensor) -> Tensor:
    """Axis-angles [..., 3] in radians of rotation matrices [..., 3, 3], at most pi long: the inverse of `so3_exp`.

    Through the quaternion, which is accurate for every angle: by the trace alone, small angles and those near pi would
    lose half of their digits. At exactly pi the axis may have either sign.

    >>> so3_log(so3_exp(torch.tensor([0.1, -0.2, 0.3]))).round(decimals=4)
    tensor([ 0.1000, -0.2000,  0.3000])
    """
    q = matrix_to_quaternion(R)
    w, v = q[..., :1], q[..., 1:]
    sine2 = (v * v).sum(-1, keepdim=True)  # of half the angle
    near = sine2 < SMALL
    # atan(x) / x and its series, x the tangent of half the angle; away from the unused one's singularity.
    x2 = torch.where(near, sine2, 0.0) / torch.where(near, w * w, 1.0)
    series = 1 + x2 * (-1 / 3 + x2 * (1 / 5 + x2 * (-1 / 7 + x2 * (1 / 9 + x2 * (-1 / 11 + x2 / 13)))))
    sine = torch.sqrt(torch.where(near, 1.0, sine2))
    return v * torch.where(near, 2 * series / torch.where(near, w, 1.0), 2 * torch.atan2(sine, w) / sine)


def quaternion_to_matrix(quaternion: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] of quaternions [..., 4], **real part first**: (w, x, y, z), of any length but zero.

    (kornia, COLMAP and Blender write w first too; scipy, ROS and glTF write it last: `q[..., [3, 0, 1, 2]]`.)

    >>> quaternion_to_matrix(torch.tensor([1.0, 0.0, 0.0, 1.0])).round(decimals=3).abs().tolist()  # 90 degrees about z
    [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    check_tensor("quaternion", quaternion, last=4, hint="(w, x, y, z)")
    length2 = (quaternion * quaternion).sum(-1, keepdim=True)
    _check_positive("quaternion", length2)
    w, x, y, z = quaternion.unbind(-1)
    xw, yw, zw, xx, yy, zz, xy, xz, yz = w * x, w * y, w * z, x * x, y * y, z * z, x * y, x * z, y * z
    entries = torch.stack((-yy - zz, xy - zw, xz + yw, xy + zw, -xx - zz, yz - xw, xz - yw, yz + xw, -xx - yy), dim=-1)
    turned = (2 * entries / length2).reshape(*quaternion.shape[:-1], 3, 3)
    return turned + torch.eye(3, dtype=quaternion.dtype, device=quaternion.device)


def matrix_to_quaternion(R: Tensor) -> Tensor:
    """Unit quaternions [..., 4], (w, x, y, z) with w >= 0, of rotation matrices [..., 3, 3].

    The sums and differences of the entries of R are 4 q q^T; its row with the largest diagonal entry, normalized, is
    the quaternion (Shepperd 1978): no square root near zero, whatever the angle.

    >>> matrix_to_quaternion(torch.eye(3))
    tensor([1., 0., 0., 0.])
    """
    _check_matrix(R)
    (a, b, c), (d, e, f), (g, h, i) = (row.unbind(-1) for row in R.unbind(-2))
    rows = (
        torch.stack((1 + a + e + i, h - f, c - g, d - b), dim=-1),
        torch.stack((h - f, 1 + a - e - i, b + d, c + g), dim=-1),
        torch.stack((c - g, b + d, 1 - a + e - i, f + h), dim=-1),
        torch.stack((d - b, c + g, f + h, 1 - a - e + i), dim=-1),
    )
    outer = torch.stack(rows, dim=-2)
    largest = outer.detach().diagonal(dim1=-2, dim2=-1).argmax(-1)
    row = outer.gather(-2, largest[..., None, None].expand(*largest.shape, 1, 4))[..., 0, :]
    q = row / torch.linalg.vector_norm(row, dim=-1, keepdim=True)
    return torch.where(q[..., :1] < 0, -q, q)


def rotation_6d_to_matrix(six: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] of any six numbers [..., 6]: two vectors, made orthonormal by Gram and Schmidt.

    They become the first two **columns**, as in Zhou et al. 2019, "On the Continuity of Rotation Representations in
    Neural Networks" (PyTorch3D takes rows: transpose). Smooth unless the two are parallel or zero, which is an error.

    >>> rotation_6d_to_matrix(torch.tensor([2.0, 0.0, 0.0, 5.0, 3.0, 0.0])).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    check_tensor("six", six, last=6)
    first, second = six[..., :3], six[..., 3:]
    third = torch.linalg.cross(first, second)
    _check_positive("the cross product of the two vectors in six", (third * third).sum(-1))
    first = first / torch.linalg.vector_norm(first, dim=-1, keepdim=True)
    third = third / torch.linalg.vector_norm(third, dim=-1, keepdim=True)
    return torch.stack((first, torch.linalg.cross(third, first), third), dim=-1)


def matrix_to_rotation_6d(R: Tensor) -> Tensor:
    """The first two columns, [..., 6], of rotation matrices [..., 3, 3]: see `rotation_6d_to_matrix`.

    >>> matrix_to_rotation_6d(torch.eye(3)).tolist()
    [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    """
    _check_matrix(R)
    return torch.cat((R[..., 0], R[..., 1]), dim=-1)


def se3_exp(twist: Tensor) -> tuple[Tensor, Tensor]:
    """Rigid motions of twists [..., 6], translation part first: R [..., 3, 3] and t [..., 3] with x -> R x + t.

    The exponential of the 4 x 4 matrix of the twist. To change a pose, compose: `compose_poses(se3_exp(twist), pose)`.

    >>> R, t = se3_exp(torch.tensor([1.0, 2.0, 3.0, 0.0, 0.0, 0.0]))
    >>> t
    tensor([1., 2., 3.])
    """
    check_tensor("twist", twist, last=6)
    top = torch.cat((cross_matrix(twist[..., 3:]), twist[..., :3, None]), dim=-1)
    moved = torch.linalg.matrix_exp(torch.cat((top, torch.zeros_like(top[..., :1, :])), dim=-2))
    return moved[..., :3, :3], moved[..., :3, 3]


def se3_log(R: Tensor, t: Tensor) -> Tensor:
    """Twists [..., 6], translation part first, of rigid motions R [..., 3, 3], t [..., 3]: the inverse of `se3_exp`.

    With the axis-angle w of length a, the translation part is t - w x t / 2 + c w x (w x t) with
    c = (1 - a / 2 cot(a / 2)) / a^2, which is 1 / 12 at zero (Eade, "Lie groups for 2D and 3D transformations").

    >>> se3_log(*se3_exp(torch.tensor([1.0, 2.0, 3.0, 0.1, 0.2, 0.3]))).round(decimals=4)
    tensor([1.0000, 2.0000, 3.0000, 0.1000, 0.2000, 0.3000])
    """
    check_tensor("t", t, last=3)
    w = so3_log(R)
    a2 = (w * w).sum(-1, keepdim=True)
    near = a2 < SMALL
    half = torch.sqrt(torch.where(near, 1.0, a2)) / 2
    series = 1 / 12 + a2 * (1 / 720 + a2 * (1 / 30240 + a2 / 1209600))
    closed = (1 - half * torch.cos(half) / torch.sin(half)) / torch.where(near, 1.0, a2)
    across = torch.linalg.cross(w, t.expand(w.shape))
    moved = t - across / 2 + torch.where(near, series, closed) * torch.linalg.cross(w, across)
    return torch.cat((moved, w), dim=-1)


def cross_matrix(vectors: Tensor) -> Tensor:
    """[..., 3] -> [..., 3, 3] with matrix @ x = vector cross x."""
    x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
    zero = torch.zeros_like(x)
    entries = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), dim=-1)
    return entries.reshape(*vectors.shape[:-1], 3, 3)


def _check_matrix(R: Tensor) -> None:
    check_tensor("R", R, last=3)
    if R.shape[-2:] != (3, 3):
        raise ValueError(f"R must end in (3, 3); got {shape_of(R)}")


def _check_positive(name: str, squares: Tensor) -> None:
    """Raise where a squared length is zero, or its reciprocal infinite: there is no direction in it."""
    least = float(squares.detach().min()) if squares.numel() else math.inf
    if not least > torch.finfo(squares.dtype).tiny:
        raise ValueError(f"{name} must not be zero; the smallest squared length is {least:.3g}")
