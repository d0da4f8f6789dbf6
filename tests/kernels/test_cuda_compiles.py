"""Every kernel compiles for CUDA, also where there is no GPU: Warp brings NVIDIA's compiler along."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import warp as wp
from test_lens import LENSES, SIZE

from diffrender.kernels import launch
from diffrender.kernels.lens import LANES
from diffrender.kernels.warp_barycentrics import make_barycentric_kernels
from diffrender.kernels.warp_bent_faces import make_bent_face_kernels
from diffrender.kernels.warp_clipping import make_clipping_kernels
from diffrender.kernels.warp_curves import make_curve_kernels
from diffrender.kernels.warp_edges import make_edge_kernels
from diffrender.kernels.warp_interpolation import make_interpolation_kernels
from diffrender.kernels.warp_intersections import make_intersection_kernels
from diffrender.kernels.warp_lens import make_lens_kernels
from diffrender.kernels.warp_narrow_faces import make_narrow_face_kernels
from diffrender.kernels.warp_pyramids import make_pyramid_kernels
from diffrender.kernels.warp_rasterizer import make_rasterizer_kernels
from diffrender.kernels.warp_ray_boxes import make_ray_box_kernels
from diffrender.kernels.warp_ray_tree import make_ray_tree_kernels
from diffrender.kernels.warp_sampling import make_sampling_kernels
from diffrender.kernels.warp_transform import make_transform_kernels
from diffrender.sampling.sample import MODES

ARCHITECTURE = 80  # Ampere, of 2020: what runs on it runs on what came later
Make = Callable[[Any], tuple[Any, ...]]
FEW: dict[str, Make] = {
    "rasterizer": lambda real: make_rasterizer_kernels(real, launch.LANES["cuda"]),
    "ray tree": make_ray_tree_kernels,
    "ray boxes": make_ray_box_kernels,
    "barycentrics": lambda real: make_barycentric_kernels(real, launch.LANES["cuda"]),
    "interpolation": make_interpolation_kernels,
    "transform": make_transform_kernels,
    "clipping": lambda real: make_clipping_kernels(real, launch.LANES["cuda"]),
    "narrow faces": make_narrow_face_kernels,
    "bent faces": make_bent_face_kernels,
    "curves": make_curve_kernels,
    "edges": make_edge_kernels,
    "filtered, levels": lambda real: make_pyramid_kernels(real, True, 3),
    "sampling, bilinear, 2D": lambda real: make_sampling_kernels(real, "bilinear", 2, 3),
    "lens, fisheye": lambda real: _lens(real, "fisheye"),
}
MORE: dict[str, Make] = {
    "intersections": make_intersection_kernels,  # ten seconds each
    "filtered, ellipses, any channels": lambda real: make_pyramid_kernels(real, False, 0),
    **{
        f"sampling, {mode}, {n}D": lambda real, mode=mode, n=n: make_sampling_kernels(real, mode, n, 0)  # type: ignore[misc]
        for mode in MODES
        for n in (2, 3)
    },
    **{f"lens, {name}": lambda real, name=name: _lens(real, name) for name in LENSES},  # type: ignore[misc]
}


def _lens(real: Any, name: str) -> tuple[Any, ...]:
    make, parameters = LENSES[name]
    polynomial = name.startswith("OCamCalib")
    camera = (
        make(320.0, 240.0, *parameters, size=SIZE) if polynomial else make(300, 300, 320, 240, *parameters, size=SIZE)
    )
    return make_lens_kernels(real, camera.kernel_shape(), LANES["cuda"])  # type: ignore[attr-defined]


@pytest.mark.parametrize("real", [wp.float32, wp.float64], ids=["float32", "float64"])
@pytest.mark.parametrize(
    "kernels", [*FEW, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)], ids=lambda name: str(name)
)
def test_kernels_compile_for_cuda(kernels: str, real: Any, tmp_path: Path) -> None:
    launch._initialize()
    found = [kernel for kernel in {**FEW, **MORE}[kernels](real) if hasattr(kernel, "module")]
    modules = {id(kernel.module): kernel.module for kernel in found}
    assert modules
    for module in modules.values():
        files = wp.compile_aot_module(module, arch=ARCHITECTURE, module_dir=tmp_path, use_ptx=True, strip_hash=False)
        assert "\n.visible .entry" in Path(files[0]).read_text()
