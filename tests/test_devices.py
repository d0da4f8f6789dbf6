"""Everything is made on the device of what the user gave: no tensor without a word on where it shall be."""

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from test_determinism import CAMERAS, image_and_gradients
from torch.overrides import TorchFunctionMode

import diffrender as dr
from diffrender.primitives import torus
from diffrender.sampling.sample import MODES

LIBRARY = str(Path(dr.__file__).parent)
MAKERS: set[Callable[..., Any]] = {
    torch.zeros, torch.ones, torch.empty, torch.full, torch.tensor, torch.as_tensor, torch.arange, torch.linspace,
    torch.eye, torch.rand, torch.randn, torch.randint, torch.randperm,
}  # fmt: skip


class Homeless(TorchFunctionMode):
    """Inside of it, `found` names the lines of the library that make tensors, of one number and more, on no device
    in particular: on the CPU, then, where a user with a GPU would be told that two devices do not go together."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.asked = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func in MAKERS:
            self.asked += 1
            like = any(isinstance(argument, torch.Tensor) for argument in args)
            if not like and result.ndim > 0 and kwargs.get("device") is None:
                place = [f for f in traceback.extract_stack() if f.filename.startswith(LIBRARY)][-1:]
                self.found.update(f"{f.filename}:{f.lineno} {f.line}" for f in place)
        return result


def test_the_mode_finds_a_tensor_without_a_device() -> None:
    with Homeless() as homeless:
        torus()  # is made of numbers alone
    assert homeless.found


def test_rendering_makes_nothing_on_a_device_of_its_own() -> None:
    with Homeless() as homeless:
        for camera in CAMERAS.values():
            image_and_gradients(camera, "smooth")
    assert sorted(line for line in homeless.found if "primitives.py" not in line) == []  # the test's own scene
    assert homeless.asked > 100


def test_sampling_makes_nothing_on_a_device_of_its_own() -> None:
    image = torch.rand(9, 12, 3, requires_grad=True)
    xy = (12 * torch.rand(20, 2)).requires_grad_()
    spread = 3 * torch.rand(20, 2, 2)
    with Homeless() as homeless:
        for mode in MODES:
            for padding in ("clamp", "zeros", "reflect", "mirror", "wrap"):
                dr.sample(image, xy, mode=mode, padding=padding).sum().backward()
        pyramid = dr.mip_pyramid(image.detach())
        dr.sample_trilinear(pyramid, xy / 12, torch.rand(20)).sum().backward()
        dr.sample_anisotropic(pyramid, xy / 12, spread).sum().backward()
        dr.splat(torch.rand(20, 3), xy, size=(9, 12)).sum().backward()
    assert sorted(homeless.found) == []
    assert homeless.asked > 10
