"""What a step of a fit spends its time on, stage by stage.

    OMP_NUM_THREADS=1 python benchmarks/fit_cost.py DATASET

Processor time, forward and backward. A stage is a function of the library; time in another stage inside of it counts
there. Backward, the time of each node of the graph goes to the stage that made it, which its sequence number tells:
autograd counts the nodes that it makes. A table for each stage of a fit with the default settings, as fine as there.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.autograd.graph import Node

import diffrender.fit.model
from diffrender.fit import FitSettings, trainer
from diffrender.fit.views import Views
from diffrender.io.datasets import load_dataset
from diffrender.optim import AdamUniform, LargeSteps

WARM_UP, STEPS = 10, 30  # the first steps load kernels and decode views
REST = "rest (copies to go back to, checks, optimizers' bookkeeping)"

# Modules or classes, the names of their functions, and what to call their time.
STAGES: tuple[tuple[Any, tuple[str, ...], str], ...] = (
    (diffrender.fit.model, ("render",), "render, without its boundary"),
    (sys.modules["diffrender.render"], ("answered",), "boundary"),  # runs its stages: edges, faces seen edge-on
    (trainer, ("_image_losses",), "losses, rim, exposure"),
    (trainer.Trainer, ("_priors",), "regularizers"),
    (LargeSteps, ("to_vertices",), "preconditioner"),
    (torch.optim.Adam, ("step", "zero_grad"), "optimizer"),
    (AdamUniform, ("step", "zero_grad"), "optimizer"),
    (trainer, ("_without_outliers",), "optimizer"),
    (Views, ("__getitem__",), "input"),
)


class Clock:
    """Processor time by stage, forward and backward."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._open = [REST]
        self._since = time.process_time()
        self._makers: list[tuple[int, str]] = []  # from this sequence number on, nodes are made by this stage

    def turn(self, stage: str | None) -> None:
        """Enter a stage; None: leave the last one."""
        self._count()
        if stage is None:
            self._open.pop()
        else:
            self._open.append(stage)
        self._makers.append((_next_node(), self._open[-1]))

    def _count(self) -> None:
        now = time.process_time()
        self.seconds[self._open[-1]] += now - self._since
        self._since = now

    def of(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function` with its time counted."""

        def timed(*arguments: Any, **options: Any) -> Any:
            self.turn(stage)
            try:
                return function(*arguments, **options)
            finally:
                self.turn(None)

        return timed

    def backward(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, which differentiates its first argument, with the time of each node counted for its maker."""

        def timed(outputs: Tensor, *arguments: Any, **options: Any) -> Any:
            hooks = []
            for node in _graph(outputs.grad_fn):
                number = node._sequence_nr()  # type: ignore[attr-defined]
                stage = next((name for first, name in reversed(self._makers) if first <= number), REST)
                hooks.append(node.register_prehook(lambda gradients, stage=stage: self._in_node(stage)))
            self._count()
            try:
                return function(outputs, *arguments, **options)
            finally:
                self._in_node(None)
                for hook in hooks:
                    hook.remove()

        return timed

    def _in_node(self, stage: str | None) -> None:
        """A node begins, which ends the one before; None: there are no more."""
        self._count()
        if self._inside:
            self._open.pop()
        self._inside = stage is not None
        if stage is not None:
            self._open.append(stage)

    _inside = False

    def start_over(self) -> None:
        """Forget what was counted."""
        self.seconds.clear()
        self._makers.clear()
        self._since = time.process_time()


def _next_node() -> int:
    """A sequence number after those of all nodes made so far."""
    with torch.enable_grad():
        node = torch.zeros((), requires_grad=True).exp().grad_fn
    assert node is not None
    return node._sequence_nr()  # type: ignore[attr-defined, no-any-return]


def _graph(root: Node | None) -> Iterator[Node]:
    seen, left = set(), [root]
    while left:
        node = left.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            left.extend(next_node for next_node, _ in node.next_functions)


@contextmanager
def watched(clock: Clock) -> Iterator[None]:
    """The functions of all stages replaced by timed ones, for what is inside."""
    patches = [
        patch.object(owner, name, clock.of(stage, getattr(owner, name)))
        for owner, names, stage in STAGES
        for name in names
    ]
    patches += [patch("torch.autograd.grad", clock.backward(torch.autograd.grad))]
    patches += [patch.object(Tensor, "backward", clock.backward(Tensor.backward))]
    for each in patches:
        each.start()
    try:
        yield
    finally:
        for each in patches:
            each.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    images = load_dataset(parser.parse_args().dataset).train
    defaults = FitSettings()
    for k, size in enumerate(defaults.image_sizes):
        cells = defaults.mesh_cells // 2 ** (len(defaults.image_sizes) - 1 - k)
        # one stage alone, with steps to spare, on the hull; the fit's own mesh is about as fine
        fit = trainer.Trainer(images, FitSettings(steps=1000, image_sizes=(size,), mesh_cells=cells))
        for _ in range(WARM_UP):
            fit.step()
        clock = Clock()
        with watched(clock):
            clock.start_over()
            for _ in range(STEPS):
                fit.step()
            clock.turn(REST)
        total = sum(clock.seconds.values())
        print(f"\nimages of at most {size} pixels, {fit.mesh().num_vertices} vertices, ", end="")
        print(f"{defaults.views_per_step} views a step\n\n| stage | ms a step | share |\n|---|---|---|")
        for stage, seconds in clock.seconds.most_common():
            print(f"| {stage} | {1e3 * seconds / STEPS:.1f} | {seconds / total:.0%} |")
        print(f"| all | {1e3 * total / STEPS:.1f} | |")


if __name__ == "__main__":
    main()
