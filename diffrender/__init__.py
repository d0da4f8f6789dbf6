"""Differentiable rendering for PyTorch: any camera, any machine, checked gradients.

>>> import diffrender as dr
>>> R, t = dr.look_at(eye=(0.0, 1.0, 3.0))
>>> camera = dr.PinholeCamera(60.0, 60.0, 32.0, 24.0, size=(48, 64), R=R, t=t)
>>> image = dr.render(dr.sphere(), camera, background=(1.0, 1.0, 1.0))
>>> image.shape
torch.Size([48, 64, 4])
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .names import *  # noqa: F403

__version__ = "0.1.0"

LIKE_MODULES = frozenset({"render", "reproject", "unwrap", "visibility"})  # functions called as the module they are in


class _Package(ModuleType):
    """This package. Its names come when the first of them is asked for: `diffrender --help` need not wait for torch."""

    def __getattr__(self, name: str) -> Any:
        """A module, or a name and all others with it, that is not there yet."""
        if name not in LIKE_MODULES and find_spec(f"{self.__name__}.{name}"):
            return import_module(f".{name}", self.__name__)
        if name == "__all__" or not name.startswith("__"):
            names = import_module(".names", self.__name__)
            vars(self).update({known: getattr(names, known) for known in ("__all__", *names.__all__)})
        if name not in vars(self):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return vars(self)[name]

    def __setattr__(self, name: str, value: Any) -> None:
        """Python enters modules here when they are imported: not in the place of functions."""
        if not (name in LIKE_MODULES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*self.__all__, *super().__dir__()})


sys.modules[__name__].__class__ = _Package
