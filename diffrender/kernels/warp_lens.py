"""The Warp kernels of lens cameras: projection, its inverse, and the gradients of both, for many points.

An item of a kernel is a part of a camera's points; gradients to the camera's parameters are summed part by part, so
that they do not depend on the number of threads. What a point gets is in `warp_lens_formulas`.

On the CPU a part is done in blocks of `lanes` points: loaded into local arrays, computed there by a loop without calls
and inner loops, which the compiler turns into vector instructions, and stored.
"""

# mypy: ignore-errors
# (Warp's language, not Python's)

from functools import cache
from typing import Any, NamedTuple

import warp as wp

from .warp_lens_formulas import (
    BRACKET,
    EXTENT,
    FOCAL,
    LIMIT,
    NUM_LIMITS,
    NUM_PARAMETERS,
    TABLE,
    UNTILT,
    LensShape,
    make_lens_formulas,
    summed_parameters,
)

PLAIN_STEPS = {
    wp.float32: 2,
    wp.float64: 3,
}  # of Newton's method for all points, before those are looked at that it does not serve
# Loops over a camera's parameters are unrolled, those over lanes are not.
OPTIONS = {"enable_backward": False, "max_unroll": NUM_PARAMETERS}


class LensKernels(NamedTuple):
    """The kernels for one floating-point type and shape of lens."""

    project: Any
    project_backward: Any
    starts: Any
    unproject: Any
    unproject_backward: Any


