"""The Warp kernels that average a texture over what a pixel covers of it, and their reverse mode.

A box is cut into squares, and each square is looked up in the two levels of a pyramid whose texels are about as large.
One pass does all of it: from the Jacobian of a pixel to its mean, nothing in between is ever written to memory. The
loops are C++ inside Warp functions, as those of `warp_sampling`.
"""

# mypy: ignore-errors
# (Warp's language, not Python's)

from functools import cache
from typing import Any, NamedTuple

import warp as wp

from .warp_sampling import FOLD, OPTIONS, VECTORS

NEGLIGIBLE = (
    1e-5  # of a square that is left over at the end of a box, beyond the rounding errors of its length: no probe
)


class PyramidKernels(NamedTuple):
    """The kernels for one type, sort of spread and number of channels."""

    values: Any
    to_texels: Any
    to_points: Any


# What all three share: the boxes of a block of points, the squares of boxes, and the texels of squares.
_PRELUDE = """
typedef {name} real;
{vectors}
{fold}
constexpr int C = {channels};
constexpr bool LEVELS = {levels};  // points come with levels, otherwise with footprints
const int channels = C > 0 ? C : num_channels;
const real* points = (const real*)uv.data;
const real* spreads = (const real*)spread.data;
const real limit = real({limit});  // further away a coordinate has no fraction left

struct Level {{
    real* texels;
    int width, height;
    long long first_row;  // of the rows of all levels
}};
auto level_of = [&](int index) {{
    const long long* row = (const long long*)table.data + 4 * index;
    return Level{{(real*)row[0], (int)row[1], (int)row[2], row[3]}};
}};
const real* size_of = (const real*)sizes.data;  // width and height of each level, again
const int last = num_levels - 1, two = last > 0 ? 1 : 0;  // is there a second one to look at?
const real finest_width = size_of[0], finest_height = size_of[1];

struct Rectangle {{  // as the reference's `box_of` has it
    real a, b, c, d, xy, half, deviation, area, across, length, width, axis_x, axis_y;
    bool blurred;  // as wide as the number of probes demands
}};
auto rectangle_of = [&](const real* footprint) {{  // without a branch, so that several are done at a time
    Rectangle r;
    r.a = footprint[0] * finest_width, r.b = footprint[1] * finest_width;
    r.c = footprint[2] * finest_height, r.d = footprint[3] * finest_height;
    const real most = 4194304;
    const bool usable = (r.a > -most) & (r.a < most) & (r.b > -most) & (r.b < most)
        & (r.c > -most) & (r.c < most) & (r.d > -most) & (r.d < most);
    r.a = usable ? r.a : 0, r.b = usable ? r.b : 0, r.c = usable ? r.c : 0, r.d = usable ? r.d : 0;
    const real xx = r.a * r.a + r.b * r.b, yy = r.c * r.c + r.d * r.d, mean = real(0.5) * (xx + yy);
    const real tiny = real({eps}) * (1 + mean);
    r.xy = r.a * r.c + r.b * r.d;
    r.half = real(0.5) * (xx - yy);
    r.deviation = SQUARE_ROOT(r.half * r.half + r.xy * r.xy + tiny * tiny);
    const real square = mean + r.deviation;
    r.length = SQUARE_ROOT(square > 1 ? square : 1);
    r.area = r.a * r.d - r.b * r.c;
    r.across = (r.area < 0 ? -r.area : r.area) / r.length;
    const real narrow = r.across < r.length ? r.across : r.length, wide = narrow > 1 ? narrow : 1;
    const real least = r.length / max_probes;
    r.blurred = wide < least;
    r.width = r.blurred ? least : wide;
    const real x = r.half >= 0 ? r.half + r.deviation : r.xy, y = r.half >= 0 ? r.xy : r.deviation - r.half;
    const real over = 1 / SQUARE_ROOT(x * x + y * y);
    r.axis_x = x * over, r.axis_y = y * over;
    return r;
}};

real axis_u[K], axis_v[K], cell[K];  // the longer side; the shorter one as a share of it
real above[K];                       // how far between two levels,
int lower[K], pairs[K];              // the finer one; squares on each side of the one in the middle

auto locate = [&](int begin, int count) {{
    if (LEVELS) {{
        for (int k = 0; k < count; ++k) {{
            const real wanted = spreads[begin + k], level = wanted > 0 ? (wanted < last ? wanted : last) : 0;
            lower[k] = (int)level < last ? (int)level : last - two;
            above[k] = level - lower[k];
            axis_u[k] = axis_v[k] = 0, cell[k] = 1, pairs[k] = 0;
        }}
        return;
    }}
    const real* footprints = spreads + 4ll * begin;
    for (int k = 0; k < count; ++k) {{
        const Rectangle r = rectangle_of(footprints + 4 * k);
        axis_u[k] = r.axis_x * r.length / finest_width, axis_v[k] = r.axis_y * r.length / finest_height;
        cell[k] = r.width / r.length;
        above[k] = r.width;
        const real left_over = real(0.5) * (r.length / r.width - 1) - real({negligible});
        pairs[k] = (int)ROUND_UP(left_over > 0 ? left_over : 0);
    }}
    for (int k = 0; k < count; ++k) {{
        const int level = 31 - LEADING_ZEROS((int)above[k]);  // of a width, which is between 1 and 2^23
        lower[k] = level < last ? level : last - two;
        above[k] = level < last ? above[k] / (1 << level) - 1 : two;
    }}
}};

// One of the squares that boxes are cut into, of all points of a block, in one of the two levels of each.
real along[K], part[K];              // where on the longer side, which goes from -1/2 to 1/2; how much it counts
real along_slope[K], part_slope[K];  // their derivatives by `cell`
int level[K];
real share[K], counted[K];           // of the level; of the square in it
real x[K], y[K];                     // in texels, from the middle of the first one
real rest_x[K], rest_y[K];           // past the texel
int column[K], row[K], inside[K];

auto place = [&](int begin, int count, int m, int i) {{  // the m-th square from the one in the middle
    for (int k = 0; k < count; ++k) {{
        // From where to where it goes, and how that moves with `cell`; the first and the last end where the box does.
        const bool bottom = m == -pairs[k], top = m == pairs[k], none = m < -pairs[k] || m > pairs[k];
        const real low_slope = bottom ? 0 : m - real(0.5), low = bottom ? real(-0.5) : low_slope * cell[k];
        const real high_slope = top ? 0 : m + real(0.5), high = top ? real(0.5) : high_slope * cell[k];
        along[k] = real(0.5) * (low + high), along_slope[k] = real(0.5) * (low_slope + high_slope);
        part[k] = none ? 0 : high - low, part_slope[k] = none ? 0 : high_slope - low_slope;
        level[k] = lower[k] + (i ? two : 0);
        share[k] = i ? above[k] : 1 - above[k], counted[k] = share[k] * part[k];
    }}
    const real* uv_of = points + 2ll * begin;
    for (int k = 0; k < count; ++k) {{
        const real w = size_of[2 * level[k]], h = size_of[2 * level[k] + 1];
        x[k] = (uv_of[2 * k] + along[k] * axis_u[k]) * w - real(0.5);
        y[k] = h - real(0.5) - (uv_of[2 * k + 1] + along[k] * axis_v[k]) * h;
        const real left = ROUND_DOWN(x[k]), top = ROUND_DOWN(y[k]);
        rest_x[k] = x[k] - left, rest_y[k] = y[k] - top;
        column[k] = (int)left, row[k] = (int)top;
        inside[k] = (left >= 0) & (left < w - 1) & (top >= 0) & (top < h - 1);  // 0 for NaN
    }}
}};

// Squares of the same number side by side: so what a point has stays where it is. Those that a point lacks count 0.
auto for_all_squares = [&](int begin, int count, auto work) {{
    int most = 0;
    for (int k = 0; k < count; ++k) most = pairs[k] > most ? pairs[k] : most;
    for (int m = -most; m <= most; ++m)
        for (int i = 0; i < 2; ++i) {{
            place(begin, count, m, i);
            for (int k = 0; k < count; ++k) work(k, i);
        }}
}};

struct Taps {{
    int column[2], row[2];  // of the four texels; negative where they count nothing
    real x, y;              // weights of the second column and row
    bool moves;
}};
auto taps_of = [&](int k, const Level& of) {{
    int left = column[k], top = row[k];
    Taps taps{{{{left, left + 1}}, {{top, top + 1}}, rest_x[k], rest_y[k], true}};
    if (inside[k]) return taps;
    taps.moves = x[k] > -limit && x[k] < limit && y[k] > -limit && y[k] < limit;
    if (!taps.moves) {{  // the middle of the nearest texel
        const real right = of.width - 1, low = of.height - 1;
        const real at_x = x[k] > 0 ? (x[k] < right ? x[k] : right) : 0, at_y = y[k] > 0 ? (y[k] < low ? y[k] : low) : 0;
        left = (int)at_x, top = (int)at_y;
        taps.x = at_x - left, taps.y = at_y - top;
    }}
    const bool nothing = !taps.moves && (border_u == 0 || border_v == 0);
    for (int n = 0; n < 2; ++n) {{
        taps.column[n] = fold(left + n, of.width, border_u);
        taps.row[n] = nothing ? -1 : fold(top + n, of.height, border_v);
    }}
    return taps;
}};
"""

