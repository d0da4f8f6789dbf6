"""How a fit gets better with time: figures of the held-out views, measured while it goes on."""

from dataclasses import asdict, dataclass
from typing import Any

import torch

from ..io.image_set import ImageSet
from .report import figures_of
from .trainer import Trainer

INTERVALS = 10  # of the steps of a fit, at whose ends is measured
LONGEST = 320  # side of the images in pixels: a look costs little beside the steps, and errors finer than that hide


@dataclass(frozen=True)
class Point:
    """Means over the held-out views after a number of steps, and the seconds that the fit took so far."""

    step: int
    seconds: float
    iou: float
    psnr: float


class Curve:
    """The points so far; the fit never sees the views that they are measured on.

    Args:
        images: held-out views; without any, the curve stays empty.
        stored: what `state` of an earlier curve returned, to go on from there.
    """

    def __init__(self, images: ImageSet, stored: list[dict[str, Any]] | None = None) -> None:
        longest = max((max(size) for size in images.sizes), default=1)
        self._images = images.resized(min(1.0, LONGEST / longest))
        self.points = [Point(**point) for point in stored or []]

    def state(self) -> list[dict[str, Any]]:
        """The points as plain data."""
        return [asdict(point) for point in self.points]

    @torch.no_grad()
    def measure(self, trainer: Trainer) -> None:
        """Add a point, if it is time for one."""
        step, steps = len(trainer.history), trainer.settings.steps
        due = step in {steps * k // INTERVALS for k in range(INTERVALS + 1)}
        if not due or not len(self._images) or any(point.step == step for point in self.points):
            return
        mesh, optics = trainer.mesh(), trainer.optics()
        found = [figures_of(mesh, optics, self._images, i) for i in range(len(self._images))]
        iou, _, psnr = (sum(values) / len(found) for values in zip(*found, strict=True))
        self.points.append(Point(step, round(trainer.seconds, 2), iou, psnr))
