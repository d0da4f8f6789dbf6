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
const int last = num_levels - 1;
const real finest_width = level_of(0).width, finest_height = level_of(0).height;

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
            lower[k] = (int)level < last ? (int)level : (last > 0 ? last - 1 : 0);
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
        lower[k] = level < last ? level : (last > 0 ? last - 1 : 0);
        above[k] = level < last ? above[k] / (1 << level) - 1 : (last > 0 ? 1 : 0);
    }}
}};

struct Probe {{
    real at, share;              // along the longer side, of which the box has -1/2 to 1/2; how much it counts
    real at_slope, share_slope;  // their derivatives by `cell`
}};
auto probe_of = [&](int k, int probe) {{
    if (pairs[k] == 0) return Probe{{0, 1, 0, 0}};
    const int distance = probe < 0 ? -probe : probe;
    if (distance < pairs[k]) return Probe{{probe * cell[k], cell[k], real(probe), 1}};
    const real start = pairs[k] - real(0.5), sign = probe < 0 ? -1 : 1;
    return Probe{{sign * (real(0.25) + real(0.5) * start * cell[k]), real(0.5) - start * cell[k],
                  sign * real(0.5) * start, -start}};
}};

struct Pair {{  // of levels, and where a box lies in them: x and y in texels of the finer one, then of the coarser one
    Level level[2];
    real share[2], middle[4], side[4];
    int last[4];  // columns and rows that have a next one lie before it
}};
auto pair_of = [&](int begin, int k) {{
    Pair pair;
    const real u = points[2ll * (begin + k)], v = points[2ll * (begin + k) + 1];
    for (int i = 0; i < 2; ++i) {{
        pair.level[i] = level_of(lower[k] + i <= last ? lower[k] + i : last);
        const real width = pair.level[i].width, height = pair.level[i].height;
        pair.share[i] = i ? above[k] : 1 - above[k];
        pair.middle[2 * i] = u * width - real(0.5), pair.middle[2 * i + 1] = height - real(0.5) - v * height;
        pair.side[2 * i] = axis_u[k] * width, pair.side[2 * i + 1] = -axis_v[k] * height;
        pair.last[2 * i] = pair.level[i].width - 1, pair.last[2 * i + 1] = pair.level[i].height - 1;
    }}
    return pair;
}};

struct Place {{
    real at[4], rest[4];  // a probe in the coordinates of a pair, and how far it is past the first of its texels
    int first[4];
    bool inside[2];
}};
auto place_of = [](const Pair& pair, real along) {{
    Place place;
    bool fits[4];
    for (int i = 0; i < 4; ++i) {{
        place.at[i] = pair.middle[i] + along * pair.side[i];
        const real low = ROUND_DOWN(place.at[i]);
        place.first[i] = (int)low;
        place.rest[i] = place.at[i] - low;
        fits[i] = place.at[i] >= 0 && place.at[i] < pair.last[i];  // false for NaN
    }}
    place.inside[0] = fits[0] & fits[1], place.inside[1] = fits[2] & fits[3];
    return place;
}};

