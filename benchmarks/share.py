"""What a step of a fit costs, and what several processes that share its views would save.

    OMP_NUM_THREADS=1 python benchmarks/share.py DATASET                                          the model
    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 benchmarks/share.py DATASET                     measured

Processor time of one process, so that other work on the machine hardly shows: of a step with one view and with four,
from which follow the part that is shared and the part that is not; and the time of one exchange.
"""

import argparse
import time
from pathlib import Path

import torch

from diffrender.fit import FitSettings, share
from diffrender.fit.trainer import Trainer
from diffrender.io.datasets import load_dataset

STEPS = 16


def step_time(trainer: Trainer) -> float:
    """Median time of a step, in seconds; the first ones load kernels and decode views."""
    times = []
    for _ in range(STEPS):
        start = time.process_time()
        trainer.step()
        times.append(time.process_time() - start)
    return sorted(times[STEPS // 4 :])[len(times[STEPS // 4 :]) // 2]


def exchange_time(values: int) -> float:
    tensor = torch.zeros(values)
    times = []
    for _ in range(30):
        start = time.perf_counter()
        share.total([tensor])
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    images = load_dataset(parser.parse_args().dataset).train
    measured = {}
    with share.joined():
        for views in (1, 4) if share.count() == 1 else (4,):
            # one stage as fine as the last one of a fit, with steps to spare
            settings = FitSettings(steps=1000, image_sizes=(320,), views_per_step=views)
            trainer = Trainer(images, settings)
            measured[views] = step_time(trainer)
        vertices = trainer.mesh().num_vertices
        if share.count() > 1:
            exchange = exchange_time(6 * vertices)
            if share.rank() == 0:
                print(f"{share.count()} processes, {vertices} vertices: {1e3 * measured[4]:.0f} ms of processor time")
                print(f"exchange of {24 * vertices / 1e6:.2f} MB: {1e3 * exchange:.1f} ms with waiting for the others")
            return
    view = (measured[4] - measured[1]) / 3
    rest = measured[1] - view
    print(f"{vertices} vertices: {1e3 * view:.0f} ms for each view, {1e3 * rest:.0f} ms for the rest of a step")
    for count in (1, 2, 4):
        print(f"  {count} processes: {1e3 * (rest + view * 4 / count):.0f} ms a step and an exchange")


if __name__ == "__main__":
    main()
