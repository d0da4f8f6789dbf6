"""`report.html`: what a person looks at after a fit. One file with everything in it, that needs no network."""

import base64
import html
import io
import itertools
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..io.files import atomic_path
from ..io.images import encode_srgb
from .trainer import Record

JPEG_QUALITY = 88
PLOT = (720, 260)  # width and height in CSS pixels
MARGIN = (56, 12, 30, 12)  # of the plot: left, right, bottom, top
POINTS = 400  # of each curve at most
CURVES = (("loss", "all of it", "#222"), ("color", "colour", "#1769aa"), ("silhouette", "silhouette", "#c0392b"))

STYLE = """
:root { font: 15px/1.45 system-ui, sans-serif; color: #222; background: #fafafa }
body { max-width: 1180px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem; margin: 0 } h2 { font-size: 1.15rem; margin: 2rem 0 .6rem; border-bottom: 1px solid #ddd }
.facts { display: flex; flex-wrap: wrap; gap: .6rem; margin: 1rem 0 }
.fact { background: #fff; border: 1px solid #ddd; border-radius: 6px; padding: .5rem .9rem }
.fact b { display: block; font-size: 1.3rem }
.note { background: #fff4d6; border: 1px solid #e8cf85; border-radius: 6px; padding: .4rem .8rem; margin: .3rem 0 }
.views { display: grid; grid-template-columns: repeat(auto-fill, minmax(340px, 1fr)); gap: 1rem }
figure { margin: 0; background: #fff; border: 1px solid #ddd; border-radius: 6px; padding: .6rem }
figcaption { font-size: .9rem; margin-bottom: .4rem } .held { color: #c0392b; font-weight: 600 }
.compare { position: relative; --x: 50%; line-height: 0 } .compare img { width: 100%; background: #000 }
.compare .over { position: absolute; inset: 0; clip-path: inset(0 calc(100% - var(--x)) 0 0) }
.compare i { position: absolute; top: 0; bottom: 0; left: var(--x); width: 1px; background: #fff }
.pair { display: flex; gap: 4px; margin-top: 4px } .pair img { width: 50%; background: #000 }
input[type=range] { width: 100%; margin: .3rem 0 }
table { border-collapse: collapse; font-size: .9rem } td, th { padding: .2rem .8rem; text-align: right }
th:first-child, td:first-child { text-align: left } tr:nth-child(even) { background: #f0f0f0 }
pre { background: #fff; border: 1px solid #ddd; border-radius: 6px; padding: .8rem; overflow-x: auto }
.table { max-height: 24rem; overflow-y: auto }
"""
SCRIPT = """
for (const slider of document.querySelectorAll('.compare + input'))
  slider.oninput = () => slider.previousElementSibling.style.setProperty('--x', slider.value + '%');
"""


@dataclass(frozen=True, eq=False)
class Shown:
    """The pictures of one view, all [H, W, 3] in linear colour: target, fit, difference, and the silhouettes."""

    name: str
    held_out: bool
    target: Tensor
    fit: Tensor
    difference: Tensor
    silhouettes: Tensor


