"""Rotations in other clothes, against scipy and kornia; derivatives at every angle, at zero and near half a turn."""

import kornia
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from diffrender.cameras import (
    matrix_to_quaternion,
    matrix_to_rotation_6d,
    quaternion_to_matrix,
    rotation_6d_to_matrix,
    se3_exp,
    se3_log,
    so3_exp,
    so3_log,
)

ANGLES = (0.0, 1e-12, 1e-7, 1e-3, 0.099, 0.2, 1.0, 2.5, 3.1, torch.pi - 1e-5)
AXES = torch.nn.functional.normalize(
    torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, -1], [1, 1, 0], [-1, 2, 0.5], [3, -1, -2], [1e-9, 1, 0]]).double(),
    dim=-1,
)


def vectors() -> Tensor:
    """[70, 3] axis-angles of all `ANGLES` about all `AXES`."""
    return (torch.tensor(ANGLES, dtype=torch.float64)[:, None, None] * AXES).reshape(-1, 3)


def test_so3_exp_is_scipys_rotation() -> None:
    vectors = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2
    expected = torch.from_numpy(Rotation.from_rotvec(vectors.numpy()).as_matrix())
    torch.testing.assert_close(so3_exp(vectors), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-9, 1e-5, 1.0, 3.1])
def test_exponentials_have_right_gradients_at_every_angle(size: float) -> None:
    twist = torch.tensor([0.5, -0.2, 0.3, 0.6, 0.0, 0.8], dtype=torch.float64)
    twist = (twist * torch.tensor([1.0, 1.0, 1.0, size, size, size])).requires_grad_()
    assert torch.autograd.gradcheck(se3_exp, (twist,))
    assert torch.autograd.gradcheck(so3_exp, (twist[3:].detach().requires_grad_(),))


