"""Cameras from and to OpenCV's matrices.

- Axes: as here, x right, y down, z forward; `rvec`, `tvec` take world to camera.
- Half pixel: OpenCV puts pixel centres on integers: cx, cy here are one half larger.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffrender.cameras.base import Camera
from diffrender.cameras.fisheye import FisheyeCamera
from diffrender.cameras.omnidirectional import UnifiedCamera
from diffrender.cameras.opencv import OpenCVCamera
from diffrender.cameras.pinhole import PinholeCamera
from diffrender.cameras.rotations import so3_exp

ArrayLike = Tensor | np.ndarray | Sequence[Any]


def from_opencv(
    K: ArrayLike,
    dist: ArrayLike | None = None,
    *,
    size: tuple[int, int],
    R: ArrayLike | None = None,
    rvec: ArrayLike | None = None,
    t: ArrayLike | None = None,
    dtype: torch.dtype = torch.float32,
) -> PinholeCamera | OpenCVCamera:
    """The camera of `cv2.calibrateCamera`: a pinhole if `dist` is None or all zero, else with distortion.

    Args:
        K: [3, 3] camera matrix, without skew. Its principal point gets 0.5 added.
        dist: distortion coefficients in OpenCV's order and any of its shapes: 4, 5, 8, 12 or 14 of them.
        size: (height, width) of the image.
        R, rvec: world to camera, as a [3, 3] matrix or as OpenCV's axis-angle in any shape; not both.
        t: translation, OpenCV's `tvec`, in any shape.
        dtype: of the camera.

    >>> from_opencv(np.array([[100.0, 0.0, 31.5], [0.0, 100.0, 23.5], [0.0, 0.0, 1.0]]), size=(48, 64))
    PinholeCamera(fx=100, fy=100, cx=32, cy=24, size=(48, 64))
    """
    fx, fy, cx, cy = _split_matrix(K, dtype)
    R, t = _pose(R, rvec, t, dtype)
    flat = None if dist is None else _tensor(dist, dtype).reshape(-1)
    if flat is None or not bool(flat.any()):
        return PinholeCamera(fx, fy, cx, cy, size=size, R=R, t=t)
    return OpenCVCamera(fx, fy, cx, cy, dist=flat, size=size, R=R, t=t)


def from_opencv_fisheye(
    K: ArrayLike,
    dist: ArrayLike,
    *,
    size: tuple[int, int],
    R: ArrayLike | None = None,
    rvec: ArrayLike | None = None,
    t: ArrayLike | None = None,
    dtype: torch.dtype = torch.float32,
) -> FisheyeCamera:
    """The camera of `cv2.fisheye.calibrate`; arguments like `from_opencv`, with 4 coefficients.

    >>> K = np.array([[100.0, 0.0, 31.5], [0.0, 100.0, 23.5], [0.0, 0.0, 1.0]])
    >>> from_opencv_fisheye(K, np.zeros((4, 1)), size=(48, 64)).k
    tensor([0., 0., 0., 0.])
    """
    fx, fy, cx, cy = _split_matrix(K, dtype)
    R, t = _pose(R, rvec, t, dtype)
    return FisheyeCamera(fx, fy, cx, cy, k=_tensor(dist, dtype).reshape(-1), size=size, R=R, t=t)


def from_opencv_omnidir(
    K: ArrayLike,
    xi: ArrayLike | float,
    dist: ArrayLike,
    *,
    size: tuple[int, int],
    R: ArrayLike | None = None,
    rvec: ArrayLike | None = None,
    t: ArrayLike | None = None,
    dtype: torch.dtype = torch.float32,
) -> UnifiedCamera:
    """The camera of `cv2.omnidir.calibrate`; arguments like `from_opencv`, with `xi` and 4 coefficients.

    >>> K = np.array([[100.0, 0.0, 31.5], [0.0, 100.0, 23.5], [0.0, 0.0, 1.0]])
    >>> from_opencv_omnidir(K, 0.9, np.zeros((1, 4)), size=(48, 64)).xi
    tensor(0.9000)
    """
    fx, fy, cx, cy = _split_matrix(K, dtype)
    R, t = _pose(R, rvec, t, dtype)
    xi = (xi if isinstance(xi, Tensor) else torch.from_numpy(np.array(xi, dtype=np.float64))).to(dtype).reshape(())
    return UnifiedCamera(fx, fy, cx, cy, xi, _tensor(dist, dtype).reshape(-1), size=size, R=R, t=t)


def to_opencv(camera: Camera) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """K [3, 3], distortion [n], R [3, 3] and t [3] for OpenCV, in float64; 0.5 less in the principal point.

    Of a pinhole (distortion: five zeros), an `OpenCVCamera`, a `FisheyeCamera` (for the functions of `cv2.fisheye`), or
    a `UnifiedCamera` (for those of `cv2.omnidir`; its `xi` is `camera.xi`).

    >>> K, dist, R, t = to_opencv(PinholeCamera(100.0, 100.0, 32.0, 24.0, size=(48, 64)))
    >>> K[:2, 2].tolist()
    [31.5, 23.5]
    """
    if isinstance(camera, (OpenCVCamera, UnifiedCamera)):
        dist = camera.dist
    elif isinstance(camera, FisheyeCamera):
        dist = torch.cat((camera.k, camera.k.new_zeros(*camera.k.shape[:-1], 4 - camera.k.shape[-1])), dim=-1)
    elif isinstance(camera, PinholeCamera):
        dist = torch.zeros(5)
    else:
        raise TypeError(
            f"camera must be a pinhole, OpenCV, fisheye or unified camera; OpenCV has no {type(camera).__name__}"
        )
    if camera.batch_shape:
        raise ValueError(f"camera must be a single one; got a batch of {tuple(camera.batch_shape)}: index it")
    K = _array(camera.intrinsics)
    K[:2, 2] -= 0.5
    return K, _array(dist), _array(camera.R), _array(camera.t)


def _array(value: Tensor) -> np.ndarray:
    return value.detach().cpu().double().numpy().copy()


def _tensor(value: ArrayLike, dtype: torch.dtype) -> Tensor:
    if isinstance(value, Tensor):
        return value.to(dtype)
    return torch.from_numpy(np.array(value, dtype=np.float64)).to(dtype)


def _split_matrix(K: ArrayLike, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    matrix = _tensor(K, dtype)
    if matrix.shape != (3, 3):
        raise ValueError(f"K must have shape (3, 3); got {tuple(matrix.shape)}")
    if bool(matrix[0, 1] != 0) or bool(matrix[1, 0] != 0):
        raise ValueError(f"K must be without skew; got the rows {matrix.tolist()}")
    if matrix[2].tolist() != [0.0, 0.0, 1.0]:
        raise ValueError(f"K must end in the row (0, 0, 1); got {matrix[2].tolist()}: is it transposed?")
    return matrix[0, 0], matrix[1, 1], matrix[0, 2] + 0.5, matrix[1, 2] + 0.5


def _pose(
    R: ArrayLike | None, rvec: ArrayLike | None, t: ArrayLike | None, dtype: torch.dtype
) -> tuple[Tensor | None, Tensor | None]:
    if R is not None and rvec is not None:
        raise ValueError("R and rvec say the same thing: give one of them")
    rotation = None if R is None else _tensor(R, dtype)
    if rvec is not None:
        # In float64: the rotation then is one to the rounding of `dtype`.
        rotation = so3_exp(_tensor(rvec, torch.float64).reshape(3)).to(dtype)
    return rotation, None if t is None else _tensor(t, dtype).reshape(3)