def write_page(
    path: Path,
    title: str,
    values: dict[str, Any],
    history: Sequence[Record],
    views: Iterable[Shown],
    turntable: Path | None,
    notes: Sequence[str],
) -> None:
    """Write the page.

    Args:
        path: of the file.
        title: what was fitted.
        values: what `metrics.json` holds.
        history: of the fit.
        views: pictures to compare, held-out ones first.
        turntable: an animated picture to put into the page.
        notes: sentences to put on top.
    """
    rows = {row["view"]: row for part in values["views"].values() for row in part}
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        *(f'<p class="note">{html.escape(note)}</p>' for note in notes),
        _facts(values),
        "<h2>Convergence</h2>",
        _plot(history),
        *_progress(values["curve"]),
        "<h2>Views</h2><p>Drag the sliders: the photograph on the left, the fit on the right. Below, four times the "
        "difference of sRGB values, and the silhouettes: white in both, red in the fit only, cyan in the mask "
        "only.</p>",
        f'<div class="views">{"".join(_card(view, rows[view.name]) for view in views)}</div>',
    ]
    if turntable is not None:
        parts += ["<h2>Turntable</h2>", f'<img alt="turntable" src="{_inlined(turntable.read_bytes(), "gif")}">']
    parts += [
        "<h2>Figures by view</h2>",
        _table(values),
        "<h2>Mesh</h2>",
        _pre(values["mesh"]),
        "<h2>To reproduce it</h2>",
        _pre({key: values[key] for key in ("settings", "optics", "versions", "threads")}),
    ]
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style></head><body>{''.join(parts)}<script>{SCRIPT}</script></body></html>\n"
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _facts(values: dict[str, Any]) -> str:
    facts = []
    for part, label in (("held_out", "held-out views"), ("train", "fitted views")):
        if part in values["mean"]:
            mean = values["mean"][part]
            facts.append((f"{mean['iou']:.4f}", f"IoU, {label} (start: {mean['start_iou']:.4f})"))
            if mean["mask_iou"] != mean["iou"]:
                alike = f"IoU of masks made alike, {label} (start: {mean['start_mask_iou']:.4f})"
                facts.append((f"{mean['mask_iou']:.4f}", alike))
            facts.append((f"{mean['psnr']:.2f} dB", f"PSNR, {label}"))
    mesh = values["mesh"]
    facts += [
        (f"{values['steps']}", f"steps in {values['seconds']:.0f} s"),
        (f"{mesh['faces']}", "faces"),
        (f"{mesh['self_intersections']}", "pairs of faces that intersect"),
        (f"{mesh['flipped']}", "flipped faces"),
    ]
    return f'<div class="facts">{"".join(f"<div class=fact><b>{b}</b>{html.escape(t)}</div>" for b, t in facts)}</div>'


def _card(view: Shown, row: dict[str, Any]) -> str:
    name = html.escape(view.name)
    held = ' <span class="held">held out</span>' if view.held_out else ""
    target, fit, difference, silhouettes = (
        _inlined(_jpeg(x), "jpeg") for x in (view.target, view.fit, view.difference, view.silhouettes)
    )
    return (
        f"<figure><figcaption><b>{name}</b>{held}"
        f"<div>IoU {row['mask_iou']:.4f}, PSNR {row['psnr']:.2f} dB</div></figcaption>"
        f'<div class="compare"><img alt="fit of {name}" src="{fit}">'
        f'<img class="over" alt="photograph {name}" src="{target}"><i></i></div>'
        f'<input type="range" min="0" max="100" value="50" aria-label="photograph or fit of {name}">'
        f'<div class="pair"><img alt="difference" src="{difference}"><img alt="silhouettes" src="{silhouettes}"></div>'
        "</figure>"
    )


def _table(values: dict[str, Any]) -> str:
    lines = [
        f"<tr><td>{html.escape(row['view'])}</td><td>{'held out' if part == 'held_out' else 'fitted'}</td>"
        f"<td>{row['start_iou']:.4f}</td><td>{row['iou']:.4f}</td>"
        f"<td>{row['start_mask_iou']:.4f}</td><td>{row['mask_iou']:.4f}</td><td>{row['psnr']:.2f}</td></tr>"
        for part, rows in values["views"].items()
        for row in rows
    ]
    columns = ("view", "", "IoU at the start", "IoU", "of masks made alike: at the start", "of the fit", "PSNR, dB")
    head = "".join(f"<th>{column}</th>" for column in columns)
    return f'<div class="table"><table><tr>{head}</tr>{"".join(lines)}</table></div>'


def _pre(values: dict[str, Any]) -> str:
    text = json.dumps(values, indent=2)
    text = re.sub(r"\[[^][{}]*\]", lambda found: " ".join(found[0].split()), text)  # a row of numbers on one line
    return f"<pre>{html.escape(text)}</pre>"


