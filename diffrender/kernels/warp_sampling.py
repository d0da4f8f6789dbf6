"""The Warp kernels that look up images and volumes at points, and their reverse mode.

The loop over points is C++ inside Warp functions. Random points are bound by the latency of memory: how many of them
are under way at a time decides the speed. So points are taken in blocks, where they lie is computed for the whole block
and asked for ahead, and what is left per point is a few vector instructions; Warp's own language has neither.

A texel is `C` numbers in a row, a row is `width` texels. A point reads `T` texels of each of `R` rows: T rows of an
image, T * T rows of a volume.
"""

# mypy: ignore-errors
# (Warp's language, not Python's)

from functools import cache, partial
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
constexpr int LINE = 64 / sizeof(real);  // of the cache
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
_PRELUDE = """
typedef {name} real;
{vectors}
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

auto start_of = [&](int n) {{ return image_of_group[n / group] * image_texels; }};

struct Block {{           // of points: where each lies
    int base[D][K];       // first texel of each axis
    real fraction[D][K];  // position after it
    int state[K];         // 0 inside, 1 at a border, 2 unusable
    long long first[K];   // its first texel among those of all images
}};

auto filter = [&](real t, real* w, real* d) {{ {weights} }};

auto locate = [&](int begin, int count, Block& block) {{
    const real* p = points + (long long)begin * D;
    const real from = origin, sx = scale[0], sy = scale[1], sz = scale[2];
    const real ox = offset[0], oy = offset[1], oz = offset[2];
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
        int found = axis((p[D * k] - from) * sx + ox, last_x, block.base[0][k], block.fraction[0][k]);
        found |= axis((p[D * k + 1] - from) * sy + oy, last_y, block.base[1][k], block.fraction[1][k]);
        if (D == 3)
            found |= axis((p[D * k + D - 1] - from) * sz + oz, last_z, block.base[D - 1][k], block.fraction[D - 1][k]);
        block.state[k] = found;
    }}
    for (int k = 0, of = begin / group; k < count; ++of) {{
        const long long left = (of + 1ll) * group - begin, start = image_of_group[of] * image_texels;
        for (const int stop = left < count ? left : count; k < stop; ++k) {{
            const long long slice = D == 3 ? block.base[D - 1][k] : 0;
            block.first[k] = start + (slice * height + block.base[1][k]) * row_texels + block.base[0][k];
        }}
    }}
}};

// The first texel of a row of a point inside, counted from the first one of the point.
auto row_of = [&](int r) {{ return (D == 3 ? (long long)(r / T) * height + r % T : r) * row_texels; }};

auto ask_for_texels = [&](const real* of, long long first) {{
    for (int r = 0; r < R; ++r) {{
        const real* row = of + (first + row_of(r)) * channels;
        for (int i = 0; i < T * channels; i += LINE) PREFETCH(row + i);
        PREFETCH(row + T * channels - 1);
    }}
}};

{fold}struct Taps {{
    long long row[R];  // first texel of each row, negative where it counts nothing
    int column[T];
    real across[T], along[R], slope_x[T], slope_y[R], slope_z[R];
}};

auto weigh = [&](const Block& block, int k, Taps& taps) {{
    real wy[T], dy[T], wz[T], dz[T];
    filter(block.fraction[0][k], taps.across, taps.slope_x);
    filter(block.fraction[1][k], wy, dy);
    if (D == 3) filter(block.fraction[D - 1][k], wz, dz);
    for (int r = 0; r < R; ++r) {{
        const real front = D == 3 ? wz[r / T] : real(1), front_slope = D == 3 ? dz[r / T] : real(0);
        taps.along[r] = front * wy[r % T];
        taps.slope_y[r] = front * dy[r % T];
        taps.slope_z[r] = front_slope * wy[r % T];
    }}
}};

auto place_at_border = [&](Block& block, int k, int n, Taps& taps) {{
    if (block.state[k] >= 2) {{  // the middle of the nearest pixel, which does not move
        for (int i = 0; i < D; ++i) {{
            const real last = size[i] - 1, middle = real(0.5) - real({shift});
            const real p = (points[(long long)n * D + i] - origin) * scale[i] + offset[i] - middle;
            const real known = (p > 0 ? (p < last ? p : last) : 0) + middle;  // NaN is 0
            block.base[i][k] = (int)floor(known) + {first};
            block.fraction[i][k] = known - floor(known);
        }}
    }}
    weigh(block, k, taps);
    const long long start = start_of(n);
    bool nothing = false;
    for (int i = 0; i < D; ++i) nothing = nothing || (block.state[k] >= 2 && border[i] == 0);
    for (int t = 0; t < T; ++t) {{
        taps.column[t] = fold(block.base[0][k] + t, width, border_x);
        if (block.state[k] >= 2) taps.slope_x[t] = 0;
    }}
    for (int r = 0; r < R; ++r) {{
        const int row = fold(block.base[1][k] + r % T, height, border_y);
        const int slice = D == 3 ? fold(block.base[D - 1][k] + r / T, depth, border_z) : 0;
        const bool none = row < 0 || slice < 0 || nothing;
        taps.row[r] = none ? -1 : start + ((long long)slice * height + row) * row_texels;
        if (block.state[k] >= 2) taps.slope_y[r] = taps.slope_z[r] = 0;
    }}
}};

// A texel of a point inside, the t-th of a row, as four numbers: of three, nothing beyond the last of the row.
auto texel = [&](const real* row, int t) {{
    if (C == 4 || t < T - 1) return load(row + t * C);
    return T == 1 ? four{{row[0], row[1], row[2], 0}} : drop_first(load(row + t * C - 1));
}};

// Goes over the points that concern us; while one block of them is worked on, the memory brings the next one.
auto visit = [&](auto concerns, auto ask, auto work) {{
    constexpr bool all = {all_points};
    Block blocks[2];
    int members[2][K];  // of a block: who concerns us
    auto find = [&](int begin, int i) {{
        const int left = b - begin, count = left < K ? left : K;
        int found = 0;
        locate(begin, count, blocks[i]);
        for (int k = 0; !all && k < count; ++k) {{  // without a branch
            members[i][found] = k;
            found += concerns(blocks[i], k);
        }}
        return all ? count : found;
    }};
    auto member = [&](int i, int m) {{ return all ? m : members[i][m]; }};
    int count = find(a, 0);
    for (int m = 0; m < count; ++m) ask(blocks[0], member(0, m));
    for (int begin = a, i = 0; begin < b; begin += K, i = 1 - i) {{
        const int coming = find(begin + K, 1 - i);
        for (int m = 0; m < count; ++m) {{
            if (m < coming) ask(blocks[1 - i], member(1 - i, m));
            work(blocks[i], member(i, m), begin + member(i, m));
        }}
        for (int m = count; m < coming; ++m) ask(blocks[1 - i], member(1 - i, m));
        count = coming;
    }}
}};
"""

