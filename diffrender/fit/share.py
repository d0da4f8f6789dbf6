"""Processes that fit together: each looks at its share of the views of a step, and all take the same step.

What one process computes for a batch of views is a sum over them, so the sum over the processes is the same up to
rounding, however the views are dealt out. Everything else (solves, optimizers, stages) is done by all of them alike.
A step costs one message, the sum of all derivatives: 24 bytes for each vertex (12, and 12 for each texel that is
covered, once there is a texture), and little more.
"""

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as distributed
from torch import Tensor

T = TypeVar("T")
PATIENCE = timedelta(minutes=30)  # for the slowest: the others wait while the first one makes the start


class ProcessLostError(RuntimeError):
    """Another process of the fit has ended, or cannot be reached."""


@contextmanager
def joined() -> Iterator[None]:
    """The processes of one `torchrun` as one group, for what is inside; nothing where there is only this one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend, timeout=PATIENCE)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def count() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Which one this is; the first, 0, writes all the files."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def own_device(device: torch.device | str) -> torch.device:
    """`device`; "cuda" without a number, in a group, is that of this process on its machine."""
    found = torch.device(device)
    if found.type == "cuda" and found.index is None and count() > 1:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return found


def own(values: Sequence[T]) -> list[T]:
    """Those of the `values`, the same in all processes, that are this one's."""
    return list(values[rank() :: count()])


def total(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The sums of `tensors`, of the same shapes in all processes, over all of them: the same bits everywhere."""
    if count() == 1:
        return list(tensors)
    joint = torch.cat([x.detach().reshape(-1) for x in tensors])
    try:
        distributed.all_reduce(joint)
    except RuntimeError as error:
        raise _lost(error) from error
    parts = joint.split([x.numel() for x in tensors])
    return [part.reshape(x.shape) for part, x in zip(parts, tensors, strict=True)]


def of_the_first(value: Any) -> Any:
    """What the first process has for `value`: plain data, and tensors, which the others get on the CPU."""
    if count() == 1:
        return value
    whole = io.BytesIO()
    torch.save(value if rank() == 0 else None, whole)
    box = [whole.getvalue()]
    try:
        distributed.broadcast_object_list(box)
    except RuntimeError as error:
        raise _lost(error) from error
    return value if rank() == 0 else torch.load(io.BytesIO(box[0]), map_location="cpu", weights_only=True)


def _lost(error: RuntimeError) -> ProcessLostError:
    reason = str(error).splitlines()[0]
    return ProcessLostError(f"another process of this fit has ended or cannot be reached ({reason}); go on with resume")
