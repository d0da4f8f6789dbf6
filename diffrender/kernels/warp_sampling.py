"""The Warp kernels that look up images and volumes at points, and their reverse mode.

The loop over points is C++ inside Warp functions. Random points are bound by the latency of memory: how many of them
are under way at a time decides the speed. So points are taken in blocks, where they lie is computed for the whole block
and asked for ahead, and what is left per point is a few vector instructions; Warp's own language has neither.

A texel is `C` numbers in a row, a row is `width` texels. A point reads `T` texels of each of `R` rows: T rows of an
image, T * T rows of a volume.
"""

# mypy: ignore-errors
# (Warp's language, not Python's)

from functools import cache
from typing import Any, NamedTuple

import warp as wp

OPTIONS = {"fuse_fp": True, "fast_math": False, "enable_backward": False}
MAX_CHANNELS = 4  # more are counted at run time


class SamplingKernels(NamedTuple):
    """The kernels for one type, filter, number of dimensions and number of channels."""

    sample: Any
    sample_gradient: Any


class Filter(NamedTuple):
    """A separable filter: texels `floor(x - shift) + first + (0, ..., taps - 1)`, weights `w` and slopes `d` at `t`."""

    taps: int
    first: int
    shift: float
    weights: str


_CUBIC = """
    const real a = real({a}), s = 1 - t;
    w[0] = a * t * s * s;  d[0] = a * s * (s - 2 * t);
    w[1] = ((a + 2) * t - (a + 3)) * t * t + 1;  d[1] = (3 * (a + 2) * t - 2 * (a + 3)) * t;
    w[2] = ((a + 2) * s - (a + 3)) * s * s + 1;  d[2] = -(3 * (a + 2) * s - 2 * (a + 3)) * s;
    w[3] = a * s * t * t;  d[3] = a * t * (2 * s - t);
"""
FILTERS = {
    "nearest": Filter(1, 0, 0.0, "w[0] = 1; d[0] = 0;"),
    "bilinear": Filter(2, 0, 0.5, "w[0] = 1 - t; w[1] = t; d[0] = -1; d[1] = 1;"),
    # Keys, "Cubic convolution interpolation for digital image processing" (1981), equation 15 with a free a.
    "bicubic": Filter(4, -1, 0.5, _CUBIC.format(a=-0.5)),
    "bicubic-torch": Filter(4, -1, 0.5, _CUBIC.format(a=-0.75)),
    # Unser, "Splines: a perfect fit for signal and image processing" (1999), box 1.
    "bspline": Filter(
        4,
        -1,
        0.5,
        """
    const real s = 1 - t, sixth = real(1.0 / 6.0);
    w[0] = sixth * s * s * s;  d[0] = real(-0.5) * s * s;
    w[1] = real(2.0 / 3.0) - t * t * (1 - real(0.5) * t);  d[1] = t * (real(1.5) * t - 2);
    w[2] = real(2.0 / 3.0) - s * s * (1 - real(0.5) * s);  d[2] = s * (2 - real(1.5) * s);
    w[3] = sixth * t * t * t;  d[3] = real(0.5) * t * t;
""",
    ),
    # sinc(x) sinc(x / 3) for |x| < 3 with x = t - k, k = -2..3, divided by its sum; near 0 its series.
    "lanczos": Filter(
        6,
        -2,
        0.5,
        """
    const real pi = real(3.14159265358979323846);
    real total = 0, slope = 0;
    for (int k = 0; k < 6; ++k) {
        const real x = t - (k - 2), px = pi * x, qx = px / 3;
        real value = 1, rise = 0;
        if (x > real(1e-3) || x < real(-1e-3)) {
            const real a = sin(px), b = sin(qx), over = 3 / (px * px);
            value = a * b * over;
            rise = over * (pi * cos(px) * b + pi / 3 * a * cos(qx)) - 2 * value / x;
        } else {  // 1 - c x^2, the rest is below x^4
            const real c = pi * pi * real(10.0 / 54.0);
            value = 1 - c * x * x;
            rise = -2 * c * x;
        }
        w[k] = value; d[k] = rise; total += value; slope += rise;
    }
    for (int k = 0; k < 6; ++k) {
        w[k] /= total;
        d[k] = (d[k] - w[k] * slope) / total;
    }
""",
    ),
}
BORDERS = ("zeros", "clamp", "reflect", "mirror", "wrap")

