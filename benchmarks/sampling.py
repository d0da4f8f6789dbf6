"""How fast `sample` is beside `torch.nn.functional.grid_sample`: one table. `python benchmarks/sampling.py`

A million points in an image of 1024 x 1024; random ones, and those that a textured sphere filling the picture looks up.
Both libraries are timed in turns in one process, least of several rounds, so that what else the machine does hits both.
"Bandwidth" is what a lookup has to move at least (coordinates in, values out, the image once; with its gradient for the
reverse mode), over the time, as a share of what a copy reaches in the same run.
"""

import argparse
import os
import time
from collections.abc import Callable

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
    args = parser.parse_args()
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
