"""What COLMAP's files hold, as plain tensors; and its camera models: number, name, and the order of parameters."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..cameras import (
    Camera,
    EquirectangularCamera,
    EUCMCamera,
    FisheyeCamera,
    FOVCamera,
    OpenCVCamera,
    PinholeCamera,
    ScaramuzzaCamera,
    ThinPrismFisheyeCamera,
    quaternion_to_matrix,
)


@dataclass(frozen=True)
class Model:
    """A camera model of COLMAP."""

    number: int  # in binary files
    parameters: str
    make: Callable[..., Camera] | None  # (*parameters, size=...), one f twice; None: no camera of ours is like it


def _lens(camera: Callable[..., Camera]) -> Callable[..., Camera]:
    """The camera of focal lengths, principal point and one vector of coefficients."""
    return lambda fx, fy, cx, cy, *rest, size: camera(fx, fy, cx, cy, rest, size=size)


def _radial(fx: Tensor, fy: Tensor, cx: Tensor, cy: Tensor, *k: Tensor, size: tuple[int, int]) -> Camera:
    """k1, or k1 and k2."""
    return OpenCVCamera(fx, fy, cx, cy, (*k, *[0.0] * (4 - len(k))), size=size)


def _division(fx: Tensor, fy: Tensor, cx: Tensor, cy: Tensor, k: Tensor, *, size: tuple[int, int]) -> Camera:
    """The ray of plane coordinates (u, v) is (u, v, 1 + k (u^2 + v^2)): OCamCalib's with two coefficients."""
    return ScaramuzzaCamera(cx, cy, (-fx, 0.0, -k / fx), fy / fx, size=size)


def _panorama(w: Tensor, h: Tensor, *, size: tuple[int, int]) -> Camera:
    return EquirectangularCamera(w / (2 * math.pi), h / math.pi, w / 2, h / 2, size=size)


# Numbers, names and orders: src/colmap/sensor/models.h.
MODELS: dict[str, Model] = {
    "SIMPLE_PINHOLE": Model(0, "f, cx, cy", PinholeCamera),
    "PINHOLE": Model(1, "fx, fy, cx, cy", PinholeCamera),
    "SIMPLE_RADIAL": Model(2, "f, cx, cy, k", _radial),
    "RADIAL": Model(3, "f, cx, cy, k1, k2", _radial),
    "OPENCV": Model(4, "fx, fy, cx, cy, k1, k2, p1, p2", _lens(OpenCVCamera)),
    "OPENCV_FISHEYE": Model(5, "fx, fy, cx, cy, k1, k2, k3, k4", _lens(FisheyeCamera)),
    "FULL_OPENCV": Model(6, "fx, fy, cx, cy, k1, k2, p1, p2, k3, k4, k5, k6", _lens(OpenCVCamera)),
    "FOV": Model(7, "fx, fy, cx, cy, omega", FOVCamera),
    "SIMPLE_RADIAL_FISHEYE": Model(8, "f, cx, cy, k", _lens(FisheyeCamera)),
    "RADIAL_FISHEYE": Model(9, "f, cx, cy, k1, k2", _lens(FisheyeCamera)),
    "THIN_PRISM_FISHEYE": Model(10, "fx, fy, cx, cy, k1, k2, p1, p2, k3, k4, sx1, sy1", _lens(ThinPrismFisheyeCamera)),
    "RAD_TAN_THIN_PRISM_FISHEYE": Model(11, "fx, fy, cx, cy, k0, k1, k2, k3, k4, k5, p0, p1, s0, s1, s2, s3", None),
    "SIMPLE_DIVISION": Model(12, "f, cx, cy, k", _division),
    "DIVISION": Model(13, "fx, fy, cx, cy, k", _division),
    "SIMPLE_FISHEYE": Model(14, "f, cx, cy", FisheyeCamera),
    "FISHEYE": Model(15, "fx, fy, cx, cy", FisheyeCamera),
    "EUCM": Model(16, "fx, fy, cx, cy, alpha, beta", EUCMCamera),
    "EQUIRECTANGULAR": Model(17, "w, h", _panorama),
}


def num_parameters(model: str) -> int:
    return MODELS[model].parameters.count(",") + 1


