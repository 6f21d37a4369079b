"""Functions of one number that several kernels share, in float32."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def is_nan(x: tl.tensor) -> tl.tensor:
    """Whether a number is NaN."""
    return x != x  # noqa: PLR0124  # true for NaN alone


@triton.jit
def ordered_bits(x: tl.tensor) -> tl.tensor:
    """Bits of a number ≥ 0 as an integer with the same order; NaN of either sign is above all."""
    return tl.where(is_nan(x), 0x7FC00000, x.to(tl.int32, bitcast=True))


@triton.jit
def ranked(bits: tl.tensor, index: tl.tensor) -> tl.tensor:
    """A positive 64-bit key: larger ``bits`` give a larger key, and among equal bits the lower ``index`` does; 0 means none."""
    return (bits.to(tl.int64) << 32) | (0x7FFFFFFF - index).to(tl.int64)


@triton.jit
def index_of(key: tl.tensor) -> tl.tensor:
    """The index in a key of :func:`ranked`."""
    return 0x7FFFFFFF - (key & 0x7FFFFFFF).to(tl.int32)


@triton.jit
def least(a: tl.tensor, b: tl.tensor) -> tl.tensor:
    """The lesser of two numbers; NaN if either is, unlike the hardware's minimum."""
    return tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def greatest(a: tl.tensor, b: tl.tensor) -> tl.tensor:
    """The greater of two numbers; NaN if either is."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def reciprocal(x: tl.tensor) -> tl.tensor:
    """1 / x, rounded to nearest."""
    return tl.div_rn(tl.full(x.shape, 1.0, tl.float32), x)


@triton.jit
def decay(x: tl.tensor) -> tl.tensor:
    """e^x for x ≤ 0 within 1 unit in the last place; 0 below −87.

    The hardware's e^x is wrong by several units, more for larger |x|. Here e^x = 2^n · e^r, and n·ln 2 is subtracted in two parts, of
    which the first is exact; the polynomial's coefficients minimise the largest relative error of 1 + r + r²·Q(r) on |r| ≤ ½ ln 2 (3e-9
    before rounding).
    """
    n = tl.floor(x * 1.4426950408889634 + 0.5)
    r = (x - n * 0.693359375) + n * 2.12194440e-4
    q = r * 0.0013814541357572568 + 0.008368745170669984
    q = q * r + 0.04166839076477745
    q = q * r + 0.1666652039837842
    q = q * r + 0.49999993432193485
    scale = ((n.to(tl.int32) + 127) << 23).to(tl.float32, bitcast=True)
    return tl.where(x < -87.0, 0.0, (1.0 + (r + r * r * q)) * scale)


@triton.jit
def sigmoid(x: tl.tensor) -> tl.tensor:
    """1 / (1 + e^−x)."""
    return reciprocal(1.0 + tl.exp(-x))


@triton.jit
def power(x: tl.tensor, EXPONENT: tl.constexpr) -> tl.tensor:
    """x^EXPONENT for x ≥ 0; square root and the usual whole exponents without a logarithm."""
    if EXPONENT == 0.0:
        result = tl.full(x.shape, 1.0, tl.float32)
    elif EXPONENT == 0.5:
        result = tl.sqrt_rn(x)
    elif EXPONENT == 1.0:
        result = x
    elif EXPONENT == 2.0:
        result = x * x
    elif EXPONENT == 6.0:
        square = x * x
        result = square * square * square
    else:
        result = tl.exp2(EXPONENT * tl.log2(x))
    return result


@triton.jit
def arctangent(x: tl.tensor) -> tl.tensor:
    """atan(x) within 2 units in the last place.

    A polynomial, because the interpreter has no library functions, and the tested code shall be the code that runs. Its coefficients
    minimise the largest relative error of z + z³·P(z²) on [0, 1] (iteratively reweighted least squares at Chebyshev nodes; 3e-9 before
    rounding).
    """
    magnitude = tl.abs(x)
    beyond = magnitude > 1.0
    z = tl.where(beyond, reciprocal(magnitude), magnitude)
    s = z * z
    p = s * -0.0017936202930286527 + 0.01091460045427084
    p = p * s - 0.031177837401628494
    p = p * s + 0.05795758590102196
    p = p * s - 0.0840345025062561
    p = p * s + 0.10952185839414597
    p = p * s - 0.14264242351055145
    p = p * s + 0.19998548924922943
    p = p * s - 0.33333298563957214
    inner = z + z * (s * p)
    result = tl.where(beyond, 1.5707963267948966 - inner, inner)
    return tl.where(x < 0, -result, result)


@triton.jit
def log1p(x: tl.tensor) -> tl.tensor:
    """log(1 + x) for x ≥ 0 to a few units in the last place, small x included: the rounding of 1 + x is divided out again."""
    u = 1.0 + x
    rounded = u - 1.0
    vanished = rounded == 0.0
    return tl.where(vanished, x, tl.log(u) * (x / tl.where(vanished, 1.0, rounded)))


@triton.jit
def log_beside_one(x: tl.tensor) -> tl.tensor:
    """log(1 + x) for x > −1 to a few units in the last place, also where x is near 0, where the hardware's logarithm has lost its digits.

    There log(1 + x) = 2 artanh(x / (2 + x)).
    """
    s = tl.div_rn(x, 2.0 + x)
    z = s * s
    near = 2.0 * s + 2.0 * s * z * (0.3333333333333333 + z * (0.2 + z * (0.14285714285714285 + z * 0.1111111111111111)))
    return tl.where(tl.abs(x) < 0.4, near, tl.log(1.0 + x))


@triton.jit
def one_less_decay(x: tl.tensor) -> tl.tensor:
    """1 − e^x for x ≤ 0, with the digits of a small x."""
    series = tl.full(x.shape, 1.0, tl.float32)
    for term in tl.static_range(7):
        series = 1.0 + series * x * (1.0 / (8 - term))
    return tl.where(x > -0.35, -x * series, 1.0 - decay(x))


@triton.jit
def principal(angle: tl.tensor) -> tl.tensor:
    """The angle in (−π, π] that points in the same direction, where differences of the angle itself would lose digits; up to 1e5."""
    n = tl.floor(angle * 0.15915494309189535 + 0.5)
    return tl.where(tl.abs(angle) > 8.0, ((angle - n * 6.28125) - n * 1.9350051879882812e-3) - n * 3.019916050561733e-7, angle)


@triton.jit
def sine_cosine(angle: tl.tensor) -> tl.tuple:
    """Sine and cosine within 2 units in the last place, for angles up to a thousand.

    Polynomials on |r| ≤ π/4, of Cephes: as for the arctangent, the tested code shall be the code that runs.
    """
    n = tl.floor(angle * 0.6366197723675814 + 0.5)
    r = ((angle - n * 1.5703125) - n * 4.837512969970703125e-4) - n * 7.54978995489188216e-8
    z = r * r
    sin = ((z * -1.9515295891e-4 + 8.3321608736e-3) * z - 1.6666654611e-1) * z * r + r
    cos = ((z * 2.443315711809948e-5 - 1.388731625493765e-3) * z + 4.166664568298827e-2) * (z * z) - 0.5 * z + 1.0
    quadrant = n.to(tl.int32)
    odd = (quadrant & 1) != 0
    below = (quadrant & 2) != 0
    turned_sin = tl.where(odd, cos, sin)
    turned_cos = tl.where(odd, -sin, cos)
    return tl.where(below, -turned_sin, turned_sin), tl.where(below, -turned_cos, turned_cos)
