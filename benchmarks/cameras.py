"""How fast cameras project and un-project: `python benchmarks/cameras.py [--points 1000000] [--dtype float32]`

Forward and backward, to the points or pixels, the translation and all parameters of the model. Every figure is the best
of several rounds, and every round takes all rows in turn, so that what else the machine does hits all alike. Ratios are
to the plain pinhole, which is eager torch; the last column is the time to un-project over that to project. The last two
rows are without a pose, from points and pixels in the camera's frame: kornia's distortion goes from pixels to pixels.
"""

import argparse
import os
import platform
import time
from collections.abc import Callable

import torch
from kornia.geometry.calibration import distort_points, undistort_points
from torch import Tensor

import diffrender as dr

SIZE = (480, 640)
REPEATS = 4
BARREL = (-0.3, 0.1, 1e-3, -2e-3)
RATIONAL = (0.4, 0.1, 1e-3, -2e-3, 0.01, 0.7, 0.2, 0.02)
PRISM = (5e-3, -1e-3, 3e-3, 2e-3)
TILT = (0.04, -0.06)
MODELS: dict[str, tuple[Callable[..., dr.Camera], tuple]] = {
    "pinhole": (dr.PinholeCamera, ()),
    "OpenCV, 4 coefficients": (dr.OpenCVCamera, (BARREL,)),
    "OpenCV, 5": (dr.OpenCVCamera, ((*BARREL, -0.01),)),
    "OpenCV, 8": (dr.OpenCVCamera, (RATIONAL,)),
    "OpenCV, 12": (dr.OpenCVCamera, ((*RATIONAL, *PRISM),)),
    "OpenCV, 14": (dr.OpenCVCamera, ((*RATIONAL, *PRISM, *TILT),)),
    "fisheye, 4 terms": (dr.FisheyeCamera, ((0.05, -0.01, 0.002, -0.0003),)),
    "thin-prism fisheye": (dr.ThinPrismFisheyeCamera, ((0.05, -0.01, 2e-3, -1e-3, 2e-3, -3e-4, 3e-3, -2e-3),)),
    "FOV": (dr.FOVCamera, (0.9,)),
    "unified, distorted": (dr.UnifiedCamera, (0.8, (-0.05, 0.01, 2e-3, -1e-3))),
    "double sphere": (dr.DoubleSphereCamera, (-0.24, 0.57)),
    "EUCM": (dr.EUCMCamera, (0.6, 1.1)),
    "OCamCalib": (dr.ScaramuzzaCamera, ()),
    "equirectangular": (dr.EquirectangularCamera, ()),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument(
        "--processor", action="store_true", help="time of the processor, on one thread: on busy machines"
    )
    args = parser.parse_args()
    if args.processor:
        torch.set_num_threads(1)
    dtype = torch.float32 if args.dtype == "float32" else torch.float64
    print(
        f"{platform.machine()} CPU, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"load {os.getloadavg()[0]:.1f}, {args.points} points, {args.dtype}\n"
    )
    tasks: dict[tuple[str, str], Callable[[], None]] = {}
    for name in MODELS:
        tasks[name, "project"], tasks[name, "unproject"] = camera_tasks(name, args.points, dtype)
    own, other = "OpenCV, 4 coefficients, no pose", "kornia, 4 coefficients, no pose"
    tasks[own, "project"], tasks[own, "unproject"] = camera_tasks("OpenCV, 4 coefficients", args.points, dtype, False)
    tasks[other, "project"], tasks[other, "unproject"] = kornia_tasks(args.points, dtype)
    times = best_of_all(tasks, args.rounds, time.thread_time if args.processor else time.perf_counter)

    print("| model | project | ratio | un-project | ratio | un-project / project |\n|---|---|---|---|---|---|")
    plain = {what: times["pinhole", what] for what in ("project", "unproject")}
    for name in [*MODELS, own, other]:
        to, back = times[name, "project"], times[name, "unproject"]
        print(
            f"| {name} | {1e3 * to:.0f} ms | {to / plain['project']:.2f} | {1e3 * back:.0f} ms | "
            f"{back / plain['unproject']:.2f} | {back / to:.2f} |"
        )


def camera_tasks(
    name: str, count: int, dtype: torch.dtype, posed: bool = True
) -> tuple[Callable[[], None], Callable[[], None]]:
    """Projecting random points of the field of view, and un-projecting random pixels, both with the backward.

    Not `posed`: points in the camera's frame, and rays there.
    """
    model, parameters = MODELS[name]
    if model is dr.ScaramuzzaCamera:
        camera: dr.Camera = model(320.3, 239.1, (-250.0, 0.0, 9e-4, -3e-7, 1.2e-9), size=SIZE)
    else:
        focal = () if model is dr.EquirectangularCamera else (500.0, 510.0, 320.3, 239.1)
        camera = model(*focal, *parameters, size=SIZE)
    camera = camera.to(dtype=dtype)
    leaves = {
        n: v.clone().requires_grad_()
        for n, v in camera._tensors().items()
        if n not in (("R",) if posed else ("R", "t"))
    }
    camera = camera.replace(**leaves)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(count, 2, generator=generator).to(dtype) * torch.tensor([640.0, 480.0], dtype=dtype)
    points = torch.randn(count, 3, generator=generator).to(dtype) * 0.3 + torch.tensor([0.0, 0.0, 1.5], dtype=dtype)
    depth = 1 + torch.rand(count, generator=generator).to(dtype)
    of_xy, of_points = torch.randn_like(pixels), torch.randn_like(points)
    points.requires_grad_(), pixels.requires_grad_()

    def project() -> None:
        outputs = camera.project(points) if posed else camera.local_project(points)
        torch.autograd.grad(outputs, [points, *leaves.values()], (of_xy, depth))

    def unproject() -> None:
        output = camera.unproject(pixels, depth) if posed else camera.local_rays(pixels)[1]
        torch.autograd.grad(output, [pixels, *leaves.values()], of_points)

    return project, unproject


def kornia_tasks(count: int, dtype: torch.dtype) -> tuple[Callable[[], None], Callable[[], None]]:
    """kornia's distortion from pixels to pixels, and its inverse with its own five iterations."""
    K = torch.tensor([[500.0, 0, 319.8], [0, 510, 238.6], [0, 0, 1]], dtype=dtype)[None]
    dist = torch.tensor([BARREL], dtype=dtype)
    pixels = torch.rand(1, count, 2, generator=torch.Generator().manual_seed(0)).to(dtype) * 480
    leaves = [pixels.requires_grad_(), K.requires_grad_(), dist.requires_grad_()]
    upstream = torch.randn_like(pixels)

    def task(function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[[], None]:
        return lambda: void(torch.autograd.grad(function(pixels, K, dist), leaves, upstream))

    return task(distort_points), task(undistort_points)


def void(_: object) -> None:
    return


def best_of_all(
    tasks: dict[tuple[str, str], Callable[[], None]], rounds: int, clock: Callable[[], float]
) -> dict[tuple[str, str], float]:
    """Least seconds of each task. In each round it runs `REPEATS` times in a row; the first does not count.

    (It compiles kernels, and finds memory that the task before it has given back to the system.)
    """
    best = {key: float("inf") for key in tasks}
    for _ in range(rounds):
        for key, task in tasks.items():
            for repeat in range(REPEATS):
                begin = clock()
                task()
                if repeat:
                    best[key] = min(best[key], clock() - begin)
    return best


if __name__ == "__main__":
    main()