def _plot(history: Sequence[Record]) -> str:
    """The losses over the steps, logarithmic, as SVG."""
    shown = [*history[: -1 : max(1, math.ceil(len(history) / POINTS))], *history[-1:]]  # the last one says most
    found = [getattr(record, name) for record in shown for name, _, _ in CURVES]
    found = [value for value in found if value > 0 and math.isfinite(value)]
    if len(shown) < 2 or not found:
        return "<p>Too few steps for a plot.</p>"
    (width, height), (left, right, bottom, top) = PLOT, MARGIN
    low, high = math.log10(min(found)), math.log10(max(found)) + 1e-9
    last = shown[-1].step
    apart = next(m * 10**e for e in itertools.count() for m in (1, 2, 5) if 6 * m * 10**e > last)  # marks of steps

    def x(step: int) -> float:
        return left + (width - left - right) * step / max(last, 1)

    def y(value: float) -> float:
        share = (math.log10(max(value, min(found))) - low) / (high - low)
        return height - bottom - (height - bottom - top) * min(max(share, 0.0), 1.0)

    marks = [m * 10.0**e for e in range(math.floor(low), math.ceil(high) + 1) for m in (1, 2, 5)]
    parts = [
        f'<line x1="{left}" x2="{width - right}" y1="{y(m):.1f}" y2="{y(m):.1f}" stroke="#e4e4e4"/>'
        f'<text x="{left - 6}" y="{y(m) + 4:.1f}" text-anchor="end">{m:g}</text>'
        for m in marks
        if low <= math.log10(m) <= high
    ]
    parts += [
        f'<text x="{x(step):.1f}" y="{height - 10}" text-anchor="middle">{step}</text>'
        for step in range(0, last + 1, apart)
    ]
    parts += [
        f'<line x1="{x(b.step):.1f}" x2="{x(b.step):.1f}" y1="{top}" y2="{height - bottom}" stroke="#999" '
        f'stroke-dasharray="3 3"/><text x="{x(b.step) + 4:.1f}" y="{top + 10}">stage {b.stage + 1}</text>'
        for a, b in itertools.pairwise(history)
        if a.stage != b.stage
    ]
    for k, (name, label, color) in enumerate(CURVES):
        points = " ".join(f"{x(r.step):.1f},{y(getattr(r, name)):.1f}" for r in shown)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}"/>')
        parts.append(f'<text x="{width - 110}" y="{top + 14 * (k + 1)}" fill="{color}">{label}</text>')
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" font-size="11" '
        f'style="background:#fff;border:1px solid #ddd;max-width:100%">{"".join(parts)}</svg>'
    )


def _progress(curve: Sequence[dict[str, Any]]) -> list[str]:
    """The held-out views' figures over time; nothing where there are none."""
    if len(curve) < 2:
        return []
    return [
        "<h2>Held-out views over time</h2><p>Means, on images of at most 320 pixels.</p>",
        _over_time(curve, "iou", "IoU", "#1769aa"),
        _over_time(curve, "psnr", "PSNR, dB", "#c0392b"),
    ]


def _over_time(curve: Sequence[dict[str, Any]], name: str, label: str, color: str) -> str:
    """One figure over the seconds of the fit, as SVG."""
    (width, height), (left, right, bottom, top) = (PLOT[0] // 2 - 4, PLOT[1]), MARGIN
    seconds, values = ([float(point[key]) for point in curve] for key in ("seconds", name))
    low, high, last = min(values), max(values) + 1e-9, max(*seconds, 1e-9)
    places = [
        (
            left + (width - left - right) * t / last,
            height - bottom - (height - bottom - top) * (v - low) / (high - low),
        )
        for t, v in zip(seconds, values, strict=True)
    ]
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}">'
        f"<title>step {p['step']}: {p[name]:.4g}</title></circle>"
        for (x, y), p in zip(places, curve, strict=True)
    )
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" font-size="11" '
        f'style="background:#fff;border:1px solid #ddd;max-width:100%;margin-right:8px">'
        f'<text x="{left - 6}" y="{top + 4}" text-anchor="end">{high:.4g}</text>'
        f'<text x="{left - 6}" y="{height - bottom + 4}" text-anchor="end">{low:.4g}</text>'
        f'<text x="{left}" y="{height - 10}" text-anchor="middle">0</text>'
        f'<text x="{width - right}" y="{height - 10}" text-anchor="end">{last:.0f} s</text>'
        f'<text x="{width // 2}" y="{height - 10}" text-anchor="middle" fill="{color}">{label}</text>'
        f'<polyline points="{line}" fill="none" stroke="{color}"/>{dots}</svg>'
    )


def _jpeg(picture: Tensor) -> bytes:
    values = (encode_srgb(picture.clamp(0, 1)) * 255).round().to(torch.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values.cpu().numpy()).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def _inlined(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