# Vectors of four numbers, for the compiler of each device.
VECTORS = """
#ifdef __CUDA_ARCH__
constexpr int K = 1;  // a thread has one point
struct four {
    real v[4];
    CUDA_CALLABLE real& operator[](int i) { return v[i]; }
    CUDA_CALLABLE four operator*(real s) const { return {v[0] * s, v[1] * s, v[2] * s, v[3] * s}; }
    CUDA_CALLABLE four operator+(four b) const {
        return {v[0] + b.v[0], v[1] + b.v[1], v[2] + b.v[2], v[3] + b.v[3]};
    }
};
auto load = [](const real* p) { return four{p[0], p[1], p[2], p[3]}; };
auto drop_first = [](four a) { return four{a.v[1], a.v[2], a.v[3], a.v[3]}; };
#define PREFETCH(p)
#define ROUND_DOWN(x) floor(x)
#define ROUND_UP(x) ceil(x)
#define SQUARE_ROOT(x) sqrt(x)
#define LEADING_ZEROS(x) __clz(x)
#else
constexpr int K = 64;  // enough to hide the latency of memory, and few enough to stay in the nearest cache
typedef real four __attribute__((vector_size(4 * sizeof(real)), aligned(sizeof(real))));
auto load = [](const real* p) { return *(const four*)p; };
auto drop_first = [](four a) { return __builtin_shufflevector(a, a, 1, 2, 3, 3); };
#define PREFETCH(p) __builtin_prefetch(p)
#define ROUND_DOWN(x) __builtin_elementwise_floor(x)
#define ROUND_UP(x) __builtin_elementwise_ceil(x)
#define SQUARE_ROOT(x) __builtin_elementwise_sqrt(x)
#define LEADING_ZEROS(x) __builtin_clz(x)
#endif
"""

# What a texel outside of the image means.
FOLD = """
auto fold = [](int texel, int count, int mode) {  // which texel is meant, -1 for none
    if (texel >= 0 && texel < count) return texel;
    if (mode == 0) return -1;
    if (mode == 1) return texel < 0 ? 0 : count - 1;
    const int period = mode == 2 ? 2 * count : (mode == 3 ? (count > 1 ? 2 * count - 2 : 1) : count);
    texel = texel % period;
    texel = texel < 0 ? texel + period : texel;
    if (mode == 4 || texel < count) return texel;
    return mode == 2 ? period - 1 - texel : period - texel;
};
"""