_VALUES = """
real* result = (real*)values.data;
constexpr bool vectors = C == 3 || C == 4;
four sums[K];

for (int begin = a; begin < b; begin += K) {
    const int count = b - begin < K ? b - begin : K;
    real* out = result + (long long)begin * channels;
    for (int k = 0; k < count; ++k) sums[k] = four{0, 0, 0, 0};
    if (!vectors) for (int n = 0; n < count * channels; ++n) out[n] = 0;
    locate(begin, count);
    for_all_squares(begin, count, [&](int k, int) {
        if (counted[k] == 0) return;
        const Level of = level_of(level[k]);
        if (vectors && inside[k]) {
            const real *p = of.texels + ((long long)row[k] * of.width + column[k]) * C, *q = p + of.width * C;
            const real low = counted[k] * rest_y[k], up = counted[k] - low;
            const real right = low * rest_x[k], left = up * rest_x[k];
            // Of three numbers, nothing beyond the last.
            const four corner = C == 4 ? load(q + C) : drop_first(load(q + C - 1));
            sums[k] = sums[k] + ((load(p) * (up - left) + load(p + C) * left)
                + (load(q) * (low - right) + corner * right));
            return;
        }
        const Taps taps = taps_of(k, of);
        for (int n = 0; n < 4; ++n) {
            const int top = taps.row[n / 2], left = taps.column[n % 2];
            if (top < 0 || left < 0) continue;
            const real w = counted[k] * (n / 2 ? taps.y : 1 - taps.y) * (n % 2 ? taps.x : 1 - taps.x);
            const real* __restrict p = of.texels + ((long long)top * of.width + left) * channels;
            if (vectors)
                for (int c = 0; c < C; ++c) sums[k][c] += w * p[c];
            else
                for (int c = 0; c < channels; ++c) out[(long long)k * channels + c] += w * p[c];
        }
    });
    if (vectors)
        for (int k = 0; k < count; ++k)
            for (int c = 0; c < C; ++c) out[k * C + c] = sums[k][c];
}
"""

