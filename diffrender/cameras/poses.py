"""Poses: where a camera stands and looks, motions after each other, and OpenGL's axes."""

import math
from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from diffrender.checks import check_finite, check_tensor, shape_of

Vector: TypeAlias = Tensor | Sequence[float]
Pose: TypeAlias = tuple[Tensor, Tensor]


def look_at(eye: Vector, target: Vector = (0.0, 0.0, 0.0), up: Vector = (0.0, 1.0, 0.0)) -> tuple[Tensor, Tensor]:
    """The pose of a camera at `eye` that looks at `target` with the world's `up` pointing up in the image (along -y).

    Args:
        eye, target, up: [..., 3] points and direction in the world, broadcast; numbers become float32.

    Returns:
        R [..., 3, 3] and t [..., 3], world to camera, differentiable.

    >>> R, t = look_at((0.0, 0.0, 5.0))
    >>> R @ torch.tensor([0.0, 1.0, 0.0]) + t  # a point above the target: up is -y, the distance is z
    tensor([ 0., -1.,  5.])
    """
    given = [value for value in (eye, target, up) if isinstance(value, Tensor)]
    like = given[0] if given else torch.zeros(())
    vectors = {}
    for name, value in (("eye", eye), ("target", target), ("up", up)):
        vector = value if isinstance(value, Tensor) else torch.tensor(value, dtype=like.dtype, device=like.device)
        check_tensor(name, vector, last=3)
        check_finite(name, vector.detach())
        vectors[name] = vector
    position, aim, upward = torch.broadcast_tensors(vectors["eye"], vectors["target"], vectors["up"])
    forward = aim - position
    distance = torch.linalg.vector_norm(forward, dim=-1, keepdim=True)
    # Rounding of the difference: nearer than this its direction is noise.
    least = 16 * torch.finfo(forward.dtype).eps * torch.linalg.vector_norm(position, dim=-1, keepdim=True)
    if bool((distance <= least).any()):
        raise ValueError("eye and target must differ; got the same point, so there is no direction to look in")
    forward = forward / distance
    right = torch.linalg.cross(forward, upward / torch.linalg.vector_norm(upward, dim=-1, keepdim=True))
    sine = torch.linalg.vector_norm(right, dim=-1, keepdim=True)
    if not bool((sine > math.sqrt(torch.finfo(forward.dtype).eps)).all()):  # also catches up = 0, which gives NaN
        raise ValueError("up must not be zero or parallel to target - eye: choose another up, for example (0, 0, 1)")
    right = right / sine
    R = torch.stack((right, torch.linalg.cross(forward, right), forward), dim=-2)
    return R, -(R @ position[..., None])[..., 0]


def orbit_poses(
    num_views: int,
    *,
    distance: float,
    elevation: float = 20.0,
    target: Vector = (0.0, 0.0, 0.0),
    up: Vector = (0.0, 1.0, 0.0),
) -> tuple[Tensor, Tensor]:
    """Poses on a circle around `target`, all looking at it: a turntable.

    Args:
        num_views: how many, at equal angles, counter-clockwise seen from above.
        distance: from the target, in the world's unit.
        elevation: of the camera above the plane normal to `up`, in degrees, between -90 and 90.
        target, up: (3,) in the world.

    Returns:
        R [num_views, 3, 3] and t [num_views, 3].

    >>> R, t = orbit_poses(4, distance=3.0, elevation=0.0)
    >>> (-R.mT @ t[..., None])[..., 0].round(decimals=3).abs().tolist()
    [[0.0, 0.0, 3.0], [3.0, 0.0, 0.0], [0.0, 0.0, 3.0], [3.0, 0.0, 0.0]]
    """
    if num_views < 1:
        raise ValueError(f"num_views must be at least 1; got {num_views}")
    if not distance > 0:
        raise ValueError(f"distance must be above 0; got {distance}")
    if not -90 < elevation < 90:
        raise ValueError(f"elevation must lie between -90 and 90 degrees; got {elevation}")
    given = [value for value in (target, up) if isinstance(value, Tensor)]
    like = given[0] if given else torch.zeros(())
    middle, axis = (torch.as_tensor(v, dtype=like.dtype, device=like.device) for v in (target, up))
    axis = axis / torch.linalg.vector_norm(axis)
    # The first view stands on the side of the coordinate axis that is most square to `up`, z before x before y.
    order = torch.tensor([2, 0, 1], device=axis.device)
    first = torch.eye(3, dtype=axis.dtype, device=axis.device)[order[axis.abs()[order].argmin()]]
    first = first - (first @ axis) * axis
    first = first / torch.linalg.vector_norm(first)
    second = torch.linalg.cross(axis, first)
    turn = torch.arange(num_views, dtype=axis.dtype, device=axis.device) * (2 * math.pi / num_views)
    around = torch.cos(turn)[:, None] * first + torch.sin(turn)[:, None] * second
    tilt = math.radians(elevation)
    return look_at(middle + distance * (math.cos(tilt) * around + math.sin(tilt) * axis), middle, axis)


