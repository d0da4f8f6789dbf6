"""Launching kernels: from source to machine code, work to threads.

On the CPU Warp runs a kernel on one thread and lets go of the interpreter lock; the output is therefore cut into
disjoint parts (bands of rows, subtrees of rays), one launch each, side by side. On CUDA the same kernels run twice
with atomic minima: least depth, then the lowest face at that depth. Either way the result does not depend on the order.
"""

import ctypes
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from itertools import pairwise
from threading import Lock
from typing import Any

import numpy as np
import torch
import warp as wp
from torch import Tensor

from .arrays import Description

MIN_WORK = 16384  # fewer faces are not worth a second thread, which takes a tenth of a millisecond to wake up
BALANCE_SAMPLES = 4096  # points that are asked where the image is busy
# Pixels or rays that a thread computes side by side, in vector instructions; on CUDA threads themselves are so.
LANES = {"cpu": 16, "cuda": 1}
BLOCK = {"cpu": 1, "cuda": 256}  # threads that `wp.launch` starts together, where nobody says otherwise
KNOWN_WARP = "1.19."  # whose compiled functions on the CPU take the bounds and one structure of all arguments
_one_at_a_time = Lock()  # Warp makes and loads kernels for one thread only


def load_kernel(make: Callable[..., Any], name: str, like: Tensor, *options: Any) -> Any:
    """The kernel `name` out of `make`, for the type of `like` and more `options`; compiled on first use, then cached.

    The cache is on disk.
    """
    if like.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"vertices must be float32 or float64; got {str(like.dtype).removeprefix('torch.')}")
    try:
        with _one_at_a_time:
            return _loaded(make, name, like.dtype, like.device, options)
    except OSError as error:
        hint = "kernels are compiled into this folder; the environment variable WARP_CACHE_PATH names another one"
        raise OSError(error.errno, f"{error.strerror}: {hint}", error.filename) from error


@cache
def _loaded(make: Callable[..., Any], name: str, dtype: torch.dtype, device: torch.device, options: Any) -> Any:
    _initialize()
    kernel = getattr(make(wp.float32 if dtype == torch.float32 else wp.float64, *options), name)
    kernel.module.load(wp.device_from_torch(device), BLOCK[device.type])  # before threads use it
    return kernel


def launch(kernel: Any, count: int, arguments: Sequence[Any], device: torch.device) -> None:
    """Run a kernel `count` times; the arguments are numbers and what `arrays` made of tensors."""
    if count and device.type == "cpu" and wp.__version__.startswith(KNOWN_WARP):
        function, structure, bounds = _compiled(kernel)
        assert len(arguments) == len(structure._fields_)  # those that are missing would be zero: null pointers
        function(ctypes.byref(bounds((count,))), ctypes.byref(structure(*arguments)))
    else:
        wp.launch(kernel, dim=count, inputs=arguments, device=wp.device_from_torch(device))


@cache
def _compiled(kernel: Any) -> tuple[Any, type[ctypes.Structure], Any]:
    """The compiled function, the structure of its arguments and that of its bounds, on the CPU.

    `wp.launch` comes down to a call of this function. But most launches here are so short that its questions take as
    long as they do.
    """
    from warp._src.types import launch_bounds_t  # private, as is the rest of this: for a known version only

    machine_code = kernel.module.load(wp.get_device("cpu"), BLOCK["cpu"])
    fields = [(argument.label, _ctype(argument.type)) for argument in kernel.adj.args]
    structure = type(kernel.key, (ctypes.Structure,), {"_fields_": fields, "machine_code": machine_code})
    return machine_code.get_kernel_hooks(kernel).forward, structure, type(launch_bounds_t(1))


def _ctype(kind: Any) -> Any:
    """The type in C of an argument of the `kind` that a kernel declares."""
    if isinstance(kind, wp.array):
        return Description
    if isinstance(kind, type) and issubclass(kind, ctypes.Array):  # a vector
        return kind
    return {int: ctypes.c_int32, float: ctypes.c_float}.get(kind) or kind._type_


def launch_ranges(kernel: Any, count: int, inputs: list[Any], outputs: list[Any], like: Tensor, min_share: int) -> None:
    """Launch a kernel over `count` items that write to places of their own; its last input is the first item."""
    if count == 0:
        return
    parts = 1 if like.is_cuda else max(min(torch.get_num_threads(), count // min_share), 1)
    if parts == 1:
        return launch(kernel, count, [*inputs, 0, *outputs], like.device)
    cuts = [count * i // parts for i in range(parts + 1)]

    def work(first: int, stop: int) -> None:
        launch(kernel, stop - first, [*inputs, first, *outputs], like.device)

    side_by_side(work, list(pairwise(cuts)))


def worthwhile(work: int) -> int:
    """How many threads are worth waking up."""
    return max(min(torch.get_num_threads(), work // MIN_WORK), 1)


@lru_cache(maxsize=1)
def _initialize() -> None:
    """Start Warp without its greeting; a library prints nothing."""
    level, wp.config.log_level = wp.config.log_level, wp.LOG_ERROR
    sys.stderr.flush()
    stderr, silent = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 2)  # its native code warns there, past every setting, when there is no CUDA driver
    try:
        wp.init()
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(silent)
    wp.config.log_level = max(level, wp.LOG_WARNING)


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="diffrender")


def side_by_side(work: Callable[..., None], jobs: Sequence[tuple[Any, ...]]) -> None:
    """Call `work` with the arguments of each job, as many at once as torch has threads; the first on this thread."""
    if not jobs:
        return
    if torch.get_num_threads() == 1:
        for job in jobs:
            work(*job)
        return
    pending = [_pool(max(torch.get_num_threads(), 2)).submit(work, *job) for job in jobs[1:]]
    work(*jobs[0])
    for future in pending:
        future.result()


def row_bands(
    rows: int, num_points: int, row_of: Callable[[int], np.ndarray], like: Tensor, min_share: int
) -> list[tuple[int, int]]:
    """Bands of `rows`, one for each thread, that about as many of the points write to; on CUDA one for all of them.

    `row_of(stride)` has the rows of every so many points.
    """
    parts = 1 if like.is_cuda else min(torch.get_num_threads(), num_points // min_share)
    if parts <= 1:
        return [(0, rows)]
    cuts = balanced_cuts(row_of(max(num_points // BALANCE_SAMPLES, 1)), rows, parts)
    return [(a, b) for a, b in pairwise(cuts) if b > a]


def balanced_cuts(places: np.ndarray, stop: int, parts: int) -> list[int]:
    """Cuts 0 <= ... <= `stop` such that about as many of the places lie in each of the parts; by numpy as below."""
    if parts == 1 or places.size == 0:
        return [stop * i // parts for i in range(parts + 1)]
    places = np.sort(np.nan_to_num(places).clip(0, stop))
    return [0, *(int(places[places.size * i // parts]) for i in range(1, parts)), stop]