# On the CPU a thread owns the texels of some rows: it goes over all points and adds what these rows get. Every texel
# gets its addends in the same order, whatever the number of threads.
_TO_TEXELS = """
const real* upstream = (const real*)value_gradient.data;

for (int begin = a; begin < b; begin += K) {
    const int count = b - begin < K ? b - begin : K;
    locate(begin, count);
    for_all_squares(begin, count, [&](int k, int) {
        const Level of = level_of(level[k]);
        if (counted[k] == 0 || of.first_row >= stop_row || of.first_row + of.height <= first_row) return;
        const real* __restrict g = upstream + (long long)(begin + k) * channels;
        const Taps taps = taps_of(k, of);
        for (int n = 0; n < 4; ++n) {
            const int top = taps.row[n / 2], left = taps.column[n % 2];
            const long long of_all = of.first_row + top;
            if (top < 0 || left < 0 || of_all < first_row || of_all >= stop_row) continue;
            const real w = counted[k] * (n / 2 ? taps.y : 1 - taps.y) * (n % 2 ? taps.x : 1 - taps.x);
            real* __restrict p = of.texels + ((long long)top * of.width + left) * channels;
            for (int c = 0; c < channels; ++c) {
#ifdef __CUDA_ARCH__
                wp::atomic_add(p + c, w * g[c]);
#else
                p[c] += w * g[c];
#endif
            }
        }
    });
}
"""