def compose_poses(second: Pose, first: Pose) -> Pose:
    """The rigid motion that does `first`, then `second`, each (R [..., 3, 3], t [..., 3]) with x -> R x + t.

    A camera on a moving platform: `compose_poses(platform_to_camera, world_to_platform)`.

    >>> R, t = compose_poses((torch.eye(3), torch.ones(3)), (torch.eye(3), torch.ones(3)))
    >>> t
    tensor([2., 2., 2.])
    """
    _check_pose("second", *second)
    _check_pose("first", *first)
    (R2, t2), (R1, t1) = second, first
    return R2 @ R1, (R2 @ t1[..., None])[..., 0] + t2


def invert_pose(R: Tensor, t: Tensor) -> Pose:
    """The rigid motion that undoes x -> R x + t: camera to world instead of world to camera, or the other way.

    >>> R, t = invert_pose(torch.eye(3), torch.tensor([1.0, 2.0, 3.0]))
    >>> t
    tensor([-1., -2., -3.])
    """
    _check_pose("(R, t)", R, t)
    return R.mT, -(R.mT @ t[..., None])[..., 0]


def _check_pose(name: str, R: Tensor, t: Tensor) -> None:
    check_tensor(f"R of {name}", R, last=3)
    check_tensor(f"t of {name}", t, last=3)
    if R.shape[-2:] != (3, 3):
        raise ValueError(f"R of {name} must end in (3, 3); got {shape_of(R)}")


def from_opengl_pose(camera_to_world: Tensor) -> tuple[Tensor, Tensor]:
    """OpenGL's (NeRF's, Blender's) camera-to-world [..., 4, 4] or [..., 3, 4] -> our R, t, world to camera.

    There x is right, y up and the camera looks along -z; here y is down and z forward.

    >>> R, t = from_opengl_pose(torch.eye(4))
    >>> R.diagonal().tolist()
    [1.0, -1.0, -1.0]
    """
    check_tensor("camera_to_world", camera_to_world, last=4)
    if camera_to_world.ndim < 2 or camera_to_world.shape[-2] not in (3, 4):
        raise ValueError(f"camera_to_world must end in (4, 4) or (3, 4); got {shape_of(camera_to_world)}")
    flip = camera_to_world.new_tensor([1.0, -1.0, -1.0])
    R = flip[:, None] * camera_to_world[..., :3, :3].mT
    return R, -(R @ camera_to_world[..., :3, 3:])[..., 0]


def to_opengl_pose(R: Tensor, t: Tensor) -> Tensor:
    """Our R [..., 3, 3] and t [..., 3] -> OpenGL's camera-to-world [..., 4, 4]: the inverse of `from_opengl_pose`."""
    check_tensor("R", R, last=3)
    check_tensor("t", t, last=3)
    flip = R.new_tensor([1.0, -1.0, -1.0])
    top = torch.cat((R.mT * flip, -(R.mT @ t[..., None])), dim=-1)
    bottom = R.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*top.shape[:-2], 1, 4)
    return torch.cat((top, bottom), dim=-2)