def test_se3_exp_turns_about_its_screw_axis() -> None:
    # A half turn about z while moving along x: a half circle of diameter 2 / pi, along y.
    R, t = se3_exp(torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0, torch.pi], dtype=torch.float64))
    torch.testing.assert_close(R, torch.diag(torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64)), rtol=0, atol=1e-14)
    torch.testing.assert_close(t, torch.tensor([0.0, 2 / torch.pi, 0.0], dtype=torch.float64), rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logarithm_is_accurate_relative_to_the_angle(dtype: torch.dtype) -> None:
    """Also for tiny angles, of which the trace knows nothing, and near half a turn."""
    given = vectors().to(dtype)
    found = so3_log(so3_exp(given))
    length = given.norm(dim=-1, keepdim=True)
    # Near half a turn the axis is what the eigenvector of a rounded matrix is; the sign of 1e-12 gets lost in no entry.
    tolerance = 20 * torch.finfo(dtype).eps * torch.maximum(length, torch.where(length > 1, length, 0.0))
    if dtype == torch.float32:  # pi - 1e-5 is half a turn within the rounding of the matrix: either sign
        flip = ((found * given).sum(-1, keepdim=True) < 0) & (length > 3.14)
        found = torch.where(flip, -found, found)
        tolerance = torch.where(length > 3.14, 1e-4, tolerance)
    assert ((found - given).abs() <= tolerance).all()


def test_quaternions_are_those_of_scipy_with_w_first() -> None:
    R = so3_exp(vectors())
    expected = torch.from_numpy(Rotation.from_matrix(R.numpy()).as_quat(canonical=True))[:, [3, 0, 1, 2]]
    torch.testing.assert_close(matrix_to_quaternion(R), expected, rtol=0, atol=1e-15 * 8)
    torch.testing.assert_close(quaternion_to_matrix(3.0 * expected), R, rtol=0, atol=1e-15 * 8)
    torch.testing.assert_close(quaternion_to_matrix(-expected), R, rtol=0, atol=1e-15 * 8)


def test_kornia_agrees() -> None:
    given = vectors()[14:]  # from 1e-7
    C = kornia.geometry.conversions
    R = so3_exp(given)
    torch.testing.assert_close(C.axis_angle_to_rotation_matrix(given), R, rtol=0, atol=1e-14)
    torch.testing.assert_close(C.quaternion_to_rotation_matrix(matrix_to_quaternion(R)), R, rtol=0, atol=1e-14)
    torch.testing.assert_close(C.rotation_matrix_to_axis_angle(R), so3_log(R), rtol=0, atol=1e-14)


@pytest.mark.parametrize("angle", ANGLES)
def test_logarithms_undo_exponentials_with_right_derivatives_at_every_angle(angle: float) -> None:
    for axis in AXES[[2, 4]]:
        twist = torch.cat([torch.tensor([0.5, -0.2, 0.3]).double(), angle * axis])
        torch.testing.assert_close(se3_log(*se3_exp(twist)), twist, rtol=0, atol=1e-14)
        twist.requires_grad_()

        def there_and_back(twist: Tensor) -> Tensor:
            return se3_log(*se3_exp(twist))

        assert torch.autograd.gradcheck(there_and_back, (twist,))
        assert torch.autograd.gradgradcheck(there_and_back, (twist,))
        (jacobian,) = (torch.autograd.functional.jacobian(there_and_back, twist.detach()),)
        # The identity's; near half a turn differences of numbers near 1 are divided by the distance to it.
        torch.testing.assert_close(jacobian, torch.eye(6).double(), rtol=0, atol=1e-8)


def test_half_a_turn_has_an_axis_of_either_sign() -> None:
    for axis in AXES:
        found = so3_log(2 * axis[:, None] * axis - torch.eye(3).double())
        torch.testing.assert_close(found.norm(), torch.tensor(torch.pi).double(), rtol=0, atol=1e-7)
        assert (found / torch.pi @ axis).abs() > 1 - 1e-12


@pytest.mark.parametrize("angle", ANGLES)
def test_conversions_have_right_gradients_at_every_angle(angle: float) -> None:
    R = so3_exp(angle * AXES[4]).requires_grad_()
    for function in (matrix_to_quaternion, so3_log, matrix_to_rotation_6d):
        assert torch.autograd.gradcheck(function, (R,))
    q = matrix_to_quaternion(R.detach()).requires_grad_()
    assert torch.autograd.gradcheck(quaternion_to_matrix, (q,))
    assert torch.autograd.gradgradcheck(quaternion_to_matrix, (q,))
    six = (matrix_to_rotation_6d(R.detach()) * torch.tensor([2.0, 2, 2, 0.5, 0.5, 0.5])).requires_grad_()
    assert torch.autograd.gradcheck(rotation_6d_to_matrix, (six,))


def test_six_numbers_are_two_columns_made_orthonormal() -> None:
    six = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    R = rotation_6d_to_matrix(six)
    assert R.shape == (3, 4, 3, 3)
    torch.testing.assert_close(R @ R.mT, torch.eye(3).double().expand(3, 4, 3, 3), rtol=0, atol=1e-14)
    assert (torch.linalg.det(R) > 0).all()
    # The formula of Zhou et al.: Gram and Schmidt.
    a, b = six[..., :3], six[..., 3:]
    first = a / a.norm(dim=-1, keepdim=True)
    second = b - (first * b).sum(-1, keepdim=True) * first
    torch.testing.assert_close(R[..., 0], first)
    torch.testing.assert_close(R[..., 1], second / second.norm(dim=-1, keepdim=True))
    torch.testing.assert_close(rotation_6d_to_matrix(matrix_to_rotation_6d(R)), R)


def test_what_is_no_rotation_is_named() -> None:
    with pytest.raises(ValueError, match=r"quaternion must end in 4; got \(3,\) float32: \(w, x, y, z\)"):
        quaternion_to_matrix(torch.zeros(3))
    with pytest.raises(ValueError, match="quaternion must not be zero"):
        quaternion_to_matrix(torch.zeros(2, 4))
    with pytest.raises(ValueError, match="cross product of the two vectors in six must not be zero"):
        rotation_6d_to_matrix(torch.tensor([1.0, 2, 3, 2, 4, 6]))
    with pytest.raises(ValueError, match="six must end in 6"):
        rotation_6d_to_matrix(torch.zeros(5))
    for function in (matrix_to_quaternion, so3_log, matrix_to_rotation_6d):
        with pytest.raises(ValueError, match=r"R must end in \(3, 3\); got \(4, 3\)"):
            function(torch.zeros(4, 3))
    with pytest.raises(ValueError, match="t must end in 3"):
        se3_log(torch.eye(3), torch.zeros(2))


def test_empty_batches_stay_empty() -> None:
    assert quaternion_to_matrix(torch.zeros(0, 4)).shape == (0, 3, 3)
    assert so3_log(torch.zeros(2, 0, 3, 3)).shape == (2, 0, 3)
    assert rotation_6d_to_matrix(torch.zeros(0, 6)).shape == (0, 3, 3)
