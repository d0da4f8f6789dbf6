"""Cameras whose image radius is a function of the angle to the axis: fisheye lenses."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffrender.cameras.distortion import Distortion
from diffrender.cameras.intrinsics import check_each
from diffrender.cameras.lens_camera import LensCamera
from diffrender.cameras.lenses import Angular
from diffrender.cameras.parameters import Parameter


class FisheyeCamera(LensCamera):
    """The image radius is a polynomial of the angle theta to the axis: theta (1 + k1 theta^2 + ... + k4 theta^8).

    With k = 0 this is the equidistant fisheye. Depth is the distance from the centre, since the field of view may pass
    90 degrees; valid up to the angle where the polynomial stops growing, at most pi (excluded). Kannala & Brandt 2006,
    "A generic camera model and calibration method"; OpenCV's own formula is wrong beyond 90 degrees, this one is not.
    COLMAP's SIMPLE_RADIAL_FISHEYE, RADIAL_FISHEYE and OPENCV_FISHEYE are this with 1, 2 and 4 terms.

    Args:
        fx, fy: [*batch] pixels per radian on the axis.
        cx, cy: [*batch] principal point in pixels; OpenCV's plus one half.
        k: up to 4 terms (k1, ..., k4), numbers or tensors [*batch], or one tensor [*batch, K].
        size: (height, width).
        R, t: [*batch, 3, 3] and [*batch, 3], world to camera.

    >>> camera = FisheyeCamera(100.0, 100.0, 200.0, 200.0, size=(400, 400))
    >>> camera.project(torch.tensor([[1.0, 0.0, 0.0]]))  # 90 degrees to the right: 100 pi / 2 pixels
    (tensor([[357.0797, 200.0000]]), tensor([1.]))
    """

    vector_parameters: ClassVar[frozenset[str] | None] = frozenset({"k"})
    k: Tensor

    def __init__(
        self,
        fx: float | Tensor,
        fy: float | Tensor,
        cx: float | Tensor,
        cy: float | Tensor,
        k: Parameter = (0.0, 0.0, 0.0, 0.0),
        *,
        size: tuple[int, int],
        R: Tensor | Sequence[Any] | None = None,
        t: Parameter | None = None,
    ) -> None:
        terms = torch.zeros(0) if isinstance(k, (tuple, list)) and not k else k
        super().__init__(size=size, R=R, t=t, fx=fx, fy=fy, cx=cx, cy=cy, k=terms)

    def check_parameters(self) -> None:
        super().check_parameters()
        if self.k.shape[-1] > 4:
            raise ValueError(f"k must hold at most 4 coefficients (k1, k2, k3, k4); got {self.k.shape[-1]}")

    def lens(self) -> Angular:
        return Angular()

    def distortion(self) -> Distortion:
        return Distortion(self.k.unbind(-1))


class ThinPrismFisheyeCamera(LensCamera):
    """COLMAP's THIN_PRISM_FISHEYE: the equidistant fisheye with radial, tangential and thin-prism terms of its plane.

    Depth is the distance from the centre; valid where the distortion has not folded back.

    Args:
        fx, fy: [*batch] pixels per radian on the axis.
        cx, cy: [*batch] principal point in pixels, the same as COLMAP's.
        dist: in COLMAP's order, (k1, k2, p1, p2, k3, k4, sx1, sy1): numbers or tensors [*batch], or one tensor
            [*batch, 8].
        size: (height, width).
        R, t: [*batch, 3, 3] and [*batch, 3], world to camera.

    >>> camera = ThinPrismFisheyeCamera(10.0, 10.0, 8.0, 8.0, (0, 0, 0, 0, 0, 0, 0.1, 0), size=(16, 16))
    >>> camera.project(torch.tensor([[0.0, 1.0, 1.0]]))[0]  # x moves by 10 * 0.1 theta^2
    tensor([[ 8.6168, 15.8540]])
    """

    vector_parameters: ClassVar[frozenset[str] | None] = frozenset({"dist"})
    dist: Tensor

    def __init__(
        self,
        fx: float | Tensor,
        fy: float | Tensor,
        cx: float | Tensor,
        cy: float | Tensor,
        dist: Parameter = (0.0,) * 8,
        *,
        size: tuple[int, int],
        R: Tensor | Sequence[Any] | None = None,
        t: Parameter | None = None,
    ) -> None:
        super().__init__(size=size, R=R, t=t, fx=fx, fy=fy, cx=cx, cy=cy, dist=dist)

    def check_parameters(self) -> None:
        super().check_parameters()
        if self.dist.shape[-1] != 8:
            raise ValueError(
                f"dist must hold the 8 coefficients (k1, k2, p1, p2, k3, k4, sx1, sy1); got {self.dist.shape[-1]}"
            )

    def lens(self) -> Angular:
        return Angular()

    def distortion(self) -> Distortion:
        k1, k2, p1, p2, k3, k4, sx1, sy1 = self.dist.unbind(-1)
        none = torch.zeros_like(sx1)
        return Distortion((k1, k2, k3, k4), (), (p1, p2), (sx1, none, sy1, none))


class FOVCamera(LensCamera):
    """The image radius is atan(2 tan(omega / 2) tan(theta)) / omega, theta the angle to the axis: COLMAP's FOV.

    Devernay & Faugeras 2001, "Straight lines have to be straight". The arc tangent goes on beyond theta = 90 degrees
    (COLMAP stops there), so that depth is the distance from the centre, and all but straight behind is valid;
    omega = 0 is the pinhole, which sees z > 0.

    Args:
        fx, fy: [*batch] focal lengths in pixels.
        cx, cy: [*batch] principal point in pixels.
        omega: [*batch] in radians, from 0 to pi (excluded): the field of view of the ideal lens.
        size: (height, width).
        R, t: [*batch, 3, 3] and [*batch, 3], world to camera.

    >>> camera = FOVCamera(10.0, 10.0, 8.0, 8.0, omega=1.0, size=(16, 16))
    >>> camera.project(torch.tensor([[1.0, 0.0, 0.0]]))[0]  # 10 * (pi / 2) / omega
    tensor([[23.7080,  8.0000]])
    """

    omega: Tensor

    def __init__(
        self,
        fx: float | Tensor,
        fy: float | Tensor,
        cx: float | Tensor,
        cy: float | Tensor,
        omega: float | Tensor,
        *,
        size: tuple[int, int],
        R: Tensor | Sequence[Any] | None = None,
        t: Parameter | None = None,
    ) -> None:
        super().__init__(size=size, R=R, t=t, fx=fx, fy=fy, cx=cx, cy=cy, omega=omega)

    def check_parameters(self) -> None:
        super().check_parameters()
        check_each(self, "omega", lambda w: (w >= 0) & (w < math.pi), "an angle from 0 to pi (excluded)")

    def lens(self) -> Angular:
        return Angular(self.omega)
