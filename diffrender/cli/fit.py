"""`diffrender fit`: an image set to a folder with a mesh."""

import argparse
import errno
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ..fit import FitSettings, fit, share
from ..fit.folder import CHECKPOINT
from ..io.datasets import load_dataset
from ..io.image_set import ImageSet
from ..io.images import decode_srgb, load_image
from .heap import keep_freed_memory
from .outputs import check_folder, report

_SAME = ("steps", "start", "topology", "edges", "appearance", "texture_size", "sheen", "seed")
_OTHERS = {
    "detail": "mesh_cells",
    "exposure": "fit_exposure",
    "refine_cameras": "fit_cameras",
    "refine_lens": "fit_lens",
}
_SETTINGS = {name: name for name in _SAME} | _OTHERS  # option: field


def run(options: argparse.Namespace) -> None:
    """Load, fit, write. Interrupted, say what there is and how to go on."""
    check_folder("-o", options.output)
    keep_freed_memory()
    images = choose_views(_load(options), options.views)
    given = {field: getattr(options, name) for name, field in _SETTINGS.items() if getattr(options, name) is not None}
    settings = FitSettings(**given)
    held_out = sum(images.held_out)
    print(f"{options.dataset}: {len(images) - held_out} views to fit, {held_out} held out", file=sys.stderr)
    try:
        with _terminated_like_interrupted(), share.joined():
            result = fit(
                images,
                options.output,
                settings,
                resume=options.resume,
                overwrite=options.overwrite,
                on_bad_image=options.on_bad_image,
                device=options.device,
            )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(interrupted(options)) from None
    except share.ProcessLostError as error:
        raise ValueError(f"{error}: {again(options)}") from None
    except OSError as error:
        if (
            error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
            and (options.output / CHECKPOINT).is_file()
        ):
            where = "" if error.filename is None else f"{error.filename}: "
            left = f"{held(options)}; with more room, to go on: {again(options)}"
            raise OSError(f"{where}{error.strerror}; {left}") from None
        raise
    for note in result.notes:
        print(f"note: {note}", file=sys.stderr)
    report(result.files)


def _load(options: argparse.Namespace) -> ImageSet:
    keep = options.on_bad_image == "skip"  # those that `fit` leaves out
    background = options.background
    if isinstance(background, Path):
        background = load_image(background)[..., :3]
    elif background is not None:
        background = decode_srgb(torch.tensor(background))
    return load_dataset(options.dataset, held_out=options.hold_out, keep_unreadable=keep, background=background)


def choose_views(images: ImageSet, names: list[str]) -> ImageSet:
    """The views called `names` (the suffix may be left out) and those held out; all of them if no name is given."""
    if not names:
        return images
    wanted = images.called(names, "--views")
    chosen = [i for i, held in enumerate(images.held_out) if held or i in wanted]
    images = images.select(chosen)
    if all(images.held_out):
        raise ValueError("--views leaves no view to fit: all of them are held out")
    return images


def interrupted(options: argparse.Namespace) -> str:
    """What the interrupted fit left, and the command that goes on."""
    if not (options.output / CHECKPOINT).is_file():
        return f"interrupted before anything was written to {options.output}"
    return f"interrupted; {held(options)}; to go on: {again(options)}"


def held(options: argparse.Namespace) -> str:
    """The files in the folder, in words."""
    out: Path = options.output
    return f"{out} holds {', '.join(sorted(x.relative_to(out).as_posix() for x in out.rglob('*') if x.is_file()))}"


def again(options: argparse.Namespace) -> str:
    """The command that goes on."""
    arguments = [argument for argument in options.arguments if argument not in ("--overwrite", "--resume")]
    return shlex.join(["diffrender", *arguments, "--resume"])


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM (`kill`, a launcher that ends its processes) and SIGHUP (a terminal that closes) end like Ctrl-C.

    Where they are ignored, as by `nohup`, they stay so.
    """

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # only there signals can be handled
        yield
        return
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        for number in numbers:
            if before[number] != signal.SIG_IGN:
                signal.signal(number, interrupt)
        yield
    finally:
        for number in numbers:
            signal.signal(number, before[number])