# What both directions share: constants, and where a block of points lies.
_PRELUDE = """{vectors}
constexpr int D = {dimensions}, T = {taps}, R = {rows};
constexpr int C = {channels};
const int channels = C > 0 ? C : num_channels;
const real* texels = (const real*)image.data;
const real* points = (const real*)coordinates.data;
const int* image_of_group = (const int*)image_of.data;
const int size[3] = {{width, height, depth}};
const int border[3] = {{border_x, border_y, border_z}};
const real limit = real({limit});  // further away a coordinate has no fraction left, or no index
const long long row_texels = width, image_texels = (long long)width * height * depth;

int base[D][K];       // first texel of each axis
real fraction[D][K];  // position after it
int state[K];         // 0 inside, 1 at a border, 2 unusable
long long start[K];   // first texel of the image

auto filter = [&](real t, real* w, real* d) {{ {weights} }};

auto locate = [&](int begin, int count) {{
    const real* p = points + (long long)begin * D;
    const real sx = scale[0], sy = scale[1], sz = scale[2], ox = offset[0], oy = offset[1], oz = offset[2];
    const int last_x = width - T, last_y = height - T, last_z = depth - T;
    auto axis = [&](real x, int last, int& whole, real& rest) {{  // 0 inside, 1 at a border, 2 unusable
        const int unusable = (x > -limit && x < limit) ? 0 : 2;
        x = x > -limit ? x : -limit;
        x = x < limit ? x : limit;
        const real low = ROUND_DOWN(x);
        whole = (int)low + {first};
        rest = x - low;
        return unusable | ((whole < 0) | (whole > last));
    }};
    for (int k = 0; k < count; ++k) {{
        int found = axis(p[D * k] * sx + ox, last_x, base[0][k], fraction[0][k]);
        found |= axis(p[D * k + 1] * sy + oy, last_y, base[1][k], fraction[1][k]);
        if (D == 3) found |= axis(p[D * k + D - 1] * sz + oz, last_z, base[D - 1][k], fraction[D - 1][k]);
        state[k] = found;
    }}
    int of = begin / group, next = of + 1;
    for (int k = 0; k < count; ++k) {{
        if (begin + k >= (long long)next * group) of = next++;
        start[k] = image_of_group[of] * image_texels;
    }}
}};

{fold}struct Taps {{
    long long row[R];  // first texel of each row, negative where it counts nothing
    int column[T];
    real across[T], along[R], slope_x[T], slope_y[R], slope_z[R];
}};

auto weigh = [&](int k, Taps& taps) {{
    real wy[T], dy[T], wz[T], dz[T];
    filter(fraction[0][k], taps.across, taps.slope_x);
    filter(fraction[1][k], wy, dy);
    if (D == 3) filter(fraction[D - 1][k], wz, dz);
    for (int r = 0; r < R; ++r) {{
        const real front = D == 3 ? wz[r / T] : real(1), front_slope = D == 3 ? dz[r / T] : real(0);
        taps.along[r] = front * wy[r % T];
        taps.slope_y[r] = front * dy[r % T];
        taps.slope_z[r] = front_slope * wy[r % T];
    }}
}};

auto place_inside = [&](int k, Taps& taps) {{
    for (int r = 0; r < R; ++r) {{
        const long long slice = D == 3 ? base[D - 1][k] + r / T : 0;
        taps.row[r] = start[k] + (slice * height + base[1][k] + r % T) * row_texels;
    }}
}};

auto place_at_border = [&](int k, int n, Taps& taps) {{
    if (state[k] >= 2) {{  // the middle of the nearest pixel, which does not move
        for (int i = 0; i < D; ++i) {{
            const real p = points[(long long)n * D + i] * scale[i] + offset[i];
            const real last = size[i] - 1, middle = real(0.5) - real({shift});
            const real known = p == p ? p - middle : -middle - real({shift});
            base[i][k] = (int)floor((known > 0 ? (known < last ? known : last) : 0) + middle) + {first};
            fraction[i][k] = (known > 0 ? (known < last ? known : last) : 0) + middle;
            fraction[i][k] -= floor(fraction[i][k]);
        }}
    }}
    weigh(k, taps);
    bool nothing = false;
    for (int i = 0; i < D; ++i) nothing = nothing || (state[k] >= 2 && border[i] == 0);
    for (int t = 0; t < T; ++t) {{
        taps.column[t] = fold(base[0][k] + t, width, border_x);
        if (state[k] >= 2) taps.slope_x[t] = 0;
    }}
    for (int r = 0; r < R; ++r) {{
        const int row = fold(base[1][k] + r % T, height, border_y);
        const int slice = D == 3 ? fold(base[D - 1][k] + r / T, depth, border_z) : 0;
        const bool none = row < 0 || slice < 0 || nothing;
        taps.row[r] = none ? -1 : start[k] + ((long long)slice * height + row) * row_texels;
        if (state[k] >= 2) taps.slope_y[r] = taps.slope_z[r] = 0;
    }}
}};
"""

_SAMPLE = """
real* result = (real*)values.data;
for (int begin = a; begin < b; begin += K) {
    const int count = b - begin < K ? b - begin : K;
    locate(begin, count);
    for (int k = 0; k < count; ++k) {
        if (state[k] != 0) continue;
        for (int r = 0; r < R; ++r) {
            const long long slice = D == 3 ? base[D - 1][k] + r / T : 0;
            const long long row = start[k] + (slice * height + base[1][k] + r % T) * row_texels + base[0][k];
            PREFETCH(texels + row * channels);
            PREFETCH(texels + (row + T) * channels - 1);
        }
    }
    for (int k = 0; k < count; ++k) {
        const int n = begin + k;
        real* out = result + (long long)n * channels;
        Taps taps;
        if (state[k] == 0) {
            weigh(k, taps);
            place_inside(k, taps);
            if (C == 3 || C == 4) {
                four sum = {0, 0, 0, 0};
                for (int r = 0; r < R; ++r) {
                    const real* p = texels + (taps.row[r] + base[0][k]) * C;
                    four line = {0, 0, 0, 0};
                    if (C == 3 && T == 1) {
                        line = four{p[0], p[1], p[2], 0};
                    } else {
                        for (int t = 0; t < T; ++t)  // of three numbers, nothing beyond the last
                            line = line + (C == 4 || t < T - 1 ? load(p + t * C) : drop_first(load(p + t * C - 1)))
                                * taps.across[t];
                    }
                    sum = sum + line * taps.along[r];
                }
                for (int c = 0; c < C; ++c) out[c] = sum[c];
            } else {
                for (int c = 0; c < channels; ++c) out[c] = 0;
                for (int r = 0; r < R; ++r) {
                    const real* __restrict p = texels + (taps.row[r] + base[0][k]) * channels;
                    real* __restrict o = out;
                    real w[T];
                    for (int t = 0; t < T; ++t) w[t] = taps.along[r] * taps.across[t];
                    for (int c = 0; c < channels; ++c) {
                        real line = 0;
                        for (int t = 0; t < T; ++t) line += w[t] * p[t * channels + c];
                        o[c] += line;
                    }
                }
            }
        } else {
            place_at_border(k, n, taps);
            for (int c = 0; c < channels; ++c) out[c] = 0;
            for (int r = 0; r < R; ++r)
                for (int t = 0; t < T; ++t)
                    if (taps.row[r] >= 0 && taps.column[t] >= 0)
                        for (int c = 0; c < channels; ++c)
                            out[c] += taps.along[r] * taps.across[t]
                                * texels[(taps.row[r] + taps.column[t]) * channels + c];
        }
    }
}
"""

