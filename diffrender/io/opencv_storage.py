"""OpenCV's FileStorage, YAML and XML: nested dicts and lists of numbers, strings and NumPy arrays, read and written.

Read is what `cv2.FileStorage` writes, and what ROS and people write by hand in the same subset of YAML (blocks by
indentation, flows in brackets, no anchors). Matrices (`!!opencv-matrix`, or any mapping of `rows`, `cols` and `data`)
become arrays [rows, cols] or [rows, cols, channels] of their type. Numbers are taken as they are: what they mean, half
pixels for example, is left to `calibration`.

Source: OpenCV's documentation, "XML/YAML/JSON file storages".
"""

import json
import math
import os
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from torch import Tensor

from .files import atomic_path, naming, read_text

_DTYPES = {"u": "u1", "c": "i1", "w": "u2", "s": "i2", "i": "i4", "f": "f4", "d": "f8", "h": "f2"}
_LETTERS = {np.dtype(code): letter for letter, code in _DTYPES.items()}
_SPECIAL = {".nan": math.nan, ".inf": math.inf, "+.inf": math.inf, "-.inf": -math.inf}
_QUOTE = "\ue000"  # stands for &quot; while strings are found by the quotes around them
_KEY = re.compile(r"""("(?:[^"\\]|\\.)*"|[^\s:"'\[\]{},]+)\s*:(?:\s+|$)(.*)""")
_TOKEN = re.compile(r"""\s*("(?:[^"\\]|\\.)*"|'[^']*'|[\[\]{},]|:(?=[\s\d.+"-])|[^\s\[\]{},:"']+)""")

_Line = tuple[int, int, str]  # number, indentation, content


def load_opencv_storage(path: str | os.PathLike[str]) -> dict[str, Any]:
    """All entries of a .yml, .yaml or .xml file of `cv2.FileStorage`.

    Raises FileNotFoundError where there is no such file, ValueError naming file and line or entry for what is
    truncated or malformed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    text = read_text(path)
    return _read_xml(path, text) if text.lstrip().startswith("<") else _read_yaml(path, text)


def save_opencv_storage(path: str | os.PathLike[str], entries: dict[str, Any]) -> None:
    """Write entries that `cv2.FileStorage` reads: numbers, strings, lists, dicts, arrays and tensors.

    Args:
        path: .yml, .yaml or .xml.
        entries: by name; arrays [rows, cols], [rows, cols, channels], or [rows] as one column.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_opencv_storage(f"{folder}/a.yml", {"K": np.eye(2), "names": ["a", "b"]})
    ...     load_opencv_storage(f"{folder}/a.yml")["K"].tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    path = Path(path)
    if path.suffix.lower() == ".xml":
        body = "".join(_xml(name, value) for name, value in entries.items())
        text = f'<?xml version="1.0"?>\n<opencv_storage>\n{body}</opencv_storage>\n'
    elif path.suffix.lower() in (".yml", ".yaml"):
        text = "%YAML:1.0\n---\n" + "".join(f"{name}:{_yaml(value, 3)}" for name, value in entries.items())
    else:
        raise ValueError(f"{path} must end in .yml, .yaml or .xml")
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


# --- matrices -----------------------------------------------------------------------------------------------------