_TO_POINTS = """
const real* upstream = (const real*)value_gradient.data;
real* to_uv = (real*)uv_gradient.data;
real* to_spread = (real*)spread_gradient.data;
real to_u[K], to_v[K], to_axis_u[K], to_axis_v[K], to_cell[K], to_level[K];

// The gradient to a footprint from those to the box's longer side, its shorter one as a share, and its level.
auto pull_back = [&](int begin, int k) {
    const Rectangle r = rectangle_of(spreads + 4ll * (begin + k));
    real* to_footprint = to_spread + 4ll * (begin + k);
    const real to_x = to_axis_u[k] / finest_width, to_y = to_axis_v[k] / finest_height, over = 1 / r.length;
    const int level = 31 - LEADING_ZEROS((int)r.width);
    const real to_width = to_cell[k] * over + (level < last ? to_level[k] / (1 << level) : 0);
    const real area = r.area < 0 ? -r.area : r.area;
    const bool round = r.across >= r.length;
    const real to_across = r.blurred || round || r.across <= 1 ? 0 : to_width;
    const real to_length = to_x * r.axis_x + to_y * r.axis_y - to_cell[k] * r.width * over * over
        + (r.blurred ? to_width / max_probes : (round ? to_width : 0)) - to_across * area * over * over;
    const real to_area = (r.area < 0 ? -to_across : to_across) * over;
    const real to_mean = r.length > 1 ? real(0.5) * to_length * over : 0;
    // The axis turns by (half d xy - xy d half) / (2 deviation^2).
    const real to_angle = real(0.5) * r.length * (to_y * r.axis_x - to_x * r.axis_y) / r.deviation;
    const real cosine = r.half / r.deviation, sine = r.xy / r.deviation;
    const real to_half = to_mean * cosine - to_angle * sine, to_xy = to_mean * sine + to_angle * cosine;
    const real to_xx = to_mean + to_half, to_yy = to_mean - to_half;  // twice
    to_footprint[0] = (r.a * to_xx + r.c * to_xy + r.d * to_area) * finest_width;
    to_footprint[1] = (r.b * to_xx + r.d * to_xy - r.c * to_area) * finest_width;
    to_footprint[2] = (r.c * to_yy + r.a * to_xy - r.b * to_area) * finest_height;
    to_footprint[3] = (r.d * to_yy + r.b * to_xy + r.a * to_area) * finest_height;
};

for (int begin = a; begin < b; begin += K) {
    const int count = b - begin < K ? b - begin : K;
    locate(begin, count);
    for (int k = 0; k < count; ++k)
        to_u[k] = to_v[k] = to_axis_u[k] = to_axis_v[k] = to_cell[k] = to_level[k] = 0;
    for_all_squares(begin, count, [&](int k, int i) {
        if (part[k] == 0 && part_slope[k] == 0) return;
        const Level of = level_of(level[k]);
        const real* __restrict g = upstream + (long long)(begin + k) * channels;
        const Taps taps = taps_of(k, of);
        real dots[4] = {0, 0, 0, 0};
        for (int n = 0; n < 4; ++n) {
            const int top = taps.row[n / 2], left = taps.column[n % 2];
            if (top < 0 || left < 0) continue;
            const real* __restrict p = of.texels + ((long long)top * of.width + left) * channels;
            for (int c = 0; c < channels; ++c) dots[n] += p[c] * g[c];
        }
        const real up = dots[0] + taps.x * (dots[1] - dots[0]), low = dots[2] + taps.x * (dots[3] - dots[2]);
        const real value = up + taps.y * (low - up);
        to_level[k] += (i ? part[k] : -part[k]) * value;
        to_cell[k] += share[k] * part_slope[k] * value;
        if (!taps.moves) return;
        const real left = dots[0] + taps.y * (dots[2] - dots[0]), right = dots[1] + taps.y * (dots[3] - dots[1]);
        const real by_u = counted[k] * (right - left) * of.width;
        const real by_v = -counted[k] * (low - up) * of.height;
        to_u[k] += by_u, to_v[k] += by_v;
        to_axis_u[k] += by_u * along[k], to_axis_v[k] += by_v * along[k];
        to_cell[k] += along_slope[k] * (by_u * axis_u[k] + by_v * axis_v[k]);
    });
    for (int k = 0; k < count; ++k) {
        const long long n = begin + k;
        to_uv[2 * n] = to_u[k], to_uv[2 * n + 1] = to_v[k];
        if (LEVELS) to_spread[n] = spreads[n] >= 0 && spreads[n] <= last && last > 0 ? to_level[k] : 0;
        else pull_back(begin, k);
    }
}
"""