@cache
def make_lens_kernels(real: Any, shape: LensShape, lanes: int) -> LensKernels:
    """The kernels for `real` (`wp.float32` or `wp.float64`); nothing compiles before a launch."""
    lens = make_lens_formulas(real, shape)
    vec2, vec3, extra = lens.vec2, lens.vec3, lens.extra
    block1, block3, block5, block6 = (wp.types.matrix((n, lanes), real) for n in (1, 3, 5, 6))
    num_summed = len(summed_parameters(shape))
    sums_block = wp.types.matrix((num_summed, lanes), real)
    distorts, tilt, depth_is_z = int(shape.distorts), int(shape.tilt), int(shape.depth_is_z)
    plain_steps, nodes = PLAIN_STEPS[real], TABLE + 1

    # Kernels: `parts` parts of `part` points for each camera of [cameras, points].

    @wp.kernel(module="unique", module_options=OPTIONS)
    def project(
        points: wp.array2d(dtype=vec3),
        parameters: wp.array2d(dtype=real),
        parts: int,
        part: int,
        first: int,
        xy: wp.array2d(dtype=vec2),
        depth: wp.array2d(dtype=real),
    ):
        item = first + wp.tid()
        camera = item // parts
        begin = (item - camera * parts) * part
        end = wp.min(begin + part, points.shape[1])
        k = lens.load_row(parameters, camera)
        p = block3()
        for i in range(begin, end, lanes):
            for lane in range(lanes):
                here = wp.min(i + lane, end - 1)
                point = points[camera, here]
                for axis in range(3):
                    p[axis, lane] = point[axis]
            for lane in range(lanes):
                turned = lens.to_camera(k, vec3(p[0, lane], p[1, lane], p[2, lane])) + lens.translation(k)
                pixel = lens.pixel_of(k, turned[0], turned[1], turned[2])
                p[0, lane] = pixel[0]
                p[1, lane] = pixel[1]
                p[2, lane] = lens.depth_of(turned)
            for lane in range(wp.min(lanes, end - i)):
                xy[camera, i + lane] = vec2(p[0, lane], p[1, lane])
                depth[camera, i + lane] = p[2, lane]

    @wp.kernel(module="unique", module_options=OPTIONS)
    def project_backward(
        points: wp.array2d(dtype=vec3),
        parameters: wp.array2d(dtype=real),
        of_xy: wp.array2d(dtype=vec2),
        of_depth: wp.array2d(dtype=real),
        with_points: int,
        parts: int,
        part: int,
        first: int,
        of_points: wp.array2d(dtype=vec3),
        of_parameters: wp.array2d(dtype=wp.float64),
    ):
        item = first + wp.tid()
        camera = item // parts
        begin = (item - camera * parts) * part
        end = wp.min(begin + part, points.shape[1])
        k = lens.load_row(parameters, camera)
        p = block3()
        upstream = block3()
        sums = sums_block()
        for i in range(begin, end, lanes):
            for lane in range(lanes):
                here = wp.min(i + lane, end - 1)
                point = points[camera, here]
                for axis in range(3):
                    p[axis, lane] = point[axis]
                above = of_xy[camera, here]
                upstream[0, lane] = above[0]
                upstream[1, lane] = above[1]
                upstream[2, lane] = of_depth[camera, here]
                if i + lane >= end:  # the last point again: it counts once
                    upstream[0, lane] = real(0.0)
                    upstream[1, lane] = real(0.0)
                    upstream[2, lane] = real(0.0)
            for lane in range(lanes):
                point = vec3(p[0, lane], p[1, lane], p[2, lane])
                turned = lens.to_camera(k, point) + lens.translation(k)
                e = lens.scale_of(k, turned[0], turned[1], turned[2])
                u = e[0] * turned[0]
                v = e[0] * turned[1]
                f = vec3(real(1.0), real(0.0), real(1.0))
                bent = vec2(u, v)
                if distorts == 1:
                    f = lens.radial(k, u * u + v * v)
                    bent = lens.distort(k, f, u, v)
                gx = upstream[0, lane]
                gy = upstream[1, lane]
                at_bent = lens.pull_to_distorted(k, bent, gx, gy)
                at_plane = lens.pull_to_plane(k, f, u, v, at_bent)
                out = lens.pull_to_point(e, turned[0], turned[1], at_plane)
                if depth_is_z == 1:
                    out = out + vec3(real(0.0), real(0.0), upstream[2, lane])
                else:
                    out = out + turned * (upstream[2, lane] * lens.inverse_or_zero(wp.length(turned)))
                moved = lens.to_world(k, out)
                for axis in range(3):
                    p[axis, lane] = moved[axis]
                by = lens.pull_to_parameters(k, e, f, bent, turned[0], turned[1], gx, gy, at_bent, at_plane)
                by = lens.add_pose(by, out, point, out)
                for j in range(num_summed):
                    sums[j, lane] = sums[j, lane] + by[j]
            if with_points == 1:
                for lane in range(wp.min(lanes, end - i)):
                    of_points[camera, i + lane] = vec3(p[0, lane], p[1, lane], p[2, lane])
        for j in range(num_summed):
            total = wp.float64(0.0)
            for lane in range(lanes):
                total = total + wp.float64(sums[j, lane])
            of_parameters[item, j] = total

    @wp.kernel(module="unique", module_options=OPTIONS)
    def starts(
        parameters: wp.array2d(dtype=real),
        limits: wp.array2d(dtype=real),
        first: int,
        ratios: wp.array2d(dtype=real),
    ):
        """The undistorted radius over the distorted one, at `TABLE` + 1 squares of the latter up to EXTENT."""
        item = first + wp.tid()
        camera = item // nodes
        i = item - camera * nodes
        ratio = real(1.0)
        if i > 0:
            rho = wp.sqrt(limits[camera, EXTENT] * real(i) / real(TABLE))
            ratio = lens.undistorted_radius(lens.load_row(parameters, camera), rho, limits[camera, BRACKET]) / rho
        ratios[camera, i] = ratio

    @wp.kernel(module="unique", module_options=OPTIONS)
    def unproject(
        xy: wp.array2d(dtype=vec2),
        parameters: wp.array2d(dtype=real),
        limits: wp.array2d(dtype=real),
        ratios: wp.array2d(dtype=real),
        depth: wp.array2d(dtype=real),
        with_pose: int,
        parts: int,
        part: int,
        first: int,
        directions: wp.array2d(dtype=vec3),
        seen: wp.array2d(dtype=wp.uint8),
        points: wp.array2d(dtype=vec3),
    ):
        item = first + wp.tid()
        camera = item // parts
        begin = (item - camera * parts) * part
        k = lens.load_row(parameters, camera)
        m = extra()
        for i in range(NUM_LIMITS):
            m[i] = limits[camera, i]
        end = wp.min(begin + part, xy.shape[1])
        p = block5()  # the distorted plane, depth, the plane
        rays = block6()  # and points
        found = block1()
        for i in range(begin, end, lanes):
            for lane in range(lanes):
                here = wp.min(i + lane, end - 1)
                pixel = xy[camera, here]
                p[0, lane] = pixel[0]
                p[1, lane] = pixel[1]
                if with_pose == 1:
                    p[2, lane] = depth[camera, here]
            for lane in range(lanes):
                a = (p[0, lane] - k[FOCAL + 2]) / k[FOCAL]
                b = (p[1, lane] - k[FOCAL + 3]) / k[FOCAL + 1]
                if tilt == 1:
                    c = real(1.0) / (m[UNTILT + 6] * a + m[UNTILT + 7] * b + m[UNTILT + 8])
                    x = (m[UNTILT] * a + m[UNTILT + 1] * b + m[UNTILT + 2]) * c
                    b = (m[UNTILT + 3] * a + m[UNTILT + 4] * b + m[UNTILT + 5]) * c
                    a = x
                p[0, lane] = a
                p[1, lane] = b
                p[3, lane] = a
                p[4, lane] = b
                found[0, lane] = real(1.0)
            if distorts == 1:
                for lane in range(lanes):
                    x = p[0, lane]
                    y = p[1, lane]
                    ratio = lens.tabled_start(m, ratios, camera, x, y)
                    u = ratio * x
                    v = ratio * y
                    for _step in range(plain_steps):
                        at = lens.plain_step(k, u, v, x, y)
                        u = at[0]
                        v = at[1]
                    p[3, lane] = u
                    p[4, lane] = v
                    found[0, lane] = lens.is_solution(k, m, u, v, x, y)
                for lane in range(lanes):
                    if found[0, lane] == real(0.0):
                        target = vec2(p[0, lane], p[1, lane])
                        plane = lens.undistort(k, m, lens.start(k, m, target), target)
                        p[3, lane] = plane[0]
                        p[4, lane] = plane[1]
                        found[0, lane] = plane[2]
            for lane in range(lanes):
                u = p[3, lane]
                v = p[4, lane]
                there = real(0.0)
                if u * u + v * v < m[LIMIT]:
                    there = found[0, lane]
                ray = lens.direction_of(k, u, v)
                scale = real(1.0)
                if depth_is_z == 0:
                    scale = real(1.0) / wp.length(ray)
                x = ray[0] * scale
                y = ray[1] * scale
                z = ray[2] * scale
                if there == real(0.0):
                    x = real(0.0)
                    y = real(0.0)
                    z = real(1.0)
                point = lens.to_world(k, vec3(x, y, z) * p[2, lane] - lens.translation(k))
                found[0, lane] = there
                rays[0, lane] = x
                rays[1, lane] = y
                rays[2, lane] = z
                for axis in range(3):
                    rays[3 + axis, lane] = point[axis]
            for lane in range(wp.min(lanes, end - i)):
                directions[camera, i + lane] = vec3(rays[0, lane], rays[1, lane], rays[2, lane])
                seen[camera, i + lane] = wp.uint8(found[0, lane])
                if with_pose == 1:
                    points[camera, i + lane] = vec3(rays[3, lane], rays[4, lane], rays[5, lane])

    @wp.kernel(module="unique", module_options=OPTIONS)
    def unproject_backward(
        directions: wp.array2d(dtype=vec3),
        seen: wp.array2d(dtype=wp.uint8),
        parameters: wp.array2d(dtype=real),
        depth: wp.array2d(dtype=real),
        upstream: wp.array2d(dtype=vec3),
        with_pose: int,
        parts: int,
        part: int,
        first: int,
        of_xy: wp.array2d(dtype=vec2),
        of_depth: wp.array2d(dtype=real),
        of_parameters: wp.array2d(dtype=wp.float64),
    ):
        """By the implicit function theorem: step by step, the transposed inverses of the projection's derivatives."""
        item = first + wp.tid()
        camera = item // parts
        begin = (item - camera * parts) * part
        end = wp.min(begin + part, directions.shape[1])
        k = lens.load_row(parameters, camera)
        rays = block3()
        c = block3()
        away = block1()
        sums = sums_block()
        for i in range(begin, end, lanes):
            for lane in range(lanes):
                here = wp.min(i + lane, end - 1)
                ray = directions[camera, here]
                above = upstream[camera, here]
                if (
                    seen[camera, here] == wp.uint8(0) or i + lane >= end
                ):  # rays unseen point ahead: they divide by no zero
                    above = vec3(real(0.0), real(0.0), real(0.0))
                for axis in range(3):
                    rays[axis, lane] = ray[axis]
                    c[axis, lane] = above[axis]
                away[0, lane] = real(1.0)
                if with_pose == 1:
                    away[0, lane] = depth[camera, here]
            for lane in range(lanes):
                p = vec3(rays[0, lane], rays[1, lane], rays[2, lane])
                g = vec3(c[0, lane], c[1, lane], c[2, lane])
                turned = lens.to_camera(k, g)
                e = lens.scale_of(k, p[0], p[1], p[2])
                u = e[0] * p[0]
                v = e[0] * p[1]
                f = vec3(real(1.0), real(0.0), real(1.0))
                bent = vec2(u, v)
                if distorts == 1:
                    f = lens.radial(k, u * u + v * v)
                    bent = lens.distort(k, f, u, v)
                at_plane = lens.push_to_plane(e, p, turned * away[0, lane])
                at_bent = lens.push_to_distorted(k, f, u, v, at_plane)
                out = lens.push_to_pixel(k, bent, at_bent)
                by = lens.pull_to_parameters(k, e, f, bent, p[0], p[1], -out[0], -out[1], -at_bent, -at_plane)
                by = lens.add_pose(by, p * away[0, lane] - lens.translation(k), g, -turned)
                for j in range(num_summed):
                    sums[j, lane] = sums[j, lane] + by[j]
                c[0, lane] = out[0]
                c[1, lane] = out[1]
                c[2, lane] = wp.dot(turned, p)
            for lane in range(wp.min(lanes, end - i)):
                of_xy[camera, i + lane] = vec2(c[0, lane], c[1, lane])
                if with_pose == 1:
                    of_depth[camera, i + lane] = c[2, lane]
        for j in range(num_summed):
            total = wp.float64(0.0)
            for lane in range(lanes):
                total = total + wp.float64(sums[j, lane])
            of_parameters[item, j] = total

    return LensKernels(project, project_backward, starts, unproject, unproject_backward)
