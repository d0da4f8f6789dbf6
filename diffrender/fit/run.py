"""`fit`: the whole of it, from an image set to a folder of results."""

import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from tqdm import tqdm

from ..io.image_set import ImageSet
from ..mesh import Mesh
from . import report, share
from .checkpoint import load_checkpoint
from .curve import Curve
from .folder import CHECKPOINT, claimed, keep, keep_somewhere
from .page import write_page
from .settings import FitResult, FitSettings
from .start import doubts_about_others
from .trainer import Trainer
from .views import usable


def fit(
    images: ImageSet,
    out: str | os.PathLike[str],
    settings: FitSettings | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    on_bad_image: Literal["refuse", "skip"] = "refuse",
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> FitResult:
    """Fit a mesh with its colours to the views of `images` that are not held out; write the results into `out`.

    Args:
        images: from `load_dataset`. Held-out views are looked at only for the figures at the end.
        out: folder for the results, made where it does not exist.
        settings: default: `FitSettings()`.
        resume: go on from the checkpoint in `out`; on the CPU with the same bits as if it had never stopped.
        overwrite: start anew in a folder that holds files; those of the same name are replaced, others left alone.
        on_bad_image: whether an image that cannot be decoded, or an empty mask, ends the fit before it begins, or is
            left out.
        device: where the steps are done, "cpu" or "cuda"; a checkpoint goes on on either. In a process group each
            process takes the CUDA device of its own number.
        progress: whether a progress bar with the loss shows on standard error.

    Writes `report.html` (everything to look at, in one file), `mesh.glb` (colours or texture as they look in the
    photographs), `metrics.json`, `convergence.png`, `comparison.png` (rows of target, fit, difference and silhouettes),
    `turntable.gif` (and `turntable.mp4` where ffmpeg is there) and `checkpoint.pt`.

    In a process group (`torchrun`, see `diffrender.fit.share`) all processes call it alike and share the views of each
    step; the first one writes the files, and the others return a result without figures.

    Raises:
        ProcessLostError: another process of the group has ended; the checkpoint is written before.
        FileExistsError: `out` holds files, and neither `resume` nor `overwrite` is given.
        FileNotFoundError: nothing to resume from.
        ValueError: the checkpoint is damaged or belongs to another fit, or the images hold nothing to fit, or torch
            has no such device.
        BlockingIOError: another fit is writing into `out`.
        OSError: something could not be written, or an image no longer read. A checkpoint that cannot be written (a full
            disk) does not end a fit, and the one before stays whole; the error comes when the last one cannot be
            written either, or a result, and says where the last one is kept instead.
        KeyboardInterrupt: it was interrupted; the checkpoint and the mesh of the last whole step are written before.
    """
    settings = FitSettings() if settings is None else settings
    if on_bad_image not in ("refuse", "skip"):
        raise ValueError(f"on_bad_image must be 'refuse' or 'skip'; got {on_bad_image!r}")
    device = _checked(device)
    images, notes = usable(images, skip=on_bad_image == "skip")
    views = images.train
    if len(views) == 0:
        raise ValueError("images must hold at least one view to fit; all of them are held out, or there are none")
    if share.rank() != 0:
        trainer = Trainer(views, settings, share.of_the_first(None), device=device)
        while not trainer.done:
            trainer.step()
        return FitResult(trainer.matte(), {}, ())
    folder = Path(out)
    with claimed(folder, resume=resume, overwrite=overwrite):
        left = load_checkpoint(folder / CHECKPOINT, views, settings) if resume else None
        trainer = Trainer(views, settings, left, device=device)
        curve = Curve(images.test, (left or {}).get("curve"))
        if not resume:  # from here on there is something to resume; a folder that cannot be written to shows now
            keep(folder, views, settings, trainer.state())
        share.of_the_first(trainer.state())
        notes += doubts_about_others(trainer.start.to("cpu"), images.test)
        notes += _optimize(trainer, curve, folder, views, progress)
        result = _conclude(trainer, curve, folder, images)
    return replace(result, notes=(*notes, *trainer.incidents, *result.notes))


def _checked(device: torch.device | str) -> torch.device:
    """The device of this process, if it is one that a fit can be done on."""
    try:
        found = share.own_device(device)
    except RuntimeError as error:  # no name that torch knows
        raise ValueError(f"device must be 'cpu', 'cuda' or 'cuda:N'; got {device!r}") from error
    if found.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be 'cpu', 'cuda' or 'cuda:N'; got {str(device)!r}")
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found.type == "cuda" and (found.index or 0) >= there:
        raise ValueError(
            f"device {str(found)!r} is not there: torch sees {there} CUDA devices. It needs a driver, and a build of "
            "torch with CUDA (torch.cuda.is_available()); device='cpu' (--device cpu) works everywhere"
        )
    return found


def _optimize(trainer: Trainer, curve: Curve, folder: Path, views: ImageSet, progress: bool) -> list[str]:
    """All steps that are left, with checkpoints; an interrupted fit is saved as it was after its last whole step.

    Returns notes about checkpoints that could not be written.
    """
    settings, notes = trainer.settings, []
    curve.measure(trainer)
    state = {**trainer.state(), "curve": curve.state()}
    bar = tqdm(total=settings.steps, initial=len(trainer.history), desc="fit", unit="step", disable=not progress)
    try:
        said = 0
        while not trainer.done:
            record = trainer.step()
            state = {**trainer.state(), "curve": curve.state()}  # whole, also when the look below is interrupted
            curve.measure(trainer)
            state["curve"] = curve.state()
            for incident in trainer.incidents[said:] if progress else []:
                bar.write(f"note: {incident}", file=sys.stderr)
            said = len(trainer.incidents)
            stage = f"{record.stage + 1}/{len(settings.stage_sizes)}"
            bar.set_postfix(loss=f"{record.loss:.4f}", stage=stage, refresh=False)  # shown with the next update
            bar.update(len(trainer.history) - bar.n)
            if len(trainer.history) % settings.checkpoint_every == 0 and not trainer.done:
                try:
                    keep(folder, views, settings, state)
                except OSError as error:
                    notes.append(f"no checkpoint at step {len(trainer.history)}: {error}")
                    if progress:
                        bar.write(f"note: {notes[-1]}", file=sys.stderr)
    except BaseException as error:  # whatever it is, the last whole step is kept
        try:
            keep_somewhere(folder, views, settings, state)
        except KeyboardInterrupt:  # a second one, as launchers send when a process has ended: once more
            keep_somewhere(folder, views, settings, state)
        report.write_mesh(folder / "mesh.glb", Trainer(views, settings, state, device=trainer.device).matte())
        if isinstance(error, (OSError, ValueError)):  # an image that is no longer there, or no longer whole
            at = len(state["history"])
            raise OSError(f"{error}; the fit was kept at step {at}: repair it, and go on with resume") from error
        raise
    finally:
        bar.close()
    keep_somewhere(folder, views, settings, state)
    return notes


def _conclude(trainer: Trainer, curve: Curve, folder: Path, images: ImageSet) -> FitResult:
    """Write everything that there is to write of a finished fit."""
    mesh, matte, optics, settings = trainer.mesh(), trainer.matte(), trainer.optics(), trainer.settings
    figures = report.view_figures(mesh, optics, trainer.start, images)
    values = report.metrics(trainer, settings, figures, curve.state())
    files, notes = [folder / CHECKPOINT], []
    if settings.sheen:
        notes.append("mesh.glb and the turntable have the same colours from everywhere: means over the fitted views")

    def write(name: str, writer: Callable[..., Any], *arguments: Any) -> bool:
        written = writer(folder / name, *arguments) is not False
        files.extend([folder / name] if written else [])
        return written

    write("mesh.glb", report.write_mesh, matte)
    write("metrics.json", report.write_metrics, values)
    if not write("convergence.png", report.write_convergence, trainer.history):
        notes.append("no convergence.png: it needs matplotlib, pip install 'diffrender[plots]'")
    views = list(report.shown_views(mesh, optics, images, report.PAGE_VIEWS))
    write("comparison.png", report.write_sheet, views[: report.SHEET_VIEWS])
    if settings.turntable_frames:
        notes += _write_turntables(write, matte, images, settings.turntable_frames)
    turntable = folder / "turntable.gif" if settings.turntable_frames else None
    said = [*trainer.incidents, *notes]
    write("report.html", write_page, folder.resolve().name, values, trainer.history, views, turntable, said)
    return FitResult(matte, values, tuple(files), tuple(notes))


def _write_turntables(write: Callable[..., bool], mesh: Mesh, images: ImageSet, frames: int) -> list[str]:
    pictures = list(report.turntable(mesh, images, frames))
    write("turntable.gif", report.write_turntable, pictures)
    if importlib.util.find_spec("imageio_ffmpeg") is None:
        return ["no turntable.mp4: it needs ffmpeg, pip install 'diffrender[video]'"]
    write("turntable.mp4", report.write_turntable, pictures)
    return []
