"""`fit`: the whole of it, from an image set to a folder of results."""

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..io.image_set import ImageSet
from ..mesh import Mesh
from . import report
from .checkpoint import load_checkpoint, save_checkpoint
from .settings import FitResult, FitSettings
from .trainer import Trainer

CHECKPOINT = "checkpoint.pt"


def fit(
    images: ImageSet,
    out: str | os.PathLike[str],
    settings: FitSettings | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> FitResult:
    """Fit a mesh with vertex colours to the views of `images` that are not held out; write the results into `out`.

    Args:
        images: from `load_dataset`. Held-out views are looked at only for the figures at the end.
        out: folder for the results, made where it does not exist.
        settings: default: `FitSettings()`.
        resume: go on from the checkpoint in `out`; on the CPU with the same bits as if it had never stopped.
        overwrite: start anew in a folder that holds files; those of the same name are replaced, others left alone.
        progress: whether a progress bar with the loss shows on standard error.

    Writes `mesh.glb` (vertex colours as they look in the photographs), `metrics.json`, `convergence.png`,
    `comparison.png` (rows of target, fit, difference and silhouettes), `turntable.gif` (and `turntable.mp4` where
    ffmpeg is there) and `checkpoint.pt`.

    Raises:
        FileExistsError: `out` holds files, and neither `resume` nor `overwrite` is given.
        FileNotFoundError: nothing to resume from.
        ValueError: the checkpoint is damaged or belongs to another fit, or the images hold nothing to fit.
        KeyboardInterrupt: it was interrupted; the checkpoint and the mesh of the last whole step are written before.
    """
    settings = FitSettings() if settings is None else settings
    folder = _prepared(Path(out), resume=resume, overwrite=overwrite)
    views = images.train
    if len(views) == 0:
        raise ValueError("images must hold at least one view to fit; all of them are held out, or there are none")
    checkpoint = folder / CHECKPOINT
    trainer = Trainer(views, settings, load_checkpoint(checkpoint, views, settings) if resume else None)
    _optimize(trainer, folder, views, settings, progress)
    return _conclude(trainer, folder, images, settings)


def _prepared(folder: Path, *, resume: bool, overwrite: bool) -> Path:
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"out must be a folder; {folder} is a file")
    if resume and overwrite:
        raise ValueError("give either resume or overwrite, not both: one goes on, the other starts anew")
    if folder.is_dir() and any(folder.iterdir()) and not (resume or overwrite):
        raise FileExistsError(
            f"{folder} holds files already: choose another folder, go on with resume, or replace them with overwrite"
        )
    if resume and not (folder / CHECKPOINT).is_file():
        raise FileNotFoundError(f"nothing to resume: there is no {folder / CHECKPOINT}")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _optimize(trainer: Trainer, folder: Path, views: ImageSet, settings: FitSettings, progress: bool) -> None:
    """All steps that are left, with checkpoints; an interrupted fit is saved as it was after its last whole step."""
    state = trainer.state()
    bar = tqdm(total=settings.steps, initial=len(trainer.history), desc="fit", unit="step", disable=not progress)
    try:
        while not trainer.done:
            record = trainer.step()
            state = trainer.state()
            bar.set_postfix(loss=f"{record.loss:.4f}", stage=f"{record.stage + 1}/{len(settings.image_sizes)}")
            bar.update()
            if len(trainer.history) % settings.checkpoint_every == 0:
                save_checkpoint(folder / CHECKPOINT, views, settings, state)
    except KeyboardInterrupt:
        save_checkpoint(folder / CHECKPOINT, views, settings, state)
        report.write_mesh(folder / "mesh.glb", Trainer(views, settings, state).mesh())
        raise
    finally:
        bar.close()
    save_checkpoint(folder / CHECKPOINT, views, settings, state)


def _conclude(trainer: Trainer, folder: Path, images: ImageSet, settings: FitSettings) -> FitResult:
    """Write everything that there is to write of a finished fit."""
    mesh, optics = trainer.mesh(), trainer.optics()
    values = report.metrics(trainer, settings, report.view_figures(mesh, optics, trainer.start, images))
    files, notes = [folder / CHECKPOINT], []

    def write(name: str, writer: Callable[..., Any], *arguments: Any) -> bool:
        written = writer(folder / name, *arguments) is not False
        files.extend([folder / name] if written else [])
        return written

    write("mesh.glb", report.write_mesh, mesh)
    write("metrics.json", report.write_metrics, values)
    if not write("convergence.png", report.write_convergence, trainer.history):
        notes.append("no convergence.png: it needs matplotlib, pip install 'diffrender[plots]'")
    write("comparison.png", report.write_sheet, mesh, optics, images)
    if settings.turntable_frames:
        notes += _write_turntables(write, mesh, images, settings.turntable_frames)
    return FitResult(mesh, values, tuple(files), tuple(notes))


def _write_turntables(write: Callable[..., bool], mesh: Mesh, images: ImageSet, frames: int) -> list[str]:
    pictures = list(report.turntable(mesh, images, frames))
    write("turntable.gif", report.write_turntable, pictures)
    if importlib.util.find_spec("imageio_ffmpeg") is None:
        return ["no turntable.mp4: it needs ffmpeg, pip install 'diffrender[video]'"]
    write("turntable.mp4", report.write_turntable, pictures)
    return []