struct Taps {{
    int column[2], row[2];  // of the four texels; negative where they count nothing
    real x, y;              // weights of the second column and row
    bool moves;
}};
auto taps_of = [&](const Pair& pair, const Place& place, int i) {{
    int column = place.first[2 * i], row = place.first[2 * i + 1];
    Taps taps{{{{column, column + 1}}, {{row, row + 1}}, place.rest[2 * i], place.rest[2 * i + 1], true}};
    if (place.inside[i]) return taps;
    real x = place.at[2 * i], y = place.at[2 * i + 1];
    taps.moves = x > -limit && x < limit && y > -limit && y < limit;
    if (!taps.moves) {{  // the middle of the nearest texel
        const real right = pair.last[2 * i], low = pair.last[2 * i + 1];
        x = x > 0 ? (x < right ? x : right) : 0, y = y > 0 ? (y < low ? y : low) : 0;
        column = (int)ROUND_DOWN(x), row = (int)ROUND_DOWN(y);
        taps.x = x - column, taps.y = y - row;
    }}
    const bool nothing = !taps.moves && (border_u == 0 || border_v == 0);
    for (int j = 0; j < 2; ++j) {{
        taps.column[j] = fold(column + j, pair.level[i].width, border_u);
        taps.row[j] = nothing ? -1 : fold(row + j, pair.level[i].height, border_v);
    }}
    return taps;
}};
"""

_VALUES = """
real* result = (real*)values.data;
for (int begin = a; begin < b; begin += K) {
    const int count = b - begin < K ? b - begin : K;
    locate(begin, count);
    for (int k = 0; k < count; ++k) {
        real* __restrict out = result + (long long)(begin + k) * channels;
        const Pair pair = pair_of(begin, k);
        four sum = {0, 0, 0, 0};
        if (C != 3 && C != 4) for (int c = 0; c < channels; ++c) out[c] = 0;
        for (int m = -pairs[k]; m <= pairs[k]; ++m) {
            const Probe probe = probe_of(k, m);
            const Place place = place_of(pair, probe.at);
            for (int i = 0; i < 2; ++i) {
                const real share = pair.share[i] * probe.share;
                if (share == 0) continue;
                const Level& level = pair.level[i];
                if (place.inside[i] && (C == 3 || C == 4)) {
                    const real* p
                        = level.texels + ((long long)place.first[2 * i + 1] * level.width + place.first[2 * i]) * C;
                    const real* q = p + level.width * C;
                    const real x = place.rest[2 * i], low = share * place.rest[2 * i + 1], up = share - low;
                    // Of three numbers, nothing beyond the last.
                    const four corner = C == 4 ? load(q + C) : drop_first(load(q + C - 1));
                    sum = sum + load(p) * (up - up * x) + load(p + C) * (up * x)
                        + load(q) * (low - low * x) + corner * (low * x);
                    continue;
                }
                const Taps taps = taps_of(pair, place, i);
                for (int j = 0; j < 4; ++j) {
                    const int row = taps.row[j / 2], column = taps.column[j % 2];
                    if (row < 0 || column < 0) continue;
                    const real w = share * (j / 2 ? taps.y : 1 - taps.y) * (j % 2 ? taps.x : 1 - taps.x);
                    const real* __restrict p = level.texels + ((long long)row * level.width + column) * channels;
                    if (C == 3 || C == 4)
                        for (int c = 0; c < C; ++c) sum[c] += w * p[c];
                    else
                        for (int c = 0; c < channels; ++c) out[c] += w * p[c];
                }
            }
        }
        if (C == 3 || C == 4) for (int c = 0; c < C; ++c) out[c] = sum[c];
    }
}
"""

# On the CPU a thread owns the texels of some rows: it goes over all points and adds what these rows get. Every texel
# gets its addends in the order of the points, whatever the number of threads.
_TO_TEXELS = """
const real* upstream = (const real*)value_gradient.data;
auto add = [](real* p, real value) {
#ifdef __CUDA_ARCH__
    wp::atomic_add(p, value);
#else
    *p += value;
#endif
};