@cache
def make_pyramid_kernels(real: Any, levels: bool, channels: int) -> PyramidKernels:
    """The kernels for `real` (`wp.float32` or `wp.float64`); `channels` is 1 to 4, or 0 for a number known later."""
    single = real is wp.float32
    prelude = _PRELUDE.format(
        name="float" if single else "double",
        vectors=VECTORS,
        fold=FOLD,
        channels=channels,
        levels=str(levels).lower(),
        limit=2.0**22 if single else 2.0**30,
        eps=2.0**-23 if single else 2.0**-52,
        negligible=NEGLIGIBLE,
    )

    @wp.func_native(prelude + _VALUES)
    def values_of_range(
        table: wp.array(dtype=wp.int64),
        sizes: wp.array(dtype=real),
        num_levels: int,
        uv: wp.array(dtype=real),
        spread: wp.array(dtype=real),
        num_channels: int,
        border_u: int,
        border_v: int,
        max_probes: int,
        a: int,
        b: int,
        values: wp.array(dtype=real),
    ): ...

    @wp.kernel(module="unique", module_options=OPTIONS)
    def values(
        table: wp.array(dtype=wp.int64),
        sizes: wp.array(dtype=real),
        num_levels: int,
        uv: wp.array(dtype=real),
        spread: wp.array(dtype=real),
        num_channels: int,
        border_u: int,
        border_v: int,
        max_probes: int,
        count: int,
        chunk: int,
        first: int,
        values: wp.array(dtype=real),
    ):
        i = (first + wp.tid()) * chunk
        values_of_range(
            table, sizes, num_levels, uv, spread, num_channels, border_u, border_v, max_probes,
            i, wp.min(i + chunk, count), values,
        )  # fmt: skip

    @wp.func_native(prelude + _TO_TEXELS)
    def texels_of_range(
        table: wp.array(dtype=wp.int64),
        sizes: wp.array(dtype=real),
        num_levels: int,
        uv: wp.array(dtype=real),
        spread: wp.array(dtype=real),
        num_channels: int,
        border_u: int,
        border_v: int,
        max_probes: int,
        a: int,
        b: int,
        value_gradient: wp.array(dtype=real),
        first_row: wp.int64,
        stop_row: wp.int64,
    ): ...

    @wp.kernel(module="unique", module_options=OPTIONS)
    def to_texels(
        table: wp.array(dtype=wp.int64),
        sizes: wp.array(dtype=real),
        num_levels: int,
        uv: wp.array(dtype=real),
        spread: wp.array(dtype=real),
        num_channels: int,
        border_u: int,
        border_v: int,
        max_probes: int,
        count: int,
        chunk: int,
        value_gradient: wp.array(dtype=real),
        first_row: wp.int64,
        stop_row: wp.int64,
    ):
        i = wp.tid() * chunk
        texels_of_range(
            table, sizes, num_levels, uv, spread, num_channels, border_u, border_v, max_probes,
            i, wp.min(i + chunk, count), value_gradient, first_row, stop_row,
        )  # fmt: skip

    @wp.func_native(prelude + _TO_POINTS)
    def points_of_range(
        table: wp.array(dtype=wp.int64),
        sizes: wp.array(dtype=real),
        num_levels: int,
        uv: wp.array(dtype=real),
        spread: wp.array(dtype=real),
        num_channels: int,
        border_u: int,
        border_v: int,
        max_probes: int,
        a: int,
        b: int,
        value_gradient: wp.array(dtype=real),
        uv_gradient: wp.array(dtype=real),
        spread_gradient: wp.array(dtype=real),
    ): ...

    @wp.kernel(module="unique", module_options=OPTIONS)
    def to_points(
        table: wp.array(dtype=wp.int64),
        sizes: wp.array(dtype=real),
        num_levels: int,
        uv: wp.array(dtype=real),
        spread: wp.array(dtype=real),
        num_channels: int,
        border_u: int,
        border_v: int,
        max_probes: int,
        count: int,
        chunk: int,
        value_gradient: wp.array(dtype=real),
        first: int,
        uv_gradient: wp.array(dtype=real),
        spread_gradient: wp.array(dtype=real),
    ):
        i = (first + wp.tid()) * chunk
        points_of_range(
            table, sizes, num_levels, uv, spread, num_channels, border_u, border_v, max_probes,
            i, wp.min(i + chunk, count), value_gradient, uv_gradient, spread_gradient,
        )  # fmt: skip

    return PyramidKernels(values, to_texels, to_points)
