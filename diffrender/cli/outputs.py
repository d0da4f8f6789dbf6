"""What the commands share: a look at where they will write, before the work, and the list of files at the end."""

import os
from collections.abc import Iterable
from pathlib import Path


def check_output(option: str, path: Path, suffixes: tuple[str, ...], *, overwrite: bool) -> None:
    """Raise unless a file `path` with one of the `suffixes` can be written, and none is lost by it."""
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"{option} must end in {', '.join(suffixes)}; got {path}")
    if path.is_dir():
        raise IsADirectoryError(f"{option} must be a file; {path} is a folder")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{option}: {path} is there already; choose another name, or replace it with --overwrite")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{option}: the folder {path.parent} does not exist; create it first")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"{option}: the folder {path.parent} is not writable")


def check_folder(option: str, path: Path) -> None:
    """Raise unless `path` is a folder to write to, or can become one."""
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{option} must be a folder; {path} is a file")
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not existing.is_dir():
        raise NotADirectoryError(f"{option}: {existing} is a file, so {path} cannot be a folder")
    if not os.access(existing, os.W_OK):
        raise PermissionError(f"{option}: the folder {existing} is not writable")


def report(files: Iterable[Path]) -> None:
    """Say which files were written: the last lines of every command that writes any."""
    for file in files:
        print(f"wrote {file}")
