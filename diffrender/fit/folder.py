"""The folder that a fit writes into: it belongs to one fit at a time, and what must not be lost finds a place."""

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..io.image_set import ImageSet
from .checkpoint import save_checkpoint
from .settings import FitSettings

if sys.platform != "win32":  # which has no such locks: there nobody is kept out
    import fcntl

CHECKPOINT = "checkpoint.pt"
UNFINISHED = (
    r"\.(checkpoint|mesh|metrics|convergence|comparison|turntable|report)-[0-9a-f]{12}\.[a-z0-9]+"  # of a killed fit
)


@contextmanager
def claimed(folder: Path, *, resume: bool, overwrite: bool) -> Iterator[None]:
    """`folder`, made where it does not exist, for what is inside alone; leftovers of a killed fit are removed.

    Raises FileExistsError, FileNotFoundError, ValueError and BlockingIOError as `fit` says.
    """
    if resume and overwrite:
        raise ValueError("give either resume or overwrite, not both: one goes on, the other starts anew")
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"out must be a folder; {folder} is a file")
    if resume and not (folder / CHECKPOINT).is_file():
        raise FileNotFoundError(f"nothing to resume: there is no {folder / CHECKPOINT}")
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        files = list(folder.iterdir())
        left = [file for file in files if re.fullmatch(UNFINISHED, file.name)]
        if len(files) > len(left) and not (resume or overwrite):
            raise FileExistsError(
                f"{folder} holds files already: choose another folder, go on with resume, or replace them with "
                "overwrite"
            )
        for file in left:
            file.unlink()
        yield


def keep(folder: Path, views: ImageSet, settings: FitSettings, state: dict[str, Any]) -> None:
    """Write the checkpoint into `folder`, which is made again if somebody has removed it."""
    folder.mkdir(parents=True, exist_ok=True)
    save_checkpoint(folder / CHECKPOINT, views, settings, state)


def keep_somewhere(folder: Path, views: ImageSet, settings: FitSettings, state: dict[str, Any]) -> None:
    """The same for the last checkpoint of a fit: hours may hang on it.

    Where there is no room in `folder`, it goes to the folder for temporary files, and the OSError says so.
    """
    try:
        keep(folder, views, settings, state)
    except OSError as error:
        try:
            refuge = Path(tempfile.mkdtemp(prefix="diffrender-"))
            save_checkpoint(refuge / CHECKPOINT, views, settings, state)
        except OSError:
            raise error from None
        raise OSError(
            error.errno,
            f"{error.strerror or error}; the last step is kept in {refuge / CHECKPOINT}, move it to {folder}",
        ) from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Held by this process until it ends, however it ends. Nothing is written."""
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(f"another fit is writing into {folder}: choose another folder, or end it") from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(descriptor)