# On the CPU a thread owns the texels of some rows: it goes over all points and adds what these rows get. Every texel
# gets its addends in the order of the points, whatever the number of threads. The thread that owns a point's first row
# writes the point's own gradient.
_GRADIENT = """
real* to_texels = (real*)image_gradient.data;
real* to_points = (real*)coordinate_gradient.data;
const real* upstream = (const real*)value_gradient.data;
const long long low = (long long)first_row * row_texels, high = (long long)stop_row * row_texels;

auto add = [](real* p, real value) {
#ifdef __CUDA_ARCH__
    wp::atomic_add(p, value);
#else
    *p += value;
#endif
};

auto spread = [&](int k, int n, const Taps& taps, bool own, auto column) {
    const real* g = upstream + (long long)n * channels;
    real gradient[3] = {0, 0, 0};
    for (int r = 0; r < R; ++r) {
        if (taps.row[r] < 0) continue;
        const bool mine = to_image && taps.row[r] >= low && taps.row[r] < high;
        real line = 0, rise = 0;
        for (int t = 0; t < T; ++t) {
            if (column(t) < 0) continue;
            const long long at = (taps.row[r] + column(t)) * channels;
            if (own && to_coordinates) {
                real dot = 0;
                if (C > 0) {
                    for (int c = 0; c < C; ++c) dot += texels[at + c] * g[c];
                } else {  // eight sums side by side, added up in an order that does not depend on the machine
                    const real* __restrict p = texels + at;
                    real part[8] = {0, 0, 0, 0, 0, 0, 0, 0};
                    int c = 0;
                    for (; c + 8 <= channels; c += 8)
                        for (int i = 0; i < 8; ++i) part[i] += p[c + i] * g[c + i];
                    for (int i = 0; c + i < channels; ++i) part[i] += p[c + i] * g[c + i];
                    for (int i = 0; i < 4; ++i) part[i] += part[i + 4];
                    dot = (part[0] + part[2]) + (part[1] + part[3]);
                }
                line += taps.across[t] * dot;
                rise += taps.slope_x[t] * dot;
            }
            if (mine) {
                const real w = taps.along[r] * taps.across[t];
                if (C > 0) {
                    for (int c = 0; c < C; ++c) add(to_texels + at + c, w * g[c]);
                } else {
                    real* __restrict p = to_texels + at;
                    for (int c = 0; c < channels; ++c) add(p + c, w * g[c]);
                }
            }
        }
        gradient[0] += taps.along[r] * rise;
        gradient[1] += taps.slope_y[r] * line;
        gradient[2] += taps.slope_z[r] * line;
    }
    if (own && to_coordinates)
        for (int i = 0; i < D; ++i) to_points[(long long)n * D + i] = gradient[i] * scale[i];
};

for (int begin = a; begin < b; begin += K) {
    const int count = b - begin < K ? b - begin : K;
    int member[K], num_members = 0;
    locate(begin, count);
    for (int k = 0; k < count; ++k) {  // which of them concern this thread, without a branch
        const long long slice = D == 3 ? base[D - 1][k] : 0, slices = D == 3 ? T - 1 : 0;
        const long long head = start[k] + (slice * height + base[1][k]) * row_texels;
        const long long tail = head + (slices * height + T - 1) * row_texels;
        member[num_members] = k;
        num_members += state[k] != 0 || (head < high && tail >= low);
    }
    for (int m = 0; m < num_members; ++m) {
        const int k = member[m];
        if (state[k] != 0) continue;
        for (int r = 0; r < R; ++r) {
            const long long slice = D == 3 ? base[D - 1][k] + r / T : 0;
            const long long row = start[k] + (slice * height + base[1][k] + r % T) * row_texels + base[0][k];
            if (to_coordinates) PREFETCH(texels + row * channels);
            if (to_coordinates) PREFETCH(texels + (row + T) * channels - 1);
            if (to_image) PREFETCH(to_texels + row * channels);
            if (to_image) PREFETCH(to_texels + (row + T) * channels - 1);
        }
    }
    for (int m = 0; m < num_members; ++m) {
        const int k = member[m], n = begin + k;
        Taps taps;
        if (state[k] == 0) {
            weigh(k, taps);
            place_inside(k, taps);
            const int left = base[0][k];
            spread(k, n, taps, taps.row[0] >= low && taps.row[0] < high, [left](int t) { return left + t; });
        } else {
            place_at_border(k, n, taps);
            const long long owner = taps.row[0] < 0 ? start[k] : taps.row[0];
            const int* columns = taps.column;
            spread(k, n, taps, owner >= low && owner < high, [columns](int t) { return columns[t]; });
        }
    }
}
"""