_SAMPLE = """
real* result = (real*)values.data;

auto look_up_inside = [&](const Block& block, int k, real* __restrict out) {
    const real* first = texels + block.first[k] * channels;
    Taps taps;
    weigh(block, k, taps);
    if (C == 3 || C == 4) {
        four sum;
        for (int r = 0; r < R; ++r) {
            const real* row = first + row_of(r) * C;
            four line = texel(row, 0) * taps.across[0];
            for (int t = 1; t < T; ++t) line = line + texel(row, t) * taps.across[t];
            sum = r ? sum + line * taps.along[r] : line * taps.along[r];
        }
        for (int c = 0; c < C; ++c) out[c] = sum[c];
        return;
    }
    for (int c = 0; c < channels; ++c) out[c] = 0;
    for (int r = 0; r < R; ++r) {
        const real* __restrict row = first + row_of(r) * channels;
        real w[T];
        for (int t = 0; t < T; ++t) w[t] = taps.along[r] * taps.across[t];
        for (int c = 0; c < channels; ++c) {
            real line = 0;
            for (int t = 0; t < T; ++t) line += w[t] * row[t * channels + c];
            out[c] += line;
        }
    }
};

auto look_up_at_border = [&](Block& block, int k, int n, real* __restrict out) {
    Taps taps;
    place_at_border(block, k, n, taps);
    for (int c = 0; c < channels; ++c) out[c] = 0;
    for (int r = 0; r < R; ++r)
        for (int t = 0; t < T; ++t)
            if (taps.row[r] >= 0 && taps.column[t] >= 0)
                for (int c = 0; c < channels; ++c)
                    out[c] += taps.along[r] * taps.across[t] * texels[(taps.row[r] + taps.column[t]) * channels + c];
};

visit(
    [](const Block&, int) { return true; },
    [&](const Block& block, int k) { ask_for_texels(texels, block.first[k]); },
    [&](Block& block, int k, int n) {
        real* out = result + (long long)n * channels;
        if (block.state[k] == 0) look_up_inside(block, k, out);
        else look_up_at_border(block, k, n, out);
    });
"""

