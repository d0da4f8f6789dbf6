"""The camera of OpenCV's calibration: a pinhole behind a lens with radial, tangential, prism and tilt terms."""

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from diffrender.cameras.distortion import Distortion
from diffrender.cameras.lens_camera import LensCamera
from diffrender.cameras.lenses import Sphere
from diffrender.cameras.parameters import Parameter

NUM_COEFFICIENTS = (4, 5, 8, 12, 14)


class OpenCVCamera(LensCamera):
    """A pinhole with OpenCV's distortion. Depth is z; valid where z > 0 and the distortion has not folded back.

    COLMAP's SIMPLE_RADIAL, RADIAL, OPENCV and FULL_OPENCV are this with 4 or 8 coefficients.

    Args:
        fx, fy: [*batch] focal lengths in pixels.
        cx, cy: [*batch] principal point in pixels; OpenCV's plus one half.
        dist: coefficients in OpenCV's order, (k1, k2, p1, p2[, k3[, k4, k5, k6[, s1, s2, s3, s4[, tx, ty]]]]): 4, 5, 8,
            12 or 14 of them, numbers or tensors [*batch], or one tensor [*batch, K].
        size: (height, width).
        R, t: [*batch, 3, 3] and [*batch, 3], world to camera.

    The formulas are those of the documentation of `cv2.projectPoints`.

    >>> import torch
    >>> camera = OpenCVCamera(100.0, 100.0, 50.0, 50.0, dist=(-0.1, 0.0, 0.0, 0.0), size=(100, 100))
    >>> camera.project(torch.tensor([[0.5, 0.0, 1.0]]))  # 0.5 (1 - 0.1 * 0.25) = 0.4875
    (tensor([[98.7500, 50.0000]]), tensor([1.]))
    """

    vector_parameters: ClassVar[frozenset[str] | None] = frozenset({"dist"})
    depth_is_z: ClassVar[bool] = True
    dist: Tensor

    def __init__(
        self,
        fx: float | Tensor,
        fy: float | Tensor,
        cx: float | Tensor,
        cy: float | Tensor,
        dist: Parameter = (0.0, 0.0, 0.0, 0.0),
        *,
        size: tuple[int, int],
        R: Tensor | Sequence[Any] | None = None,
        t: Parameter | None = None,
    ) -> None:
        super().__init__(size=size, R=R, t=t, fx=fx, fy=fy, cx=cx, cy=cy, dist=dist)

    def check_parameters(self) -> None:
        super().check_parameters()
        if self.dist.shape[-1] not in NUM_COEFFICIENTS:
            raise ValueError(
                f"dist must hold {NUM_COEFFICIENTS} coefficients in OpenCV's order, (k1, k2, p1, p2, k3, ...); "
                f"got {self.dist.shape[-1]}: pad with zeros"
            )

    def lens(self) -> Sphere:
        return Sphere()

    def distortion(self) -> Distortion:
        k1, k2, p1, p2, *more = self.dist.unbind(-1)
        return Distortion((k1, k2, *more[:1]), tuple(more[1:4]), (p1, p2), tuple(more[4:8]), tuple(more[8:]))