for (int begin = a; begin < b; begin += K) {
    const int count = b - begin < K ? b - begin : K;
    locate(begin, count);
    for (int k = 0; k < count; ++k) {
        const real* __restrict g = upstream + (long long)(begin + k) * channels;
        const Pair pair = pair_of(begin, k);
        bool mine[2];
        for (int i = 0; i < 2; ++i) {
            const long long first = pair.level[i].first_row;
            mine[i] = pair.share[i] != 0 && first < stop_row && first + pair.level[i].height > first_row;
        }
        if (!mine[0] && !mine[1]) continue;
        for (int m = -pairs[k]; m <= pairs[k]; ++m) {
            const Probe probe = probe_of(k, m);
            const Place place = place_of(pair, probe.at);
            for (int i = 0; i < 2; ++i) {
                if (!mine[i]) continue;
                const Taps taps = taps_of(pair, place, i);
                const real share = pair.share[i] * probe.share;
                for (int j = 0; j < 4; ++j) {
                    const int row = taps.row[j / 2], column = taps.column[j % 2];
                    const long long of_all = pair.level[i].first_row + row;
                    if (row < 0 || column < 0 || of_all < first_row || of_all >= stop_row) continue;
                    const real w = share * (j / 2 ? taps.y : 1 - taps.y) * (j % 2 ? taps.x : 1 - taps.x);
                    real* __restrict p
                        = pair.level[i].texels + ((long long)row * pair.level[i].width + column) * channels;
                    for (int c = 0; c < channels; ++c) add(p + c, w * g[c]);
                }
            }
        }
    }
}
"""

_TO_POINTS = """
const real* upstream = (const real*)value_gradient.data;
real* to_uv = (real*)uv_gradient.data;
real* to_spread = (real*)spread_gradient.data;
real to_axis_u[K], to_axis_v[K], to_cell[K], to_level[K];

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
    for (int k = 0; k < count; ++k) {
        const int n = begin + k;
        const real* __restrict g = upstream + (long long)n * channels;
        const Pair pair = pair_of(begin, k);
        real to_middle[4] = {0, 0, 0, 0}, to_side[4] = {0, 0, 0, 0};
        to_cell[k] = to_level[k] = 0;
        for (int m = -pairs[k]; m <= pairs[k]; ++m) {
            const Probe probe = probe_of(k, m);
            const Place place = place_of(pair, probe.at);
            for (int i = 0; i < 2; ++i) {
                const Level& level = pair.level[i];
                const Taps taps = taps_of(pair, place, i);
                real dots[4] = {0, 0, 0, 0};
                for (int j = 0; j < 4; ++j) {
                    const int row = taps.row[j / 2], column = taps.column[j % 2];
                    if (row < 0 || column < 0) continue;
                    const real* __restrict p = level.texels + ((long long)row * level.width + column) * channels;
                    for (int c = 0; c < channels; ++c) dots[j] += p[c] * g[c];
                }
                const real up = dots[0] + taps.x * (dots[1] - dots[0]), low = dots[2] + taps.x * (dots[3] - dots[2]);
                const real value = up + taps.y * (low - up);
                to_level[k] += (i ? probe.share : -probe.share) * value;
                to_cell[k] += pair.share[i] * probe.share_slope * value;
                if (!taps.moves) continue;
                const real left = dots[0] + taps.y * (dots[2] - dots[0]);
                const real right = dots[1] + taps.y * (dots[3] - dots[1]);
                const real slope[2] = {pair.share[i] * (right - left), pair.share[i] * (low - up)};
                for (int j = 0; j < 2; ++j) {
                    to_middle[2 * i + j] += probe.share * slope[j];
                    to_side[2 * i + j] += probe.share * probe.at * slope[j];
                    to_cell[k] += probe.share * probe.at_slope * slope[j] * pair.side[2 * i + j];
                }
            }
        }
        real* uv_gradient_n = to_uv + 2ll * n;
        uv_gradient_n[0] = to_middle[0] * pair.level[0].width + to_middle[2] * pair.level[1].width;
        uv_gradient_n[1] = -to_middle[1] * pair.level[0].height - to_middle[3] * pair.level[1].height;
        to_axis_u[k] = to_side[0] * pair.level[0].width + to_side[2] * pair.level[1].width;
        to_axis_v[k] = -to_side[1] * pair.level[0].height - to_side[3] * pair.level[1].height;
        if (LEVELS) to_spread[n] = spreads[n] >= 0 && spreads[n] <= last && last > 0 ? to_level[k] : 0;
    }
    if (!LEVELS) for (int k = 0; k < count; ++k) pull_back(begin, k);
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
            table, num_levels, uv, spread, num_channels, border_u, border_v, max_probes,
            i, wp.min(i + chunk, count), values,
        )  # fmt: skip

    @wp.func_native(prelude + _TO_TEXELS)
    def texels_of_range(
        table: wp.array(dtype=wp.int64),
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
            table, num_levels, uv, spread, num_channels, border_u, border_v, max_probes,
            i, wp.min(i + chunk, count), value_gradient, first_row, stop_row,
        )  # fmt: skip

    @wp.func_native(prelude + _TO_POINTS)
    def points_of_range(
        table: wp.array(dtype=wp.int64),
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
            table, num_levels, uv, spread, num_channels, border_u, border_v, max_probes,
            i, wp.min(i + chunk, count), value_gradient, uv_gradient, spread_gradient,
        )  # fmt: skip

    return PyramidKernels(values, to_texels, to_points)
