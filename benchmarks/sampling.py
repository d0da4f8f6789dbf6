"""How fast `sample` is beside `torch.nn.functional.grid_sample`: one table. `python benchmarks/sampling.py`

A million points in an image of 1024 x 1024; random ones, and those that a textured sphere filling the picture looks up.
Both libraries are timed in turns in one process, least of several rounds, so that what else the machine does hits both.
Memory is the peak of a forward and a backward run beyond image, points and upstream gradient, in a process of its own.
"Bandwidth" is what a lookup has to move at least (coordinates in, values out, the image once; with its gradient for the
reverse mode), over the time, as a share of what a copy reaches in the same run.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import diffrender as dr
from diffrender.sampling import mip_pyramid, sample_anisotropic, sample_trilinear

SIDE, COUNT = 1024, 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--channels", type=int, nargs="*", default=[3, 32])
    parser.add_argument("--memory", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory:
        return report_memory(args.memory, args.channels[0])
    device = torch.device(args.device)
    source = torch.zeros(64 << 20, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = 2 * len(source) / best({"copy": lambda: target.copy_(source)}, args.rounds, device)["copy"]
    print(
        f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}, copy {copy / 1e9:.0f} GB/s (read + write)\n"
    )
    print("| points | channels | direction | grid_sample | ours | ratio | bandwidth |\n|---|---|---|---|---|---|---|")
    for name, xy in (("random", random_points(device)), ("coherent", coherent_points(device))):
        for channels in args.channels:
            compare(name, xy, channels, args.rounds, copy)
    filtered(coherent_points(device), args.rounds)
    print("\n| random points, forward and backward | channels | grid_sample | ours |\n|---|---|---|---|")
    for channels in args.channels if device.type == "cpu" else ():
        theirs, ours = (memory_of(name, channels) for name in ("theirs", "ours"))
        print(f"| peak memory | {channels} | {theirs} MB | {ours} MB |", flush=True)


def random_points(device: torch.device) -> Tensor:
    return (SIDE * torch.rand(COUNT, 2, generator=torch.Generator().manual_seed(0))).to(device)


def coherent_points(device: torch.device) -> Tensor:
    """The pixels of a texture that 1000 x 1000 pixels of a picture look up, row by row."""
    camera = dr.PinholeCamera(3000.0, 3000.0, 500.0, 500.0, size=(1000, 1000), t=(0.0, 0.0, 3.0)).to(device)
    _, buffers = dr.render(dr.sphere().to(device), camera, buffers=("uvs",), intersecting=False)
    return (SIDE * buffers["uvs"].reshape(-1, 2)).contiguous()


def compare(name: str, xy: Tensor, channels: int, rounds: int, copy: float) -> None:
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(SIDE, SIDE, channels, generator=generator).to(xy.device).requires_grad_()
    upstream = torch.rand(len(xy), channels, generator=generator).to(xy.device)
    theirs = image.detach().movedim(-1, 0)[None].contiguous().requires_grad_()
    points, grid = xy.clone().requires_grad_(), (2 * xy / SIDE - 1)[None, None].requires_grad_()
    our_values = dr.sample(image, points)
    their_values = F.grid_sample(theirs, grid, align_corners=False)
    their_upstream = upstream.t()[None, :, None].contiguous()

    def ours_backward() -> object:
        return torch.autograd.grad(our_values, (image, points), upstream, retain_graph=True)

    def theirs_backward() -> object:
        return torch.autograd.grad(their_values, (theirs, grid), their_upstream, retain_graph=True)

    with torch.no_grad():
        forward = best(
            {
                "theirs": lambda: F.grid_sample(theirs, grid, align_corners=False),
                "ours": lambda: dr.sample(image, points),
            },
            rounds,
            xy.device,
        )
    backward = best({"theirs": theirs_backward, "ours": ours_backward}, max(rounds // 3, 3), xy.device)
    moved = 4 * (2 * len(xy) + len(xy) * channels + SIDE * SIDE * channels)
    for direction, times, amount in (
        ("forward", forward, moved),
        ("backward", backward, moved + 4 * (2 * len(xy) + 2 * SIDE * SIDE * channels)),
    ):
        print(
            f"| {name} | {channels} | {direction} | {1e3 * times['theirs']:.1f} ms | {1e3 * times['ours']:.1f} ms |"
            f" {times['theirs'] / times['ours']:.1f} | {amount / times['ours'] / copy:.0%} |",
            flush=True,
        )


def filtered(xy: Tensor, rounds: int) -> None:
    """Trilinear and anisotropic lookups beside bilinear ones, at levels and footprints as those of a tilted plane."""
    uv, texture = xy / SIDE, torch.rand(SIDE, SIDE, 3, device=xy.device)
    pyramid = mip_pyramid(texture)
    level = torch.linspace(0.0, 3.0, len(uv), device=xy.device)
    stretch = 2 ** level[:, None, None] / SIDE * torch.tensor([[1.0, 0.0], [0.0, 3.0]], device=xy.device)
    with torch.no_grad():
        times = best(
            {
                "bilinear": lambda: dr.sample_texture(texture, uv),
                "trilinear": lambda: sample_trilinear(pyramid, uv, level),
                "anisotropic, 3 probes": lambda: sample_anisotropic(pyramid, uv, stretch),
            },
            rounds,
            xy.device,
        )
    print("\n| coherent points, 3 channels, forward | time | of bilinear |\n|---|---|---|")
    for name, seconds in times.items():
        print(f"| {name} | {1e3 * seconds:.1f} ms | {seconds / times['bilinear']:.1f} |")


def memory_of(name: str, channels: int) -> str:
    """Peak memory in MB, in a process of its own."""
    command = [sys.executable, __file__, "--memory", name, "--channels", str(channels)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def report_memory(name: str, channels: int) -> None:
    def work(side: int, count: int) -> None:
        ours = name == "ours"
        image = torch.rand((side, side, channels) if ours else (1, channels, side, side)).requires_grad_()
        points = torch.rand((count, 2) if ours else (1, 1, count, 2)).mul_(side if ours else 1).requires_grad_()
        upstream = torch.rand((count, channels) if ours else (1, channels, 1, count))
        before = peak_memory()
        values = dr.sample(image, points) if ours else F.grid_sample(image, points, align_corners=False)
        torch.autograd.grad(values, (image, points), upstream)
        if count > 1:
            print(f"{peak_memory() - before:.0f}")

    work(2, 1)  # kernels and threads
    work(SIDE, COUNT)


def peak_memory() -> float:
    """Largest resident size of this process so far, in MB."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage says counts the parent as well, under Linux
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line) / 1000
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def best(works: dict[str, Callable[[], object]], rounds: int, device: torch.device) -> dict[str, float]:
    """Least seconds of each, taken in turns, after one round that also compiles the kernels."""
    found = dict.fromkeys(works, float("inf"))
    for i in range(rounds + 1):
        for name, work in works.items():
            begin = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if i:
                found[name] = min(found[name], time.perf_counter() - begin)
    return found


if __name__ == "__main__":
    main()
