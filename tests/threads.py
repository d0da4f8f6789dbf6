"""Whether bits depend on the number of threads, asked of every operation of torch on its own."""

import traceback
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

FEW = 2**13  # elements: torch does not divide so few among threads
WITHOUT_VALUES = ("aten.empty", "aten.new_empty", "aten.rand")  # memory as it is, and random numbers


class Unsteady(TorchDispatchMode):
    """Inside of it each operation runs with one thread and with `threads`; `found` names those whose bits differ.

    Far sharper than to compare results: an operation that differs is found where it stands, also where its difference
    is rounded away or decides nothing this time.

    Args:
        threads: 3 divides most sizes unevenly.
    """

    def __init__(self, threads: int = 3) -> None:
        super().__init__()
        self.threads = threads
        self.found: list[str] = []
        self.asked = 0  # operations that had something to divide

    def __enter__(self) -> "Unsteady":
        self._before = torch.get_num_threads()
        super().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        torch.set_num_threads(self._before)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        if str(func).startswith(WITHOUT_VALUES) or not any(x.numel() > FEW for x in tensors):
            return func(*args, **kwargs)
        self.asked += 1
        written = _written(func, args, kwargs)
        before = [x.clone() for x in written]
        torch.set_num_threads(self.threads)
        divided = [x.clone() for x in tree_leaves(func(*args, **kwargs)) if isinstance(x, Tensor)]
        for x, old in zip(written, before, strict=True):
            x.copy_(old)
        torch.set_num_threads(1)
        result = func(*args, **kwargs)
        if not all(map(_same, [x for x in tree_leaves(result) if isinstance(x, Tensor)], divided)):
            places = [f"{x.filename}:{x.lineno}" for x in traceback.extract_stack() if "diffrender" in x.filename]
            self.found.append(f"{func} of {[tuple(x.shape) for x in tensors]} at {places[-3:]}")
        return result


def _written(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """The tensors that an operation changes in place."""
    given = [(x, args[i] if i < len(args) else kwargs.get(x.name)) for i, x in enumerate(func._schema.arguments)]
    changed = [value for x, value in given if x.alias_info is not None and x.alias_info.is_write]
    return [x for x in tree_leaves(changed) if isinstance(x, Tensor)]


def _same(a: Tensor, b: Tensor) -> bool:
    if a.layout != torch.strided:
        return torch.equal(a._indices(), b._indices()) and _same(a._values(), b._values())
    return a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())