@dataclass(frozen=True, eq=False)
class ColmapCamera:
    """One camera, as it stands in the file.

    Attributes:
        camera_id: by which images name it.
        model: COLMAP's name of the model.
        size: (height, width).
        parameters: [P] float64, in the order of the model.
    """

    camera_id: int
    model: str
    size: tuple[int, int]
    parameters: Tensor

    def camera(self) -> Camera:
        """The camera without a pose, in float64."""
        model = MODELS[self.model]
        if model.make is None:
            made = ", ".join(name for name, other in MODELS.items() if other.make is not None)
            raise ValueError(f"camera {self.camera_id} is {self.model}, which no camera here is like; there are {made}")
        parameters = list(self.parameters)
        if model.parameters.startswith("f,"):
            parameters.insert(0, parameters[0])
        return model.make(*parameters, size=self.size)

    @classmethod
    def from_camera(cls, camera: Camera, *, camera_id: int = 1) -> "ColmapCamera":
        """The record of a camera of ours, whose pose it leaves out.

        >>> record = ColmapCamera.from_camera(PinholeCamera(100.0, 100.0, 32.0, 24.0, size=(48, 64)))
        >>> record.model, record.parameters.tolist()
        ('PINHOLE', [100.0, 100.0, 32.0, 24.0])
        """
        if camera.batch_shape:
            raise ValueError(f"camera must be a single one; got a batch of {tuple(camera.batch_shape)}: index it")
        model, names = _model_of(camera)
        values = [getattr(camera, name).detach().double().reshape(-1).cpu() for name in names]
        parameters = torch.cat(values)
        missing = num_parameters(model) - len(parameters)  # of vectors that may be shorter, whose rest is zero
        return cls(camera_id, model, camera.size, torch.cat((parameters, parameters.new_zeros(missing))))


_PINHOLE = ("fx", "fy", "cx", "cy")


def _model_of(camera: Camera) -> tuple[str, tuple[str, ...]]:
    """COLMAP's model for a camera, and the names of our parameters in its order."""
    if isinstance(camera, OpenCVCamera) and camera.dist.shape[-1] <= 8:
        return ("OPENCV" if camera.dist.shape[-1] == 4 else "FULL_OPENCV"), (*_PINHOLE, "dist")
    simple: dict[type[Camera], tuple[str, tuple[str, ...]]] = {
        PinholeCamera: ("PINHOLE", _PINHOLE),
        FisheyeCamera: ("OPENCV_FISHEYE", (*_PINHOLE, "k")),
        FOVCamera: ("FOV", (*_PINHOLE, "omega")),
        ThinPrismFisheyeCamera: ("THIN_PRISM_FISHEYE", (*_PINHOLE, "dist")),
        EUCMCamera: ("EUCM", (*_PINHOLE, "alpha", "beta")),
    }
    if type(camera) not in simple:
        raise TypeError(f"COLMAP has no model for this camera: {camera!r}")
    return simple[type(camera)]


@dataclass(frozen=True, eq=False)
class ColmapImages:
    """N images and what was detected in them; the observations of all stand one after the other.

    Attributes:
        image_id: [N] by which tracks name them.
        quaternions, t: [N, 4] with w first, as stored, and [N, 3] float64, world to camera.
        camera_id: [N].
        names: of the image files.
        xy: [M, 2] pixels, float64.
        point_id: [M] of the point that is seen there, -1 for none.
        starts: [N + 1]; those of image i are `starts[i]` to `starts[i + 1]`.
    """

    image_id: Tensor
    quaternions: Tensor
    t: Tensor
    camera_id: Tensor
    names: tuple[str, ...]
    xy: Tensor
    point_id: Tensor
    starts: Tensor

    @property
    def R(self) -> Tensor:
        """[N, 3, 3] world to camera."""
        return quaternion_to_matrix(self.quaternions)


@dataclass(frozen=True, eq=False)
class ColmapPoints:
    """P points and their tracks; the entries of all tracks stand one after the other.

    Attributes:
        point_id: [P].
        positions: [P, 3] in the world, float64.
        colors: [P, 3] uint8, sRGB.
        errors: [P] mean reprojection errors in pixels, float64.
        track_image_id, track_index: [T] which image, and which of its observations.
        starts: [P + 1]; the track of point i is `starts[i]` to `starts[i + 1]`.
    """

    point_id: Tensor
    positions: Tensor
    colors: Tensor
    errors: Tensor
    track_image_id: Tensor
    track_index: Tensor
    starts: Tensor


def starts_of(counts: Tensor) -> Tensor:
    """[N] how many -> [N + 1] where each begins, and the end."""
    return torch.cat((counts.new_zeros(1), counts.cumsum(0)))
