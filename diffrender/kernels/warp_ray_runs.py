"""The Warp kernel that sorts rays of linear cameras into runs of pixels of a row, on the CPU."""

# mypy: ignore-errors
# (Warp's language, not Python's)

from functools import cache
from typing import Any, NamedTuple

import warp as wp

from .warp_math import OPTIONS, make_math


class RayRunKernels(NamedTuple):
    """The kernel for one floating-point type."""

    sort_by_runs: Any


@cache
def make_ray_run_kernels(real: Any) -> RayRunKernels:
    """The kernel for `real` (`wp.float32` or `wp.float64`); nothing compiles before a launch."""
    vec2, vec3, *_ = make_math(real)

    @wp.kernel(module="unique", module_options=OPTIONS)
    def sort_by_runs(
        view: wp.array(dtype=wp.int64),
        xy: wp.array(dtype=vec2),
        directions: wp.array(dtype=vec3),
        height: int,
        runs: int,
        length: int,
        run: wp.array(dtype=wp.int32),
        start: wp.array(dtype=wp.int32),
        order: wp.array(dtype=wp.int64),
        x: wp.array(dtype=real),
        dx: wp.array(dtype=real),
        dy: wp.array(dtype=real),
    ):
        """Sort rays by their run, by counting, in one thread; `start` holds zeros, and room for one number more."""
        count = run.shape[0]
        for i in range(count):
            column = wp.clamp(int(xy[i][0] / real(length)), 0, runs - 1)  # some column also for a NaN
            row = wp.clamp(int(xy[i][1]), 0, height - 1)
            run[i] = (int(view[i]) * height + row) * runs + column
            start[run[i] + 2] = start[run[i] + 2] + 1
        total = int(0)
        for j in range(start.shape[0]):
            total += start[j]
            start[j] = total
        for i in range(count):
            place = start[run[i] + 1]  # where the next ray of this run goes; in the end, where the next run starts
            start[run[i] + 1] = place + 1
            order[place] = wp.int64(i)
            x[place] = xy[i][0]
            dx[place] = directions[i][0]
            dy[place] = directions[i][1]

    return RayRunKernels(sort_by_runs)
