"""The camera models that can be calibrated, and where each starts from a focal length alone."""

from collections.abc import Callable
from typing import Any, TypeAlias

from torch import Tensor

from ..cameras import (
    Camera,
    DoubleSphereCamera,
    EUCMCamera,
    FisheyeCamera,
    OpenCVCamera,
    PinholeCamera,
    ThinPrismFisheyeCamera,
    UnifiedCamera,
)

Start: TypeAlias = Callable[[Tensor, tuple[int, int]], Camera]  # pixels per radian on the axis [*batch], size


def _start(make: Callable[..., Camera], scale: float = 1.0, **lens: Any) -> Start:
    """The principal point in the middle; `lens` holds numbers, or how many coefficients to start at zero."""

    def start(f: Tensor, size: tuple[int, int]) -> Camera:
        values = {
            n: f.new_zeros(*f.shape, v) if isinstance(v, int) else f.new_full(f.shape, v) for n, v in lens.items()
        }
        return make(scale * f, scale * f, size[1] / 2, size[0] / 2, size=size, **values)

    return start


# All parameters of a model are solved for. The wide ones start as the stereographic lens, or the equidistant one.
LENSES: dict[str, Start] = {
    "pinhole": _start(PinholeCamera),
    "opencv": _start(OpenCVCamera, dist=5),
    "rational": _start(OpenCVCamera, dist=8),
    "fisheye": _start(FisheyeCamera, k=4),
    "thin_prism_fisheye": _start(ThinPrismFisheyeCamera, dist=8),
    "unified": _start(UnifiedCamera, 2.0, xi=1.0, dist=4),
    # Not at xi = 0, where fx, xi and alpha move the image in two ways only.
    "double_sphere": _start(DoubleSphereCamera, 0.8, xi=-0.2, alpha=0.6),
    "eucm": _start(EUCMCamera, alpha=0.5, beta=1.0),
}
