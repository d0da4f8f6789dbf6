"""Rigs: several cameras that are fixed to each other and move as one."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self

from diffrender.cameras.base import Camera
from diffrender.cameras.parameters import Parameter, as_tensor, check_pose_shapes, check_rotation, common_type
from diffrender.cameras.poses import compose_poses
from diffrender.checks import broadcast_shapes, check_finite, shape_of


class Rig:
    """Cameras, of whatever models and sizes, on one moving frame: a stereo pair, a head-mounted set, a car.

    Args:
        cameras: their `R, t` take points of the rig's frame to each camera's. Give a rig the cameras as they stand in
            the world, and no pose, and it moves them all from there.
        R: [*batch, 3, 3] rotation from the world to the rig's frame; the identity if left out.
        t: [*batch, 3] translation from the world to the rig's frame; zero if left out.

    `rig.cameras` are ordinary cameras of the world: render them one by one, or `stack_cameras(rig.cameras)` where they
    are of one class and size. Gradients reach the pose of the rig, the poses on it, and the lenses. A batch of poses,
    one for each moment, gives cameras with that batch.

    >>> from diffrender.cameras.pinhole import PinholeCamera
    >>> left = PinholeCamera(50.0, 50.0, 32.0, 24.0, size=(48, 64))
    >>> stereo = Rig([left, left.replace(t=(-0.1, 0.0, 0.0))], t=(0.0, 0.0, 2.0))
    >>> [camera.project(torch.zeros(3))[0].tolist() for camera in stereo]
    [[32.0, 24.0], [29.5, 24.0]]
    """

    def __init__(
        self,
        cameras: Sequence[Camera],
        *,
        R: Tensor | Sequence[Any] | None = None,
        t: Parameter | None = None,
    ) -> None:
        if isinstance(cameras, Camera) or not all(isinstance(camera, Camera) for camera in cameras):
            raise TypeError(f"cameras must be a list of cameras; got {shape_of(cameras)}")
        if not cameras:
            raise ValueError("cameras must hold at least one camera; got an empty list")
        self.mounted = tuple(cameras)  # in the rig's frame
        pose: dict[str, Any] = {
            "R": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)) if R is None else R,
            "t": (0.0, 0.0, 0.0) if t is None else t,
        }
        rotation, translation = as_tensor("R", pose["R"], 2), as_tensor("t", pose["t"], 1)
        check_pose_shapes(rotation, translation)
        given = {name: value for name, value in (("R", R), ("t", t)) if isinstance(value, Tensor)}
        dtype, device = common_type(given or {"cameras": self.mounted[0].R})
        self.R, self.t = rotation.to(device, dtype), translation.to(device, dtype)
        for name, value in (("R", self.R), ("t", self.t)):
            check_finite(name, value.detach())
        check_rotation(self.R.detach())
        shapes = {"R": self.R.shape[:-2], "t": self.t.shape[:-1]}
        shapes |= {f"cameras[{i}]": camera.batch_shape for i, camera in enumerate(self.mounted)}
        try:
            broadcast_shapes(*shapes.values())
        except ValueError:
            listed = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
            raise ValueError(f"the rig's pose and its cameras have batches that do not broadcast: {listed}") from None

    @property
    def cameras(self) -> tuple[Camera, ...]:
        """The cameras as they stand in the world, each with the batch of the rig's pose."""
        placed = []
        for camera in self.mounted:
            dtype = torch.promote_types(camera.dtype, self.R.dtype)
            inner = (self.R.to(dtype), self.t.to(dtype))
            R, t = compose_poses((camera.R.to(dtype), camera.t.to(dtype)), inner)
            placed.append(camera.replace(R=R, t=t))
        return tuple(placed)

    def __len__(self) -> int:
        return len(self.mounted)

    def __iter__(self) -> Iterator[Camera]:
        return iter(self.cameras)

    def __getitem__(self, index: int) -> Camera:
        return self.cameras[index]

    def replace(self, **changes: Any) -> Self:
        """A copy with other `R`, `t` or `cameras` (in the rig's frame)."""
        unknown = sorted(set(changes) - {"R", "t", "cameras"})
        if unknown:
            raise TypeError(f"a rig has cameras, R and t; got {unknown}: lenses are parameters of its cameras")
        cameras = changes.pop("cameras", self.mounted)
        return type(self)(cameras, **{"R": self.R, "t": self.t, **changes})

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """A copy with the pose and all cameras on `device` and of `dtype`."""
        cameras = [camera.to(device, dtype) for camera in self.mounted]
        return type(self)(cameras, R=self.R.to(device=device, dtype=dtype), t=self.t.to(device=device, dtype=dtype))

    def __repr__(self) -> str:
        count = math.prod(broadcast_shapes(self.R.shape[:-2], self.t.shape[:-1]))
        poses = f", {count} poses" if count != 1 else ""
        return f"Rig({', '.join(map(repr, self.mounted))}{poses})"