# On the CPU a thread owns the texels of some rows: it goes over all points and adds what these rows get. Every texel
# gets its addends in the order of the points, whatever the number of threads. The thread that owns a point's first row
# writes the point's own gradient.
_GRADIENT = """
real* to_texels = (real*)image_gradient.data;
real* to_points = (real*)coordinate_gradient.data;
const real* upstream = (const real*)value_gradient.data;
const long long low = (long long)first_row * row_texels, high = (long long)stop_row * row_texels;
auto ours = [&](long long first) { return first >= low && first < high; };

auto add = [&](long long first, real weight, const real* __restrict g) {
    real* __restrict p = to_texels + first * channels;
    for (int c = 0; c < channels; ++c) {
#ifdef __CUDA_ARCH__
        wp::atomic_add(p + c, weight * g[c]);
#else
        p[c] += weight * g[c];
#endif
    }
};

auto dot = [&](const real* __restrict p, const real* __restrict g) {
    real sum = 0;
    if (C > 0) {
        for (int c = 0; c < C; ++c) sum += p[c] * g[c];
        return sum;
    }
    // eight sums side by side, added up in an order that does not depend on the machine
    real part[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    int c = 0;
    for (; c + 8 <= channels; c += 8)
        for (int i = 0; i < 8; ++i) part[i] += p[c + i] * g[c + i];
    for (int i = 0; c + i < channels; ++i) part[i] += p[c + i] * g[c + i];
    for (int i = 0; i < 4; ++i) part[i] += part[i + 4];
    return (part[0] + part[2]) + (part[1] + part[3]);
};

auto spread_inside = [&](const Block& block, int k, int n) {
    const real* __restrict g = upstream + (long long)n * channels;
    const long long first = block.first[k];
    Taps taps;
    weigh(block, k, taps);
    if (to_image)
        for (int r = 0; r < R; ++r)
            if (ours(first + row_of(r)))
                for (int t = 0; t < T; ++t) add(first + row_of(r) + t, taps.along[r] * taps.across[t], g);
    if (!to_coordinates || !ours(first)) return;
    real gradient[3] = {0, 0, 0};
    if (C == 3 || C == 4) {
        four slopes[3];
        for (int r = 0; r < R; ++r) {
            const real* row = texels + (first + row_of(r)) * C;
            four line = texel(row, 0) * taps.across[0], rise = texel(row, 0) * taps.slope_x[0];
            for (int t = 1; t < T; ++t) {
                line = line + texel(row, t) * taps.across[t];
                rise = rise + texel(row, t) * taps.slope_x[t];
            }
            const four parts[3] = {rise * taps.along[r], line * taps.slope_y[r], line * taps.slope_z[r]};
            for (int i = 0; i < D; ++i) slopes[i] = r ? slopes[i] + parts[i] : parts[i];
        }
        for (int i = 0; i < D; ++i)
            for (int c = 0; c < C; ++c) gradient[i] += slopes[i][c] * g[c];
    } else {
        for (int r = 0; r < R; ++r) {
            real line = 0, rise = 0;
            for (int t = 0; t < T; ++t) {
                const real value = dot(texels + (first + row_of(r) + t) * channels, g);
                line += taps.across[t] * value;
                rise += taps.slope_x[t] * value;
            }
            gradient[0] += taps.along[r] * rise;
            gradient[1] += taps.slope_y[r] * line;
            gradient[2] += taps.slope_z[r] * line;
        }
    }
    for (int i = 0; i < D; ++i) to_points[(long long)n * D + i] = gradient[i] * scale[i];
};

auto spread_at_border = [&](Block& block, int k, int n) {
    const real* g = upstream + (long long)n * channels;
    Taps taps;
    place_at_border(block, k, n, taps);
    const bool own = to_coordinates && ours(taps.row[0] < 0 ? start_of(n) : taps.row[0]);
    real gradient[3] = {0, 0, 0};
    for (int r = 0; r < R; ++r) {
        if (taps.row[r] < 0) continue;
        real line = 0, rise = 0;
        for (int t = 0; t < T; ++t) {
            if (taps.column[t] < 0) continue;
            const long long at = taps.row[r] + taps.column[t];
            if (to_image && ours(taps.row[r])) add(at, taps.along[r] * taps.across[t], g);
            if (!own) continue;
            const real value = dot(texels + at * channels, g);
            line += taps.across[t] * value;
            rise += taps.slope_x[t] * value;
        }
        gradient[0] += taps.along[r] * rise;
        gradient[1] += taps.slope_y[r] * line;
        gradient[2] += taps.slope_z[r] * line;
    }
    if (own)
        for (int i = 0; i < D; ++i) to_points[(long long)n * D + i] = gradient[i] * scale[i];
};

visit(
    [&](const Block& block, int k) {
        return block.state[k] != 0 || (block.first[k] < high && block.first[k] + row_of(R - 1) >= low);
    },
    [&](const Block& block, int k) {
        if (to_coordinates) ask_for_texels(texels, block.first[k]);
        if (to_image) ask_for_texels(to_texels, block.first[k]);
    },
    [&](Block& block, int k, int n) {
        if (block.state[k] == 0) spread_inside(block, k, n);
        else spread_at_border(block, k, n);
    });
"""


@cache
def make_sampling_kernels(real: Any, mode: str, dimensions: int, channels: int) -> SamplingKernels:
    """The kernels for `real` (`wp.float32` or `wp.float64`); `channels` is 1 to 4, or 0 for a number known later."""
    taps, first, shift, weights = FILTERS[mode]
    vec3 = wp.types.vector(3, real)
    prelude = partial(
        _PRELUDE.format,
        name="float" if real is wp.float32 else "double",
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

    @wp.func_native(prelude(all_points="true") + _SAMPLE)
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
        origin: real,
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
        origin: real,
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
            origin, scale, offset, i, wp.min(i + chunk, count), values,
        )  # fmt: skip

    @wp.func_native(prelude(all_points="false") + _GRADIENT)
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
        origin: real,
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
        origin: real,
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
            origin, scale, offset, i, wp.min(i + chunk, count), value_gradient, to_image, to_coordinates, first_row,
            stop_row, image_gradient, coordinate_gradient,
        )  # fmt: skip

    return SamplingKernels(sample, sample_gradient)
