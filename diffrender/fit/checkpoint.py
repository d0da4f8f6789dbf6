"""Checkpoints: one file that a fit goes on from as if it had never stopped."""

import io
import os
import pickle
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..io.files import atomic_path
from ..io.image_set import ImageSet
from .settings import FitSettings

FORMAT = 6


def save_checkpoint(path: Path, images: ImageSet, settings: FitSettings, state: dict[str, Any]) -> None:
    """Write the `state` of a trainer with what it belongs to; the old file stays until the new one is whole."""
    content = {"format": FORMAT, "settings": asdict(settings), "views": _described(images), "state": state}
    whole = io.BytesIO()  # a full disk is an OSError from a file, and something else from torch
    torch.save(content, whole)
    with atomic_path(path) as temporary:
        temporary.write_bytes(whole.getbuffer())
        with temporary.open("rb+") as file:  # on the disk before it replaces the old one: power may fail, too
            os.fsync(file.fileno())


def load_checkpoint(path: Path, images: ImageSet, settings: FitSettings) -> dict[str, Any]:
    """The state in a checkpoint, after a check that it belongs to these views and settings.

    Raises FileNotFoundError where there is none, ValueError where it cannot be read or belongs to another fit.
    """
    if not path.is_file():
        raise FileNotFoundError(f"nothing to resume: there is no {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        found = content["format"]
        if found == FORMAT:
            saved, views, state = FitSettings(**content["settings"]), content["views"], content["state"]
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError, OSError, ValueError) as error:
        raise ValueError(f"{path} is no checkpoint of a fit, or a damaged one: start anew") from error
    if found != FORMAT:
        raise ValueError(f"{path} has format {found}, this version reads {FORMAT}: start anew")
    if differences := settings.differences(saved):
        raise ValueError(
            f"{path} belongs to a fit with other settings: {', '.join(differences)}; resume with those, or start anew"
        )
    if views != _described(images):
        raise ValueError(
            f"{path} belongs to a fit of other views: {len(views)} of them instead of {len(images)}, or others held "
            "out, or of other sizes; resume with those, or start anew"
        )
    return dict(state)


def _described(images: ImageSet) -> list[list[Any]]:
    """What tells one image set from another: name and size of each view."""
    return [[name, *size] for name, size in zip(images.names, images.sizes, strict=True)]