@cache
def make_sampling_kernels(real: Any, mode: str, dimensions: int, channels: int) -> SamplingKernels:
    """The kernels for `real` (`wp.float32` or `wp.float64`); `channels` is 1 to 4, or 0 for a number known later."""
    taps, first, shift, weights = FILTERS[mode]
    vec3 = wp.types.vector(3, real)
    name = "float" if real is wp.float32 else "double"
    prelude = f"typedef {name} real;\n" + _PRELUDE.format(
        dimensions=dimensions,
        taps=taps,
        rows=taps ** (dimensions - 1),
        channels=channels,
        weights=weights,
        first=first,
        vectors=VECTORS,
        fold=FOLD,
        shift=shift,
        limit=2.0**22 if real is wp.float32 else 2.0**30,
    )

    @wp.func_native(prelude + _SAMPLE)
    def sample_range(
        image: wp.array(dtype=real),
        coordinates: wp.array(dtype=real),
        image_of: wp.array(dtype=wp.int32),
        group: int,
        width: int,
        height: int,
        depth: int,
        num_channels: int,
        border_x: int,
        border_y: int,
        border_z: int,
        scale: vec3,
        offset: vec3,
        a: int,
        b: int,
        values: wp.array(dtype=real),
    ): ...

    @wp.kernel(module="unique", module_options=OPTIONS)
    def sample(
        image: wp.array(dtype=real),
        coordinates: wp.array(dtype=real),
        image_of: wp.array(dtype=wp.int32),
        group: int,
        width: int,
        height: int,
        depth: int,
        num_channels: int,
        border_x: int,
        border_y: int,
        border_z: int,
        scale: vec3,
        offset: vec3,
        count: int,
        chunk: int,
        first: int,
        values: wp.array(dtype=real),
    ):
        i = (first + wp.tid()) * chunk
        sample_range(
            image, coordinates, image_of, group, width, height, depth, num_channels, border_x, border_y, border_z,
            scale, offset, i, wp.min(i + chunk, count), values,
        )  # fmt: skip

    @wp.func_native(prelude + _GRADIENT)
    def gradient_range(
        image: wp.array(dtype=real),
        coordinates: wp.array(dtype=real),
        image_of: wp.array(dtype=wp.int32),
        group: int,
        width: int,
        height: int,
        depth: int,
        num_channels: int,
        border_x: int,
        border_y: int,
        border_z: int,
        scale: vec3,
        offset: vec3,
        a: int,
        b: int,
        value_gradient: wp.array(dtype=real),
        to_image: int,
        to_coordinates: int,
        first_row: int,
        stop_row: int,
        image_gradient: wp.array(dtype=real),
        coordinate_gradient: wp.array(dtype=real),
    ): ...

    @wp.kernel(module="unique", module_options=OPTIONS)
    def sample_gradient(
        image: wp.array(dtype=real),
        coordinates: wp.array(dtype=real),
        image_of: wp.array(dtype=wp.int32),
        group: int,
        width: int,
        height: int,
        depth: int,
        num_channels: int,
        border_x: int,
        border_y: int,
        border_z: int,
        scale: vec3,
        offset: vec3,
        count: int,
        chunk: int,
        value_gradient: wp.array(dtype=real),
        to_image: int,
        to_coordinates: int,
        first_row: int,
        stop_row: int,
        image_gradient: wp.array(dtype=real),
        coordinate_gradient: wp.array(dtype=real),
    ):
        i = wp.tid() * chunk
        gradient_range(
            image, coordinates, image_of, group, width, height, depth, num_channels, border_x, border_y, border_z,
            scale, offset, i, wp.min(i + chunk, count), value_gradient, to_image, to_coordinates, first_row, stop_row,
            image_gradient, coordinate_gradient,
        )  # fmt: skip

    return SamplingKernels(sample, sample_gradient)
