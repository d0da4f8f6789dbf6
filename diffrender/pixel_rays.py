"""The rays through the centres of all pixels, kept with the camera while it stays the same.

For cameras whose rays are not affine in the pixel, and for those most whose inverse is searched for, they are a good
part of the work of a render, and the same from step to step of a fit, unless the camera is fitted as well.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from .cameras import LinearRays
from .cameras.base import Notes
from .kernels import RayTree, build_ray_tree, image_slots
from .scene import Scene

MOST_PIXELS = 1 << 22  # of all images of all cameras, at some 34 bytes: what was not used for longest is forgotten
SLACK = 1024  # epsilons of the image's size: searches for an inverse are content with half of that


@dataclass(frozen=True, eq=False)
class PixelRays:
    """The rays of all pixel centres of B images, in the camera frame.

    Attributes:
        linear: all of them, for linear cameras; for others
        directions: [B * H * W, 3], and
        origins: [B * H * W, 3], None: the centre of the camera.
        frames: [B, K, 3, 3] in K places of each image, without gradient: what a step to the right is in space, what a
            step down, and the direction there.
    """

    linear: LinearRays | None
    origins: Tensor | None
    directions: Tensor | None
    frames: Tensor
    trees: dict[torch.dtype, RayTree] = field(default_factory=dict, repr=False)

    @property
    def moves(self) -> bool:
        """Whether somebody differentiates these rays."""
        return any(part is not None and part.requires_grad for part in (self.origins, self.directions))

    @cached_property
    def complete(self) -> bool:
        """Whether all pixels have rays."""
        return self.directions is None or bool(torch.isfinite(self.directions).all())

    @cached_property
    def hand(self) -> Tensor:
        """[B] +1 for cameras whose images are seen as usual, -1 for mirrored ones."""
        right, below, forward = self.frames.unbind(-2)
        turn = (torch.linalg.cross(right, below) * forward).sum(-1)
        return torch.where(torch.sign(turn).nansum(-1) >= 0, 1.0, -1.0)

    def tree(self, size: tuple[int, int], like: Tensor) -> RayTree:
        """The tree of rays of images of `size`, in the type of `like`; for cameras that are not linear."""
        assert self.directions is not None
        if like.dtype not in self.trees:
            slots = image_slots(*size, len(self.frames), like)
            origins = None if self.origins is None else self.origins.to(like.dtype)
            self.trees[like.dtype] = build_ray_tree(origins, self.directions.to(like.dtype), slots)
        return self.trees[like.dtype]


def pixel_rays(scene: Scene) -> PixelRays:
    """The rays through all pixel centres of a scene's images."""
    if scene.stacked_rays is not None:
        _, origin_dx, origin_dy, forward, dx, dy = scene.stacked_rays.unbind(1)
        frames = torch.stack([origin_dx + dx, origin_dy + dy, forward], 1)
        return PixelRays(scene.linear_rays, None, None, frames.unsqueeze(1))
    return _kept(scene, _found) if scene.camera.is_central else _found(scene)


def _found(scene: Scene) -> PixelRays:
    """The rays as the camera finds them."""
    camera = scene.single or scene.camera
    centers = camera.pixel_centers().reshape(-1, 2)
    fractions = centers.new_tensor([0.25, 0.5, 0.75])
    places = torch.cartesian_prod(fractions * camera.width, fractions * camera.height)
    steps = centers.new_tensor([[0.0, 0.0], [0.5, 0.0], [0.0, 0.5]])
    xy = torch.cat([centers, (places.unsqueeze(1) + steps).reshape(-1, 2)])
    rays = [part.reshape(-1, len(xy), 3) for part in camera.local_rays(xy)]
    origins, directions = (part[:, : len(centers)].reshape(-1, 3) for part in rays)
    start, direction = (part[:, len(centers) :].detach().unflatten(1, (-1, 3)) for part in rays)
    here, right, below = (start + direction).unbind(-2)
    frames = torch.stack([right - here, below - here, direction[..., 0, :]], -2)
    return PixelRays(None, None if camera.is_central else origins, directions, frames)


@dataclass(frozen=True, eq=False)
class _Note:
    """Rays that were found, and for what parameters of the camera."""

    parameters: list[Tensor]
    rays: PixelRays


class _Recent:
    """Who keeps rays, the latest last: memory has one bound for all cameras, of which there may be hundreds."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._entries: dict[tuple[int, Any], tuple[weakref.ref[Notes], int]] = {}

    def used(self, notes: Notes, key: Any) -> None:
        """Put what is kept under `key` last."""
        with self._lock:
            entry = self._entries.pop((id(notes), key), None)
            if entry is not None:
                self._entries[id(notes), key] = entry

    def keep(self, notes: Notes, key: Any, note: _Note, pixels: int) -> None:
        """Keep `note` of so many pixels, and forget what is too much, the oldest first."""
        with self._lock:
            self._entries.pop((id(notes), key), None)
            notes[key] = note
            self._entries[id(notes), key] = weakref.ref(notes), pixels
            self._entries = {where: entry for where, entry in self._entries.items() if entry[0]() is not None}
            left = sum(count for _, count in self._entries.values())
            while left > MOST_PIXELS:
                where = next(iter(self._entries))
                owner, count = self._entries.pop(where)
                left -= count
                held = owner()
                if held is not None:
                    held.pop(where[1], None)


_RECENT = _Recent()


def _kept(scene: Scene, find: Callable[[Scene], PixelRays]) -> PixelRays:
    """What `find` finds; or found the last time, if the camera is still the same.

    It is if all parameters have the same values, and if rays still go through their pixels, which only users' cameras
    are asked: their `to_pixels` may depend on other things. Where anything asks for a gradient, nothing is kept.
    """
    camera, notes = scene.camera, scene.camera.notes
    parameters = camera.constants()
    pixels = scene.num_views * camera.height * camera.width
    if pixels > MOST_PIXELS or parameters is None:
        return find(scene)
    key = ("rays", camera.image_map, camera.size, scene.num_views, camera.dtype, camera.device)
    note = notes.get(key)
    if isinstance(note, _Note) and all(map(torch.equal, parameters, note.parameters)):
        ours = type(camera).__module__.startswith(__name__.partition(".")[0] + ".")
        if ours or _meet_pixels(scene, note.rays):
            _RECENT.used(notes, key)
            return note.rays
    with torch.enable_grad():  # else nobody would know whether something moves that is no parameter
        rays = find(scene)
    assert rays.directions is not None
    if rays.moves:
        still = PixelRays(None, None, rays.directions.detach(), rays.frames)
        return rays if torch.is_grad_enabled() else still
    _RECENT.keep(notes, key, _Note([p.clone() for p in parameters], rays), pixels)
    return rays


@torch.no_grad()
def _meet_pixels(scene: Scene, rays: PixelRays) -> bool:
    """Whether the rays go through the centres of their pixels."""
    assert rays.directions is not None
    camera = scene.single or scene.camera
    centers = camera.pixel_centers().reshape(-1, 2)
    directions = rays.directions.reshape(*camera.batch_shape, -1, 3)
    pixels, _ = camera.local_project(directions)
    near = (pixels - centers).abs().amax(-1) <= SLACK * torch.finfo(centers.dtype).eps * max(camera.size)
    return bool((near | ~torch.isfinite(directions).all(-1)).all())
