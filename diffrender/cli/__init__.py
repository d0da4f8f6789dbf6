"""The command line: `diffrender render`, `fit`, `calibrate`, `undistort`, `info`.

Each command is a module with a function `run(options)`, imported only when it is called for, so that `--help` and
mistyped options do not wait for torch. What a user can get wrong ends in one line on stderr and exit status 2.
"""

import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from .parser import UsageError, make_parser

BAD_INPUT, INTERNAL_ERROR, INTERRUPTED = 2, 1, 130  # 130 is 128 + SIGINT, as shells have it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line `arguments` (those of the process if None) and return the exit status."""
    try:
        status = _run(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # `diffrender --help | head -1` is no error; nothing more can be said on stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(arguments: list[str]) -> int:
    try:
        with _warnings_in_one_line():
            options = make_parser().parse_args(arguments)
            if options.command is None:
                raise UsageError("name a command: render, fit, calibrate, undistort or info (see diffrender --help)")
            options.arguments = arguments
            importlib.import_module(f".{options.command}", __name__).run(options)
    except SystemExit as stop:  # --help and --version
        return int(stop.code or 0)
    except KeyboardInterrupt as interrupt:
        _say(str(interrupt) or "interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except Exception as error:
        return _failed(error, debug="--debug" in arguments)
    return 0


def _failed(error: Exception, *, debug: bool) -> int:
    """Say what went wrong and return the exit status."""
    if debug:
        traceback.print_exception(error)
    # What the library raises about its arguments and files; ImportError is an optional package that is missing.
    if isinstance(error, (UsageError, ValueError, OSError, ImportError)):
        _say(f"error: {_reason(error)}")
        return BAD_INPUT
    hint = "" if debug else " (this should not happen: --debug shows where; please report it)"
    _say(f"error: {type(error).__name__}: {error}{hint}")
    return INTERNAL_ERROR


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def _say(message: str) -> None:
    """One line on stderr, whatever line breaks the message has."""
    print("diffrender: " + " ".join(message.split()), file=sys.stderr)


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Show warnings as messages to a user, who is not interested in the line of code that they come from."""

    def show(message: Warning | str, *args: Any, **kwargs: Any) -> None:
        _say(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.showwarning = show
        warnings.simplefilter("default", UserWarning)
        yield
