"""Cameras that project through one or two spheres: closed inverses, fields of view beyond 180 degrees."""

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from diffrender.cameras.distortion import Distortion
from diffrender.cameras.intrinsics import check_each
from diffrender.cameras.lens_camera import LensCamera
from diffrender.cameras.lenses import Sphere
from diffrender.cameras.parameters import Parameter


class UnifiedCamera(LensCamera):
    """Mei's unified model, `cv2.omnidir`'s: (x, y) / (z + xi |p|), distorted like a pinhole's plane.

    Mei & Rives 2007, "Single view point omnidirectional camera calibration from planar grids". xi = 0 is the pinhole,
    xi = 1 stereographic (or a parabolic mirror). Depth is the distance from the centre; valid where
    z > -min(xi, 1 / xi) |p| and the distortion has not folded back.

    Args:
        fx, fy: [*batch] focal lengths in pixels, of the plane: the axis sees f / (1 + xi) pixels per radian.
        cx, cy: [*batch] principal point in pixels; OpenCV's plus one half.
        xi: [*batch] above -1: how far the second centre lies behind the first.
        dist: (k1, k2, p1, p2), numbers or tensors [*batch], or one tensor [*batch, 4].
        size: (height, width).
        R, t: [*batch, 3, 3] and [*batch, 3], world to camera.

    >>> import torch
    >>> camera = UnifiedCamera(20.0, 20.0, 16.0, 16.0, xi=0.5, size=(32, 32))
    >>> camera.project(torch.tensor([[3.0, 0.0, 4.0]]))[0]  # 20 * 3 / (4 + 2.5) + 16
    tensor([[25.2308, 16.0000]])
    """

    vector_parameters: ClassVar[frozenset[str] | None] = frozenset({"dist"})
    xi: Tensor
    dist: Tensor

    def __init__(
        self,
        fx: float | Tensor,
        fy: float | Tensor,
        cx: float | Tensor,
        cy: float | Tensor,
        xi: float | Tensor,
        dist: Parameter = (0.0, 0.0, 0.0, 0.0),
        *,
        size: tuple[int, int],
        R: Tensor | Sequence[Any] | None = None,
        t: Parameter | None = None,
    ) -> None:
        super().__init__(size=size, R=R, t=t, fx=fx, fy=fy, cx=cx, cy=cy, xi=xi, dist=dist)

    def check_parameters(self) -> None:
        super().check_parameters()
        check_each(self, "xi", lambda xi: xi > -1, "above -1")
        if self.dist.shape[-1] != 4:
            raise ValueError(f"dist must hold 4 coefficients (k1, k2, p1, p2); got {self.dist.shape[-1]}")

    def lens(self) -> Sphere:
        return Sphere(self.xi)

    def distortion(self) -> Distortion:
        k1, k2, p1, p2 = self.dist.unbind(-1)
        return Distortion((k1, k2), (), (p1, p2))


class DoubleSphereCamera(LensCamera):
    """(x, y) / (alpha |p'| + (1 - alpha) z'), where p' = p + (0, 0, xi |p|).

    Usenko, Demmel & Cremers 2018, "The double sphere camera model". Depth is the distance from the centre. What is
    valid is exact here (see `Sphere`); the paper's own cone is narrower.

    Args:
        fx, fy: [*batch] focal lengths in pixels, of the plane.
        cx, cy: [*batch] principal point in pixels; that of Basalt and Kalibr plus one half.
        xi: [*batch] above -1, at most 1: how far the second sphere lies behind the first.
        alpha: [*batch] from 0 to 1.
        size: (height, width).
        R, t: [*batch, 3, 3] and [*batch, 3], world to camera.

    >>> import torch
    >>> camera = DoubleSphereCamera(20.0, 20.0, 16.0, 16.0, xi=0.0, alpha=0.5, size=(32, 32))
    >>> camera.project(torch.tensor([[3.0, 0.0, 4.0]]))[0]  # 20 * 3 / (0.5 * 5 + 0.5 * 4) + 16
    tensor([[29.3333, 16.0000]])
    """

    xi: Tensor
    alpha: Tensor

    def __init__(
        self,
        fx: float | Tensor,
        fy: float | Tensor,
        cx: float | Tensor,
        cy: float | Tensor,
        xi: float | Tensor,
        alpha: float | Tensor,
        *,
        size: tuple[int, int],
        R: Tensor | Sequence[Any] | None = None,
        t: Parameter | None = None,
    ) -> None:
        super().__init__(size=size, R=R, t=t, fx=fx, fy=fy, cx=cx, cy=cy, xi=xi, alpha=alpha)

    def check_parameters(self) -> None:
        super().check_parameters()
        check_each(self, "xi", lambda xi: (xi > -1) & (xi <= 1), "above -1 and at most 1")
        check_each(self, "alpha", lambda alpha: (alpha >= 0) & (alpha <= 1), "from 0 to 1")

    def lens(self) -> Sphere:
        return Sphere(self.xi, self.alpha)


class EUCMCamera(LensCamera):
    """(x, y) / (alpha d + (1 - alpha) z) with d^2 = beta (x^2 + y^2) + z^2.

    Khomutenko, Garcia & Martinet 2016, "An enhanced unified camera model". Depth is the distance from the centre;
    valid where z > -w d, w = min(alpha, 1 - alpha) / max(alpha, 1 - alpha).

    Args:
        fx, fy: [*batch] pixels per radian on the axis.
        cx, cy: [*batch] principal point in pixels; that of Basalt and Kalibr plus one half.
        alpha: [*batch] from 0 to 1.
        beta: [*batch] above 0.
        size: (height, width).
        R, t: [*batch, 3, 3] and [*batch, 3], world to camera.

    >>> import torch
    >>> camera = EUCMCamera(20.0, 20.0, 16.0, 16.0, alpha=0.5, beta=1.0, size=(32, 32))
    >>> camera.project(torch.tensor([[3.0, 0.0, 4.0]]))[0]  # 20 * 3 / (0.5 * 5 + 0.5 * 4) + 16
    tensor([[29.3333, 16.0000]])
    """

    alpha: Tensor
    beta: Tensor

    def __init__(
        self,
        fx: float | Tensor,
        fy: float | Tensor,
        cx: float | Tensor,
        cy: float | Tensor,
        alpha: float | Tensor,
        beta: float | Tensor,
        *,
        size: tuple[int, int],
        R: Tensor | Sequence[Any] | None = None,
        t: Parameter | None = None,
    ) -> None:
        super().__init__(size=size, R=R, t=t, fx=fx, fy=fy, cx=cx, cy=cy, alpha=alpha, beta=beta)

    def check_parameters(self) -> None:
        super().check_parameters()
        check_each(self, "alpha", lambda alpha: (alpha >= 0) & (alpha <= 1), "from 0 to 1")
        check_each(self, "beta", lambda beta: beta > 0, "above 0")

    def lens(self) -> Sphere:
        return Sphere(0.0, self.alpha, self.beta)