def _matrices(where: str, value: Any) -> Any:
    """The value with mappings that describe a matrix as arrays, at any depth."""
    if isinstance(value, list):
        return [_matrices(f"{where}[{i}]", part) for i, part in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if "data" in value and ("sizes" in value or {"rows", "cols"} <= value.keys()):
        with naming(where):
            return _matrix(value)
    return {name: _matrices(f"{where}, {name}", part) for name, part in value.items()}


def _matrix(entries: dict[str, Any]) -> np.ndarray:
    found = re.fullmatch(r"(\d*)([ucwsifdh])", str(entries.get("dt", "d")))
    if found is None:
        raise ValueError(f"unknown element type dt: {entries['dt']!r}")
    shape = entries["sizes"] if "sizes" in entries else [entries["rows"], entries["cols"]]
    shape = [int(n) for n in shape] + ([int(found[1])] if found[1] not in ("", "1") else [])
    data = entries["data"]
    data = np.asarray(data if isinstance(data, (list, np.ndarray)) else [data], dtype=np.float64).reshape(-1)
    if data.size != math.prod(shape):
        raise ValueError(f"a matrix of shape {tuple(shape)} must have {math.prod(shape)} numbers; got {data.size}")
    return data.reshape(shape).astype(_DTYPES[found[2]])


def _described(value: np.ndarray | Tensor) -> tuple[dict[str, Any], list[str]]:
    """Rows, columns and type of an array, and its numbers."""
    array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    if array.dtype == np.int64:
        if array.size and np.abs(array).max() >= 2**31:
            raise ValueError("OpenCV has no integers of 64 bits: arrays must fit into 32")
        array = array.astype(np.int32)
    if array.ndim not in (1, 2, 3) or array.dtype not in _LETTERS:
        raise ValueError(f"OpenCV has no arrays of {array.dtype} of shape {array.shape}")
    shape = (*array.shape, 1)[:2]
    letter = _LETTERS[array.dtype]
    kind = f'"{array.shape[2]}{letter}"' if array.ndim == 3 else letter
    numbers = [_number(value) for value in array.reshape(-1).tolist()]
    return {"rows": shape[0], "cols": shape[1], "dt": kind}, numbers


def _number(value: float) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return ".Nan" if math.isnan(value) else "-.Inf" if value < 0 else ".Inf"
    return repr(value)


def _scalar(text: str) -> Any:
    """A number, or else the text."""
    if text[:1] in ('"', "'"):
        return json.loads(text, strict=False) if text[0] == '"' else text[1:-1]
    if re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    if text.lower() in _SPECIAL:
        return _SPECIAL[text.lower()]
    try:
        return float(text)
    except ValueError:
        return text


# --- YAML ---------------------------------------------------------------------------------------------------------


def _read_yaml(path: Path, text: str) -> dict[str, Any]:
    lines: list[_Line] = []
    for number, raw in enumerate(text.splitlines(), start=1):
        line = re.sub(r"""^((?:[^"'#]|"(?:[^"\\]|\\.)*"|'[^']*')*?)(?:(?<=\s)|^)#.*$""", r"\1", raw).rstrip()
        if line.strip() and not line.startswith(("%", "---", "...")):
            lines.append((number, len(line) - len(line.lstrip()), line.strip()))
    lines.reverse()  # taken from the end
    content = _block(path, lines) if lines else {}
    if lines:
        raise ValueError(f"{path}, line {lines[-1][0]}: the indentation fits to nothing before: {lines[-1][2]!r}")
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold named entries; got a list")
    return {name: _matrices(f"{path}, {name}", value) for name, value in content.items()}


def _block(path: Path, lines: list[_Line]) -> Any:
    """The mapping or list that begins with the next line: all lines of its indentation, and what is below them."""
    indent = lines[-1][1]
    if lines[-1][2].startswith("-") and lines[-1][2][1:2] in ("", " "):
        items = []
        while lines and lines[-1][1] == indent and lines[-1][2].startswith("-"):
            number, _, content = lines.pop()
            rest = content[1:].strip()
            inside = _KEY.fullmatch(rest)
            if inside is not None and not rest.startswith("!!"):  # "- a: 1" begins a mapping
                lines.append((number, indent + len(content) - len(rest), rest))
                items.append(_block(path, lines))
            else:
                items.append(_value(path, lines, number, indent, rest))
        return items
    entries: dict[str, Any] = {}
    while lines and lines[-1][1] == indent:
        number, _, content = lines.pop()
        found = _KEY.fullmatch(content)
        if found is None:
            raise ValueError(f"{path}, line {number}: expected 'name: value'; got {content[:60]!r}")
        entries[str(_scalar(found[1])) if found[1].startswith('"') else found[1]] = _value(
            path, lines, number, indent, found[2]
        )
    return entries


def _value(path: Path, lines: list[_Line], number: int, indent: int, text: str) -> Any:
    """The value that begins with `text` in line `number`, and may go on below."""
    text = re.sub(r"^!!\S+\s*", "", text)
    if not text:
        return _block(path, lines) if lines and lines[-1][1] > indent else None
    if text[0] not in "[{":
        return _scalar(text)
    parts = [text]
    balance = _balance(text)
    while balance > 0 and lines:
        parts.append(lines.pop()[2])
        balance += _balance(parts[-1])
    if balance != 0:
        raise ValueError(f"{path}, line {number}: brackets are not closed, the file may be truncated")
    whole = " ".join(parts)
    with naming(f"{path}, line {number}"):
        if re.fullmatch(r"\[[\d\s.,eE+-]+\]", whole) and re.search(r"[.eE]", whole):  # many numbers: at once
            return np.fromstring(whole[1:-1].rstrip(" ,"), sep=",").tolist()
        tokens = _TOKEN.findall(whole)
        tokens.reverse()
        return _flow(tokens)


def _balance(text: str) -> int:
    """How many more brackets open than close."""
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', "", text)
    return bare.count("[") + bare.count("{") - bare.count("]") - bare.count("}")


def _flow(tokens: list[str]) -> Any:
    """The value that the next tokens make."""
    token = tokens.pop()
    if token not in "[{":
        return _scalar(token)
    items: list[Any] = []
    entries: dict[str, Any] = {}
    while tokens and tokens[-1] not in "]}":
        item = _flow(tokens)
        if tokens and tokens[-1] == ":":
            tokens.pop()
            entries[str(item)] = _flow(tokens)
        else:
            items.append(item)
        if tokens and tokens[-1] == ",":
            tokens.pop()
    if not tokens or tokens.pop() != ("]" if token == "[" else "}"):
        raise ValueError("brackets do not match")
    return items if token == "[" else entries


def _yaml(value: Any, indent: int) -> str:
    """What follows the colon or dash, with the line break."""
    space = " " * indent
    if isinstance(value, (np.ndarray, Tensor)):
        head, numbers = _described(value)
        lines = "".join(f"{space}{name}: {entry}\n" for name, entry in head.items())
        return f" !!opencv-matrix\n{lines}{space}data: [ {', '.join(numbers)} ]\n"
    if isinstance(value, dict):
        return "\n" + "".join(f"{space}{name}:{_yaml(part, indent + 3)}" for name, part in value.items())
    if isinstance(value, (list, tuple)):
        if all(isinstance(part, (int, float, str)) for part in value):
            return f" [ {', '.join(_yaml(part, indent).strip() for part in value)} ]\n"
        return "\n" + "".join(f"{space}-{_yaml(part, indent + 3)}" for part in value)
    if isinstance(value, (bool, int, float)):
        return f" {_number(int(value) if isinstance(value, bool) else value)}\n"
    if isinstance(value, str):
        return f" {json.dumps(value, ensure_ascii=False)}\n"
    raise ValueError(f"OpenCV's storages hold numbers, strings, lists, dicts and arrays; got {type(value).__name__}")


# --- XML ----------------------------------------------------------------------------------------------------------


def _read_xml(path: Path, text: str) -> dict[str, Any]:
    try:
        root = ElementTree.fromstring(text.strip().replace("&quot;", _QUOTE))
    except ElementTree.ParseError as error:
        raise ValueError(f"{path} is no valid XML, it may be truncated: {error}") from None
    if root.tag != "opencv_storage":
        raise ValueError(f"{path} must hold an <opencv_storage>; got <{root.tag}>")
    return {child.tag: _matrices(f"{path}, {child.tag}", _element(path, child)) for child in root}


def _element(path: Path, element: ElementTree.Element) -> Any:
    children = list(element)
    if children and all(child.tag == "_" for child in children):
        return [_element(path, child) for child in children]
    if children:
        return {child.tag: _element(path, child) for child in children}
    text = (element.text or "").strip()
    if re.fullmatch(r"[\d\s.eE+-]+", text) and len(text.split()) > 1:
        with naming(f"{path}, {element.tag}"):
            return (
                np.fromstring(text, sep=" ").tolist() if re.search(r"[.eE]", text) else [int(n) for n in text.split()]
            )
    words = [_xml_word(word) for word in re.findall(r'"[^"]*"|\S+', text)]
    return words[0] if len(words) == 1 else words or ""


def _xml_word(word: str) -> Any:
    return word.strip('"').replace(_QUOTE, '"') if word.startswith('"') else _scalar(word.replace(_QUOTE, '"'))


def _xml(name: str, value: Any) -> str:
    if isinstance(value, (np.ndarray, Tensor)):
        head, numbers = _described(value)
        lines = "".join(f"  <{key}>{entry}</{key}>\n" for key, entry in head.items())
        return f'<{name} type_id="opencv-matrix">\n{lines}  <data>\n{" ".join(numbers)}</data></{name}>\n'
    if isinstance(value, dict):
        return f"<{name}>\n" + "".join(_xml(key, part) for key, part in value.items()) + f"</{name}>\n"
    if isinstance(value, (list, tuple)):
        if all(isinstance(part, (int, float, str)) for part in value):
            return f"<{name}>\n{' '.join(_xml_scalar(part) for part in value)}</{name}>\n"
        return f"<{name}>\n" + "".join(_xml("_", part) for part in value) + f"</{name}>\n"
    return f"<{name}>{_xml_scalar(value)}</{name}>\n"


def _xml_scalar(value: Any) -> str:
    return '"' + escape(value, {'"': "&quot;"}) + '"' if isinstance(value, str) else _yaml(value, 0).strip()
