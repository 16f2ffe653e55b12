"""Mitchell's approximation: multiplication becomes addition, and the error is never above 1/9.

Write ``p = 2**k (1 + x)`` with ``x`` in [0, 1). Mitchell replaces ``log2(p)`` by ``L(p) = k + x``, which is
how an IEEE 754 number is already written down: exponent bits, then fraction bits. Adding two such words
multiplies the numbers, except that ``log2(1 + x)`` is a little larger than ``x``. Chapter mitchell derives
everything below; each docstring names the equation it implements.

The routines accept NumPy arrays, and where they say so torch tensors. PyTorch is imported on first use only.

References
----------
Su Jianlin, "Mitchell approximation: multiplication becomes addition, error at most 1/9", 2020,
https://kexue.fm/archives/7991.
J. N. Mitchell, "Computer Multiplication and Division Using Binary Logarithms", IRE Transactions on Electronic
Computers EC-11(4), 512-517, 1962, doi:10.1109/TEC.1962.5219391.
"""

from __future__ import annotations

import copy
import functools
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import torch

__all__ = [
    "FORMATS",
    "HOROWITZ_PJ",
    "MAX_PRODUCT_ERROR",
    "MAX_QUOTIENT_ERROR",
    "MEAN_PRODUCT_ERROR",
    "Minifloat",
    "MitchellLinear",  # noqa: F822 - made by __getattr__
    "WorstError",
    "carry_levels_matmul",
    "convert",
    "divide",
    "energy_saving",
    "exp2",
    "float16_worst_error",
    "gap",
    "jacobsthal",
    "lmul_offset",
    "log2",
    "matmul",
    "multiply",
    "multiply_int",
    "operand_decomposition",
    "raw_multiply",
    "reciprocal",
    "relative_error",
    "rsqrt",
    "slope",
]

MAX_PRODUCT_ERROR = Fraction(1, 9)
"""Largest relative error of a product, always too small (eq-mitchell-max-error, chapter mitchell)."""

MAX_QUOTIENT_ERROR = Fraction(1, 8)
"""Largest relative error of a quotient, always too large (eq-mitchell-quotient-bound, chapter mitchell)."""

MEAN_PRODUCT_ERROR = 0.038487993917358146
"""Mean relative error of a product for uniform fractions (eq-mitchell-mean, chapter mitchell)."""

HOROWITZ_PJ: Mapping[str, float] = MappingProxyType(
    {
        "int8 add": 0.03,
        "int32 add": 0.1,
        "int8 multiply": 0.2,
        "int32 multiply": 3.1,
        "float16 add": 0.4,
        "float32 add": 0.9,
        "float16 multiply": 1.1,
        "float32 multiply": 3.7,
        "read 64 bits, 8 KB SRAM": 10.0,
        "read 64 bits, 32 KB SRAM": 20.0,
        "read 64 bits, 1 MB SRAM": 100.0,
        "read 64 bits, DRAM (low)": 1300.0,
        "read 64 bits, DRAM (high)": 2600.0,
    }
)
"""Energy per operation in picojoules, 45 nm at 0.9 V.

M. Horowitz, "Computing's energy problem (and what we can do
about it)", ISSCC 2014.
"""

_CHUNK = 16_384  # elements of an elementwise pass: the half dozen arrays of a chunk stay in a 1 MB L2 cache
_TILE = 131_072  # products in one tile of `matmul`, 512 KB of float32: also a matter of L2
_TERMS = 256  # terms summed in float32 before float64 takes over; fixes the error and the head room of a sum


# --- The pseudo-logarithm -----------------------------------------------------------------------------------


def log2(x: ArrayLike) -> NDArray[np.float64]:
    """Return Mitchell's logarithm, the exponent plus the fraction (eq-mitchell-log, chapter mitchell).

    Parameters
    ----------
    x : array_like of real numbers, any shape
        Positive and finite.

    Returns
    -------
    ndarray of float64, the shape of `x`
        ``k + x`` for ``2**k (1 + x)``; below the true logarithm by 0 to 0.0860713 (`gap`). The sum is rounded
        to float64, hence exact for every float16 and float32 number, but not for every float64 one.

    Raises
    ------
    ValueError
        If an entry is zero, negative, infinite or NaN.

    Examples
    --------
    >>> log2([1.0, 3.0, 12.3])
    array([0.    , 1.5   , 3.5375])
    """
    p = np.asarray(x, dtype=np.float64)
    if not np.all((p > 0) & (p < np.inf)):
        raise ValueError("log2: x must be positive and finite; it holds zero, a negative number, inf or NaN")
    half, exponent = np.frexp(p)  # p = half * 2**exponent with half in [1/2, 1)
    return np.asarray(exponent - 1 + (2 * half - 1))


def exp2(u: ArrayLike) -> NDArray[np.float64]:
    """Return Mitchell's power of two, the inverse of `log2` (eq-mitchell-exp, chapter mitchell).

    Parameters
    ----------
    u : array_like of real numbers, any shape
        Finite.

    Returns
    -------
    ndarray of float64, the shape of `u`
        ``2**n (1 + u - n)`` with ``n = floor(u)``; above ``2**u`` by 0 to 6.15 %.

    Raises
    ------
    ValueError
        If an entry is infinite or NaN.

    Examples
    --------
    >>> exp2([0.0, 1.5, 3.5375])
    array([ 1. ,  3. , 12.3])
    """
    u = np.asarray(u, dtype=np.float64)
    if not np.all(np.isfinite(u)):
        raise ValueError("exp2: u must be finite; it holds inf or NaN")
    floor = np.floor(u)
    exponent = np.clip(floor, -1100, 1100).astype(np.int64)  # beyond, the result is 0 or inf in any case
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(np.ldexp(1 + (u - floor), exponent))


def gap(x: ArrayLike) -> NDArray[np.float64]:
    """Return how far Mitchell's logarithm falls short on one octave (eq-mitchell-gap, chapter mitchell).

    Parameters
    ----------
    x : array_like of real numbers, any shape
        Fractions in [0, 1].

    Returns
    -------
    ndarray of float64, the shape of `x`
        ``log2(1 + x) - x``: zero at 0 and 1, at most 0.0860713 (eq-mitchell-gap-max).

    Raises
    ------
    ValueError
        If a fraction lies outside [0, 1].

    Examples
    --------
    >>> float(gap(0.442695).round(7))
    0.0860713
    """
    x = np.asarray(x, dtype=np.float64)
    if not np.all((x >= 0) & (x <= 1)):
        raise ValueError("gap: x must lie in [0, 1]")
    return np.asarray(np.log1p(x) / math.log(2) - x)


def relative_error(
    x: ArrayLike,
    y: ArrayLike,
    *,
    op: Literal["multiply", "divide"] = "multiply",
    offset: float = 0.0,
    base: float = 2.0,
) -> NDArray[np.float64]:
    """Return the signed relative error of the real approximation at two fractions (eq-mitchell-base).

    In base ``b`` an operand is ``b**k (1 + (b - 1) x)`` and its logarithm ``k + x``; base 2 gives
    eq-mitchell-error-nocarry, eq-mitchell-error-carry and eq-mitchell-quotient of chapter mitchell.

    Parameters
    ----------
    x, y : array_like of real numbers, shapes that broadcast
        Fractions in [0, 1).
    op : {"multiply", "divide"}
        Which approximation to judge.
    offset : float
        Constant added in the log domain, in (-1, 1).
    base : float
        Above 1.

    Returns
    -------
    ndarray of float64
        ``approximation / truth - 1``. Without offset in base ``b`` a product lies in
        ``[-((b-1)/(b+1))**2, 0]``; in base 2 a quotient lies in ``[0, 1/8]``.

    Raises
    ------
    ValueError
        If a fraction, the offset or the base is out of range, `op` is unknown, or the shapes do not
        broadcast.

    Examples
    --------
    >>> float(relative_error(0.5, 0.5).round(4)), float(relative_error(0.5, 0.5, base=3))
    (-0.1111, -0.25)
    """
    _check_choice("op", op, ("multiply", "divide"))
    _check_offset(offset)
    if not 1 < base < math.inf:
        raise ValueError(f"relative_error: base must be finite and above 1, got {base!r}")
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    _check_broadcast(x.shape, y.shape)
    if not (np.all((x >= 0) & (x < 1)) and np.all((y >= 0) & (y < 1))):
        raise ValueError("relative_error: the fractions x and y must lie in [0, 1)")
    beta = base - 1
    p, q = 1 + beta * x, 1 + beta * y
    u, truth = (x + y + offset, p * q) if op == "multiply" else (x - y + offset, p / q)
    n = np.floor(u)
    return np.asarray(base**n * (1 + beta * (u - n)) / truth - 1)


def lmul_offset(fraction_bits: int) -> float:
    """Return the constant that L-Mul adds in the log domain (eq-mitchell-lmul, chapter mitchell).

    Parameters
    ----------
    fraction_bits : int
        Fraction bits m of the format, at least 1.

    Returns
    -------
    float
        ``2**-l(m)`` with ``l(m) = m`` up to 3, ``l(4) = 3``, and 4 above. H. Luo, W. Sun, "Addition is All
        You Need for Energy-efficient Language Models", arXiv:2410.00907.

    Raises
    ------
    TypeError, ValueError
        If `fraction_bits` is not an integer, or below 1.

    Examples
    --------
    >>> [lmul_offset(m) for m in (2, 3, 4, 7)]
    [0.25, 0.125, 0.125, 0.0625]
    """
    m = _check_count("fraction_bits", fraction_bits, at_least=1)
    return 2.0 ** -(m if m <= 3 else 3 if m == 4 else 4)


def slope(p: ArrayLike, q: ArrayLike, *, offset: float = 0.0) -> NDArray[np.float64]:
    """Return the derivative of the Mitchell product in `p` (eq-mitchell-slope, chapter mitchell).

    Parameters
    ----------
    p, q : array_like of real numbers, shapes that broadcast
        Finite. At a kink the slope to its right (away from zero) is taken.
    offset : float
        Constant added in the log domain, in (-1, 1).

    Returns
    -------
    ndarray of float64
        ``sign(q) 2**(l + floor(x + y + offset))``, within a factor of two of `q` if there is no offset. At
        ``p = 0`` the product has no derivative; there it is `q`, the mean slope over an octave
        (eq-mitchell-slope-mean).

    Raises
    ------
    ValueError
        If an entry is not finite, the offset is out of range, or the shapes do not broadcast.

    Examples
    --------
    >>> slope([1.25, 1.75, 0.0], -1.5)
    array([-1. , -2. , -1.5])
    """
    _check_offset(offset)
    p, q = np.asarray(p, dtype=np.float64), np.asarray(q, dtype=np.float64)
    _check_broadcast(p.shape, q.shape)
    if not (np.all(np.isfinite(p)) and np.all(np.isfinite(q))):
        raise ValueError("slope: p and q must be finite; one holds inf or NaN")
    half_p, half_q = np.frexp(np.abs(p))[0], np.frexp(np.abs(q))[0]
    carry = np.floor(2 * half_p - 1 + 2 * half_q - 1 + offset).astype(np.int64)
    with np.errstate(over="ignore", under="ignore"):
        power = np.ldexp(np.sign(q), np.frexp(q)[1] - 1 + carry)
    return np.asarray(np.where(p == 0, q, power))


# --- Elementwise product and quotient -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Format:
    """An IEEE 754 binary format, as the integers that its words are compared with."""

    exponent_bits: int
    fraction_bits: int

    @property
    def bits(self) -> int:
        return 1 + self.exponent_bits + self.fraction_bits

    @property
    def word(self) -> np.dtype:
        return np.dtype(f"uint{self.bits}")

    @property
    def one(self) -> int:  # the word of 1.0, which is the bias moved to the exponent's place
        return ((1 << self.exponent_bits - 1) - 1) << self.fraction_bits

    @property
    def smallest(self) -> int:  # the word of the smallest normal number
        return 1 << self.fraction_bits

    @property
    def infinity(self) -> int:
        return ((1 << self.exponent_bits) - 1) << self.fraction_bits

    @property
    def sign(self) -> int:
        return 1 << self.bits - 1

    @property
    def magnitude(self) -> int:
        return self.sign - 1


_NATIVE = {
    "float16": _Format(5, 10),
    "bfloat16": _Format(8, 7),
    "float32": _Format(8, 23),
    "float64": _Format(11, 52),
}
_FLOAT32 = _NATIVE["float32"]


@dataclass(frozen=True)
class _Operation:
    """A Mitchell product or quotient in one format: ``word = combine(word_a, word_b) + shift``."""

    format: _Format
    offset: int  # in units of the last fraction bit
    divide: bool

    @property
    def combine(self) -> np.ufunc:
        return np.subtract if self.divide else np.add

    @property
    def shift(self) -> int:
        return self.offset + (self.format.one if self.divide else -self.format.one)

    @property
    def wrapped_shift(self) -> np.unsignedinteger:
        return self.format.word.type(self.shift % (1 << self.format.bits))

    def stays_normal(self, low_a: int, high_a: int, low_b: int, high_b: int) -> bool:
        """Say whether magnitudes in these closed ranges are normal and give only normal results."""
        low, high = (low_a - high_b, high_a - low_b) if self.divide else (low_a + low_b, high_a + high_b)
        smallest, infinity = self.format.smallest, self.format.infinity
        operands = min(low_a, low_b) >= smallest and max(high_a, high_b) < infinity
        return operands and low + self.shift >= smallest and high + self.shift < infinity


def multiply(a: Any, b: Any, *, offset: float = 0.0) -> Any:
    """Return the Mitchell product, a sum of words (eq-mitchell-product, eq-mitchell-ieee, chapter mitchell).

    The result is the Mitchell product of the two real values, rounded once to their format, to nearest even.
    Only subnormal results need that rounding. From ``2**(emax + 1)`` on it is infinite; NaN, infinities and
    signed zeros follow IEEE 754.

    Parameters
    ----------
    a, b : ndarray of float16, float32, float64, or CPU tensor of float16, bfloat16, float32, float64
        Both from the same library, of the same dtype, with shapes that broadcast. Python numbers adapt.
    offset : float
        Constant added in the log domain, in (-1, 1), rounded to the format's last fraction bit.

    Returns
    -------
    ndarray or tensor
        The operands' type and dtype, cut from any autograd graph. Without offset the relative error of a
        normal result lies in [-1/9, 0] (eq-mitchell-max-error); it is 0 where an operand is a power of two.

    Raises
    ------
    TypeError
        If the dtypes or libraries differ or are not supported.
    ValueError
        If the offset is out of range or the shapes do not broadcast.

    Examples
    --------
    >>> multiply(np.float32([3, 12.5, -0.0]), np.float32([3, 4.5, 7]))
    array([ 8., 54., -0.], dtype=float32)
    """
    return _elementwise(a, b, offset, divide=False)


def divide(a: Any, b: Any, *, offset: float = 0.0) -> Any:
    """Return the Mitchell quotient, a subtraction of words (eq-mitchell-quotient, chapter mitchell).

    Rounding and special values are those of `multiply`: the exact inverse of it (eq-mitchell-group) wherever
    neither overflows or falls below the normal numbers.

    Parameters
    ----------
    a, b : ndarray of float16, float32, float64, or CPU tensor of float16, bfloat16, float32, float64
        Dividend and divisor, from the same library, of the same dtype, with shapes that broadcast. Python
        numbers adapt.
    offset : float
        Constant added in the log domain, in (-1, 1), rounded to the format's last fraction bit.

    Returns
    -------
    ndarray or tensor
        The operands' type and dtype, cut from any autograd graph. Without offset the relative error of a
        normal result lies in [0, 1/8] (eq-mitchell-quotient-bound).

    Raises
    ------
    TypeError
        If the dtypes or libraries differ or are not supported.
    ValueError
        If the offset is out of range or the shapes do not broadcast.

    Examples
    --------
    >>> divide(np.float32([8, 1, 0]), np.float32([3, 1.5, 5]))
    array([3.  , 0.75, 0.  ], dtype=float32)
    """
    return _elementwise(a, b, offset, divide=True)


def raw_multiply(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the article's one-liner, a bare sum of words (eq-mitchell-ieee, chapter mitchell).

    Right only where both operands and the result are normal; zeros, overflow and NaN give nonsense, on
    purpose. `multiply` is the routine to use.

    Parameters
    ----------
    a, b : ndarray of float32, shapes that broadcast

    Returns
    -------
    ndarray of float32
        The integer sum, wrap-around and all, read as a float.

    Raises
    ------
    TypeError
        If an operand is not a float32 ndarray.
    ValueError
        If the shapes do not broadcast.

    Examples
    --------
    >>> raw_multiply(np.float32([3, 0]), np.float32([3, 0.5]))
    array([  8., -inf], dtype=float32)
    """
    for name, value in (("a", a), ("b", b)):
        if not isinstance(value, np.ndarray | np.float32) or value.dtype.name != "float32":
            raise TypeError(f"raw_multiply: {name} must be a float32 ndarray, got {_describe(value)}")
    _check_broadcast(a.shape, b.shape)
    operation = _Operation(_FLOAT32, 0, divide=False)
    words = np.add(_words(a, _FLOAT32), _words(b, _FLOAT32))
    return np.add(words, operation.wrapped_shift, out=words if words.shape else None).view(np.float32)


def _elementwise(a: Any, b: Any, offset: float, divide: bool) -> Any:
    _check_offset(offset)
    form = _common_format(a, b)
    a, b = _adapt(a, b), _adapt(b, a)
    _check_broadcast(tuple(a.shape), tuple(b.shape))
    operation = _Operation(form, round(offset * (1 << form.fraction_bits)), divide)
    result = _apply(operation, _words(a, form), _words(b, form))
    if _is_tensor(a):
        return _as_tensor(result, a.dtype)
    floats = result.view(f"float{form.bits}")
    return floats if isinstance(a, np.ndarray) or isinstance(b, np.ndarray) else floats[()]


def _apply(operation: _Operation, words_a: NDArray, words_b: NDArray) -> NDArray:
    """Run the operation in chunks, so that temporaries stay in cache whatever the shapes and strides."""
    steps = np.nditer(
        [words_a, words_b, None],
        flags=["external_loop", "buffered", "zerosize_ok"],
        op_flags=[["readonly"], ["readonly"], ["writeonly", "allocate"]],
        buffersize=_CHUNK,
    )
    with steps:
        result = steps.operands[2]
        for a, b, out in steps:
            if out.size:
                _chunk(operation, a, b, out)
    return result


def _chunk(operation: _Operation, a: NDArray, b: NDArray, out: NDArray) -> None:
    """Write the result's words: two integer operations if the ranges prove that they suffice."""
    operation.combine(a, b, out=out)
    np.add(out, operation.wrapped_shift, out=out)  # the sign bits exclusive-or by themselves
    size_a, size_b = a & operation.format.magnitude, b & operation.format.magnitude
    if not operation.stays_normal(int(size_a.min()), int(size_a.max()), int(size_b.min()), int(size_b.max())):
        _repair(operation, a, b, out)


def _repair(operation: _Operation, a: NDArray, b: NDArray, out: NDArray) -> None:
    """Put signed zeros where an operand is zero, and exact results where the integer sum is wrong."""
    size_a, size_b = a & operation.format.magnitude, b & operation.format.magnitude
    gate = size_a if operation.divide else np.minimum(size_a, size_b)
    # 0 for a zero, else -1: an AND with it is ten times faster than np.where on a random pattern
    keep = np.right_shift(np.negative(gate.view(f"int{operation.format.bits}")), operation.format.bits - 1)
    np.bitwise_and(out, keep.view(out.dtype), out=out)
    np.bitwise_or(out, (a ^ b) & operation.format.sign, out=out)
    # Less one, a zero wraps around to the top: the minimum of the others remains. A zero divisor must show
    low_a = int((size_a - 1).min()) + 1
    low_b = int(size_b.min()) if operation.divide else int((size_b - 1).min()) + 1
    if not operation.stays_normal(low_a, int(size_a.max()), low_b, int(size_b.max())):
        rest = np.flatnonzero(_unsettled(operation, size_a, size_b))
        out[rest] = _exact(operation, a[rest], b[rest])


def _unsettled(operation: _Operation, size_a: NDArray, size_b: NDArray) -> NDArray[np.bool_]:
    """Mark what is neither a normal result of normal operands nor a plain zero."""
    size = operation.combine(size_a, size_b)
    size += operation.wrapped_shift
    normal_b = _is_normal(operation.format, size_b)
    normal = _is_normal(operation.format, size_a) & normal_b & _is_normal(operation.format, size)
    if operation.divide:
        zero = (size_a == 0) & normal_b
    else:
        zero = (np.minimum(size_a, size_b) == 0) & (np.maximum(size_a, size_b) < operation.format.infinity)
    return ~(normal | zero)


def _is_normal(form: _Format, size: NDArray) -> NDArray[np.bool_]:
    # One unsigned comparison for two: what lies below the smallest normal number wraps around to the top
    return (size - form.smallest) < (form.infinity - form.smallest)


def _exact(operation: _Operation, a: NDArray, b: NDArray) -> NDArray:
    """Return the words for operands and results of every kind, by the definition."""
    form = operation.format
    size_a, size_b = ((words & form.magnitude).astype(np.int64) for words in (a, b))
    (exponent_a, fraction_a), (exponent_b, fraction_b) = _split(form, size_a), _split(form, size_b)
    # Exponents and fractions apart: the sum of two whole float64 logarithms would not fit into 64 bits
    fraction = operation.combine(fraction_a, fraction_b) + operation.offset
    bias = form.one >> form.fraction_bits
    exponent = operation.combine(exponent_a, exponent_b) + (bias if operation.divide else -bias)
    exponent += fraction >> form.fraction_bits
    size = _round(form, exponent, fraction & (form.smallest - 1))
    size = _specials(operation, size_a, size_b, size)
    return size.astype(form.word) | (a ^ b) & form.sign


def _split(form: _Format, size: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return biased exponents and fractions, subnormal numbers normalised first."""
    exponent, fraction = size >> form.fraction_bits, size & (form.smallest - 1)
    length = np.frexp(fraction.astype(np.float64))[1]  # bit length, exact below 2**53
    lift = np.where(exponent == 0, form.fraction_bits + 1 - length, 0)
    return np.where(exponent == 0, 1 - lift, exponent), (fraction << lift) & (form.smallest - 1)


def _round(form: _Format, exponent: NDArray[np.int64], fraction: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the magnitudes nearest to ``2**(exponent - bias) (1 + fraction)``, ties to even."""
    # Two places more than the significand has bits already give zero
    drop = np.clip(1 - exponent, 1, form.fraction_bits + 2)
    significand = fraction + form.smallest
    half_less_one = (np.int64(1) << drop - 1) - 1
    subnormal = (significand + half_less_one + (significand >> drop & 1)) >> drop
    top = form.infinity >> form.fraction_bits
    normal = np.where(exponent >= top, form.infinity, (np.minimum(exponent, top) << form.fraction_bits) + fraction)
    return np.where(exponent < 1, subnormal, normal)


def _specials(
    operation: _Operation, size_a: NDArray[np.int64], size_b: NDArray[np.int64], size: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Replace the magnitudes that involve zeros, infinities and NaN by those of IEEE 754."""
    infinity = operation.format.infinity
    zero_a, infinite_a = size_a == 0, size_a == infinity
    zero_b, infinite_b = size_b == 0, size_b == infinity
    if operation.divide:  # a / b = a * (1 / b)
        zero_b, infinite_b = infinite_b, zero_b
    invalid = zero_a & infinite_b | infinite_a & zero_b | (np.maximum(size_a, size_b) > infinity)
    size = np.where(zero_a | zero_b, 0, size)
    size = np.where(infinite_a | infinite_b, infinity, size)
    return np.where(invalid, infinity + operation.format.smallest // 2, size)  # a quiet NaN


# --- Operands: NumPy, torch, Python numbers -----------------------------------------------------------------


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")  # whoever passes a tensor has imported torch
    return torch is not None and isinstance(value, torch.Tensor)


def _describe(value: Any) -> str:
    if _is_tensor(value):
        return f"{value.dtype} tensor"
    if isinstance(value, np.ndarray | np.generic):
        return f"NumPy {value.dtype.name}"
    return f"Python {type(value).__name__}"


def _kind(value: Any) -> tuple[str, str] | None:
    """Return library and dtype, None for a Python number."""
    if _is_tensor(value):
        return "torch", str(value.dtype).removeprefix("torch.")
    if isinstance(value, np.ndarray | np.generic) and not isinstance(value, np.ma.MaskedArray):
        return "numpy", value.dtype.name
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return None if number else ("Python", type(value).__name__)


def _common_format(a: Any, b: Any) -> _Format:
    kinds = {_kind(a), _kind(b)} - {None}
    if not kinds:
        return _NATIVE["float64"]
    if len(kinds) == 1:
        library, name = kinds.copy().pop()
        if name in _NATIVE and (library == "torch" or name != "bfloat16"):
            return _NATIVE[name]
    hint = "; for 4 to 8 bits see FORMATS" if any(name.startswith("float8") for _, name in kinds) else ""
    raise TypeError(
        "operands must be arrays or tensors of one dtype, float16, float32, float64 or torch.bfloat16, "
        f"got {_describe(a)} and {_describe(b)}{hint}"
    )


def _adapt(value: Any, other: Any) -> Any:
    """Give a Python number the type and dtype of the other operand (float64 if that is a number as well)."""
    if _kind(value) is not None:
        return value
    if _is_tensor(other):
        import torch

        return torch.tensor(value, dtype=torch.float64).to(other.dtype)
    with np.errstate(over="ignore"):
        return np.float64(value) if _kind(other) is None else other.dtype.type(value)


def _words(value: Any, form: _Format) -> NDArray:
    """Return a view of the words as unsigned integers, without a copy where the memory allows it."""
    if not _is_tensor(value):
        native = np.asarray(value).astype(value.dtype.newbyteorder("="), copy=False)
        return native.view(form.word)
    import torch

    if value.device.type != "cpu" or value.layout != torch.strided:
        raise TypeError(f"tensors must be dense and on the CPU, got {value.layout} on {value.device}")
    signed = {16: torch.int16, 32: torch.int32, 64: torch.int64}[form.bits]  # NumPy has no bfloat16
    return value.detach().resolve_neg().view(signed).numpy().view(form.word)


def _as_tensor(words: NDArray, dtype: torch.dtype) -> torch.Tensor:
    import torch

    return torch.from_numpy(words.view(f"int{8 * words.itemsize}")).view(dtype)


# --- Checks of arguments ------------------------------------------------------------------------------------


def _check_offset(offset: float) -> None:
    if not -1 < offset < 1:
        raise ValueError(f"offset must lie strictly between -1 and 1, got {offset!r}")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def _check_count(name: str, value: int, at_least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an integer, got {_describe(value)}")
    if value < at_least:
        raise ValueError(f"{name} must be at least {at_least}, got {value}")
    return int(value)


def _check_broadcast(shape_a: tuple[int, ...], shape_b: tuple[int, ...]) -> None:
    try:
        np.broadcast_shapes(shape_a, shape_b)
    except ValueError:
        raise ValueError(f"the shapes {shape_a} and {shape_b} do not broadcast") from None


# --- Integers -----------------------------------------------------------------------------------------------


def multiply_int(p: Any, q: Any, *, corrections: int = 0, method: Literal["mitchell", "iterative"] = "mitchell") -> Any:
    """Return the product of integers by shifts and additions (eq-mitchell-integer, chapter mitchell).

    Parameters
    ----------
    p, q : int, or ndarray of integers below 2**31 in magnitude, shapes that broadcast
        Any sign; a Python integer adapts to an array.
    corrections : int
        How often the error, itself a product, is approximated and added.
    method : {"mitchell", "iterative"}
        Mitchell's product and correction (eq-mitchell-levels), or the block without its carry branch
        (eq-mitchell-iterative; Z. Babic, A. Avramovic, P. Bulic, doi:10.1016/j.micpro.2010.07.001).

    Returns
    -------
    int, or ndarray of int64
        An integer, never truncated and never above the true magnitude. The relative error after c corrections
        is at most ``1 / jacobsthal(c)**2`` (found for all 12-bit pairs, c <= 3), and below ``4**-(c+1)`` for
        "iterative", which is exact once c + 1 reaches the smaller number of one bits.

    Raises
    ------
    TypeError
        If an operand is a float or bool, or `corrections` is not an integer.
    ValueError
        If `corrections` is negative, `method` unknown, or the shapes do not broadcast.
    OverflowError
        If an array holds 2**31 or more in magnitude.

    Examples
    --------
    >>> multiply_int(3, 3), multiply_int(7, -11), multiply_int(171, 171, corrections=3)
    (8, -72, 29240)
    """
    _check_choice("method", method, ("mitchell", "iterative"))
    corrections = _check_count("corrections", corrections, at_least=0)
    p, q = _integers(p, q)
    block = _mitchell_block if method == "mitchell" else _basic_block
    product, rest_p, rest_q = block(abs(p), abs(q))
    for _ in range(corrections):
        if not np.any(rest_p) or not np.any(rest_q):
            break
        more, rest_p, rest_q = block(rest_p, rest_q)
        product = product + more
    return _signed(product, p, q)


def operand_decomposition(p: Any, q: Any) -> Any:
    """Return the product of integers as two Mitchell products (eq-mitchell-od, chapter mitchell).

    ``p q = (p | q)(p & q) + (p & ~q)(~p & q)``: the factors have fewer one bits, hence more often exact
    products. After V. Mahalingam, N. Ranganathan, IEEE Transactions on Computers 55(12), 2006.

    Parameters
    ----------
    p, q : int, or ndarray of integers below 2**31 in magnitude, shapes that broadcast
        Any sign; the magnitudes are decomposed.

    Returns
    -------
    int, or ndarray of int64
        Relative error at most 1/9, as for one product; over 8-bit operands its mean falls from 3.79 % to 2.03
        %.

    Raises
    ------
    TypeError, ValueError, OverflowError
        As `multiply_int`.

    Examples
    --------
    >>> operand_decomposition(3, 3), operand_decomposition(7, 11), 7 * 11
    (8, 76, 77)
    """
    p, q = _integers(p, q)
    u, v = abs(p), abs(q)
    product = _mitchell_block(u | v, u & v)[0] + _mitchell_block(u & ~v, ~u & v)[0]
    return _signed(product, p, q)


def jacobsthal(corrections: int) -> int:
    """Return the worst operand of `multiply_int` after so many corrections (eq-mitchell-jacobsthal).

    Parameters
    ----------
    corrections : int
        c, at least 0.

    Returns
    -------
    int
        ``J_c = (2**(2 c + 3) + 1) / 3``. The square of J_c comes out one too small: a relative error of 1 /
        J_c**2 (chapter mitchell).

    Raises
    ------
    TypeError, ValueError
        If `corrections` is not an integer, or negative.

    Examples
    --------
    >>> [jacobsthal(c) for c in range(4)]
    [3, 11, 43, 171]
    """
    c = _check_count("corrections", corrections, at_least=0)
    return ((1 << 2 * c + 3) + 1) // 3


def _mitchell_block(p: Any, q: Any) -> tuple[Any, Any, Any]:
    """Return M(p, q) and the two factors of its error; each line serves Python integers and arrays alike."""
    top_p, top_q = _leading(p), _leading(q)
    cross = (p - top_p) * top_q + (q - top_q) * top_p  # products with powers of two are shifts
    one = top_p * top_q
    carry = cross >= one
    product = one + cross + carry * (cross - one)
    return product, p - top_p + carry * (3 * top_p - 2 * p), q - top_q + carry * (3 * top_q - 2 * q)


def _basic_block(p: Any, q: Any) -> tuple[Any, Any, Any]:
    """Return ``p q - r t`` and the factors r, t of its error."""
    top_p, top_q = _leading(p), _leading(q)
    r, t = p - top_p, q - top_q
    return top_p * top_q + r * top_q + t * top_p, r, t


def _leading(p: Any) -> Any:
    """Return the highest power of two in each magnitude, 0 for 0."""
    if isinstance(p, int):
        return (1 << p.bit_length()) >> 1
    return np.left_shift(np.int64(1), np.frexp(p.astype(np.float64))[1]) >> 1


def _signed(product: Any, p: Any, q: Any) -> Any:
    if isinstance(product, int):
        return -product if (p < 0) != (q < 0) else product
    return np.asarray(np.sign(p) * np.sign(q) * product)


def _integers(p: Any, q: Any) -> tuple[Any, Any]:
    if type(p) is int and type(q) is int:
        return p, q
    p, q = _integer_array("p", p), _integer_array("q", q)
    _check_broadcast(p.shape, q.shape)
    return p, q


def _integer_array(name: str, value: Any) -> NDArray[np.int64]:
    if not isinstance(value, int | np.ndarray | np.generic) or isinstance(value, bool | np.ma.MaskedArray):
        raise TypeError(f"{name} must be an integer or an ndarray of integers, got {_describe(value)}")
    array = np.asarray(value)
    if array.dtype.kind not in "iuO" or (array.dtype.kind == "O" and not isinstance(value, int)):
        raise TypeError(f"{name} must be an integer or an ndarray of integers, got {_describe(value)}")
    if array.size and max(int(array.max()), -int(array.min())) >= 1 << 31:
        raise OverflowError(f"{name} must stay below 2**31 in magnitude in an array; use Python integers beyond")
    return array.astype(np.int64)


# --- Powers of the word -------------------------------------------------------------------------------------


def reciprocal(x: NDArray[np.float32], *, magic: int = 0x7F000000, newton: int = 0) -> NDArray[np.float64]:
    """Return 1/x from one subtraction of words, then Newton steps (eq-mitchell-newton, chapter mitchell).

    Parameters
    ----------
    x : ndarray of float32
        Positive and normal.
    magic : int
        The word to subtract from, in (0, 2**31); the default is twice the word of 1.0.
    newton : int
        Newton steps ``y (2 - x y)``, each of which squares the relative error.

    Returns
    -------
    ndarray of float64, the shape of `x`
        Relative error in [0, 1/8], then up to 1/64, 1/4096, 2**-24 below. Steps are taken in float64, so that
        the error of the method is seen and not that of rounding.

    Raises
    ------
    TypeError
        If `x` is not float32, or a count is not an integer.
    ValueError
        If an entry is not positive and normal, or a count is out of range.

    Examples
    --------
    >>> reciprocal(np.float32([1, 1.5, 4])), reciprocal(np.float32([1.5]), newton=1)
    (array([1.  , 0.75, 0.25]), array([0.65625]))
    """
    words, x = _power_operand("reciprocal", x, magic)
    y = _word_value(magic - words)
    for _ in range(_check_count("newton", newton, at_least=0)):
        y = y * (2 - x * y)
    return y


def rsqrt(x: NDArray[np.float32], *, magic: int = 0x5F3759DF, newton: int = 1) -> NDArray[np.float64]:
    """Return 1/sqrt(x) from half the word, then Newton steps (eq-mitchell-rsqrt, chapter mitchell).

    The default constant is that of the well-known fast inverse square root (see C. Lomont, 2003).

    Parameters
    ----------
    x : ndarray of float32
        Positive and normal.
    magic : int
        The word to subtract from, in (0, 2**31). 0x5F400000 is the plain rule, without an offset.
    newton : int
        Newton steps ``y (1.5 - 0.5 x y**2)``.

    Returns
    -------
    ndarray of float64, the shape of `x`
        Relative error in [-3.44 %, 3.40 %], after one step in [-0.1752 %, 0]. Steps are taken in float64.

    Raises
    ------
    TypeError
        If `x` is not float32, or a count is not an integer.
    ValueError
        If an entry is not positive and normal, or a count is out of range.

    Examples
    --------
    >>> rsqrt(np.float32([4.0, 0.25]), magic=0x5F400000, newton=0), rsqrt(np.float32([4.0])).round(4)
    (array([0.5, 2. ]), array([0.4992]))
    """
    words, x = _power_operand("rsqrt", x, magic)
    y = _word_value(magic - (words >> 1))
    for _ in range(_check_count("newton", newton, at_least=0)):
        y = y * (1.5 - 0.5 * x * y * y)
    return y


def _power_operand(routine: str, x: Any, magic: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    if not isinstance(x, np.ndarray | np.float32) or x.dtype.name != "float32":
        raise TypeError(f"{routine}: x must be a float32 ndarray, got {_describe(x)}")
    if _check_count("magic", magic, at_least=1) >= 1 << 31:
        raise ValueError(f"magic must be below 2**31, got {magic:#x}")
    words = _words(x, _FLOAT32)
    if not np.all(_is_normal(_FLOAT32, words)):  # a sign bit fails the test as well
        raise ValueError(f"{routine}: x must be positive and normal; it holds a zero, subnormal, negative, inf or NaN")
    return words.astype(np.int64), np.asarray(x, dtype=np.float64)


def _word_value(words: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return what words mean as Mitchell logarithms: the float32 they spell, and its continuation."""
    return exp2((words - _FLOAT32.one) / _FLOAT32.smallest)


# --- Small formats ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Minifloat:
    """A float of a few bits, with the Mitchell product as an addition of codes (eq-mitchell-minifloat).

    With up to two fraction bits the sum of two codes is a nearest value to the product (chapter mitchell).

    Parameters
    ----------
    exponent_bits, fraction_bits, bias : int
        Layout of a code: a sign bit, the exponent plus bias, the fraction.
    max_code : int
        Code of the largest finite value. Codes above it are NaN, but the first of a reserved exponent is
        infinity.

    Raises
    ------
    ValueError
        If a field is out of range.

    Examples
    --------
    >>> tiny = FORMATS["float4_e2m1fn"]
    >>> tiny.decode(range(8))
    array([0. , 0.5, 1. , 1.5, 2. , 3. , 4. , 6. ])
    >>> tiny.multiply(3, [2, 3, 4, 7])  # 1.5 times 1, 1.5, 2, 6: the last is out of range
    (array([3, 4, 5, 8]), array([ True,  True,  True, False]))
    """

    exponent_bits: int
    fraction_bits: int
    bias: int
    max_code: int

    def __post_init__(self) -> None:
        if not (1 <= self.exponent_bits <= 10 and 0 <= self.fraction_bits <= 52):
            given = f"{self.exponent_bits} and {self.fraction_bits}"
            raise ValueError(f"Minifloat: want 1 to 10 exponent bits and 0 to 52 fraction bits, got {given}")
        if not 1 << self.fraction_bits <= self.max_code < 1 << self.bits - 1:
            raise ValueError(f"Minifloat: max_code must be a normal positive code, got {self.max_code:#x}")

    @property
    def bits(self) -> int:
        """Width of a code, sign included."""
        return 1 + self.exponent_bits + self.fraction_bits

    def decode(self, codes: ArrayLike) -> NDArray[np.float64]:
        """Return the values of codes.

        Parameters
        ----------
        codes : array_like of integers in [0, 2**bits), any shape

        Returns
        -------
        ndarray of float64, the shape of `codes`
            With inf and NaN where the format has them.

        Raises
        ------
        TypeError, ValueError
            If the codes are not integers, or out of range.

        Examples
        --------
        >>> FORMATS["float8_e5m2"].decode([0x3C, 0xBE, 0x7B, 0x7C, 0x7F])
        array([ 1.0000e+00, -1.5000e+00,  5.7344e+04,         inf,         nan])
        """
        size, negative = self._fields(codes)
        exponent, fraction = size >> self.fraction_bits, size & ((1 << self.fraction_bits) - 1)
        implicit = np.where(exponent > 0, 1 << self.fraction_bits, 0)
        place = np.maximum(exponent, 1) - self.bias - self.fraction_bits
        value = np.ldexp((implicit + fraction).astype(np.float64), place)
        value = np.where(size > self.max_code, np.nan, value)
        value = np.where((size == self._reserved) & (size > self.max_code), np.inf, value)
        return np.asarray(np.where(negative, -value, value))

    def multiply(self, codes_a: ArrayLike, codes_b: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the sums of codes and whether each is a Mitchell product (eq-mitchell-minifloat).

        Parameters
        ----------
        codes_a, codes_b : array_like of integers in [0, 2**bits), shapes that broadcast

        Returns
        -------
        codes : ndarray of int64
            What an adder of the format's width gives.
        valid : ndarray of bool
            True where both operands are normal and the result is normal and finite; only there `codes` has a
            meaning.

        Raises
        ------
        TypeError, ValueError
            If the codes are not integers or out of range, or the shapes do not broadcast.

        Examples
        --------
        >>> FORMATS["float8_e4m3fn"].multiply(0x3C, 0x3C)  # 1.5 * 1.5 -> 2
        (array(64), array(True))
        """
        (size_a, negative_a), (size_b, negative_b) = self._fields(codes_a), self._fields(codes_b)
        _check_broadcast(size_a.shape, size_b.shape)
        size = np.asarray(size_a + size_b - (self.bias << self.fraction_bits))
        valid = self._normal(size_a) & self._normal(size_b) & self._normal(size)
        sign = np.asarray(negative_a ^ negative_b).astype(np.int64) << self.bits - 1
        return np.asarray((size + sign) & ((1 << self.bits) - 1)), np.asarray(valid)

    @property
    def _reserved(self) -> int:  # where an IEEE format has its infinity
        return ((1 << self.exponent_bits) - 1) << self.fraction_bits

    def _normal(self, size: NDArray[np.int64]) -> NDArray[np.bool_]:
        return (size >= 1 << self.fraction_bits) & (size <= self.max_code)

    def _fields(self, codes: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        codes = np.asarray(codes)
        if codes.dtype.kind not in "iu" and codes.size:
            raise TypeError(f"codes must be integers, got {codes.dtype.name}")
        if codes.size and not 0 <= int(codes.min()) <= int(codes.max()) < 1 << self.bits:
            raise ValueError(f"codes must lie in [0, {1 << self.bits})")
        codes = codes.astype(np.int64)
        return codes & ((1 << self.bits - 1) - 1), codes >> self.bits - 1 == 1


FORMATS: dict[str, Minifloat] = {
    "float4_e2m1fn": Minifloat(2, 1, 1, 0x07),
    "float6_e2m3fn": Minifloat(2, 3, 1, 0x1F),
    "float6_e3m2fn": Minifloat(3, 2, 3, 0x1F),
    "float8_e4m3fn": Minifloat(4, 3, 7, 0x7E),
    "float8_e5m2": Minifloat(5, 2, 15, 0x7B),
}
"""The small formats of the OCP specifications, under their names in ml_dtypes."""


@dataclass(frozen=True)
class WorstError:
    """What `float16_worst_error` found (eq-mitchell-max-error, chapter mitchell).

    Parameters
    ----------
    pairs : int
        Unordered pairs examined.
    worst : Fraction
        Largest relative error of a product.
    negative, exact : int
        Pairs whose product is too large, and exactly right.
    """

    pairs: int
    worst: Fraction
    negative: int
    exact: int


def float16_worst_error() -> WorstError:
    """Return the error of `multiply` over every pair of float16 (eq-mitchell-max-error, chapter mitchell).

    The domain is all unordered pairs of positive normal numbers whose Mitchell product is normal. `multiply`
    is run on every one of them. Errors are then worked out in integers for the octave [1, 2), and the words
    of every other pair of octaves are compared, bit by bit, with those of [1, 2) moved by the exponents: an
    equal word is the same number times a power of two, hence the same relative error.

    Returns
    -------
    WorstError
        353,378,304 pairs, worst error 1/9, none negative.

    Raises
    ------
    ArithmeticError
        If the words of two octaves are not those of [1, 2) moved, which would be a defect of `multiply`.

    Examples
    --------
    >>> float16_worst_error()  # takes a second  # doctest: +SKIP
    WorstError(pairs=353378304, worst=Fraction(1, 9), negative=0, exact=690870)
    """
    form = _NATIVE["float16"]
    steps = np.arange(form.smallest, dtype=np.uint16)
    a, b = np.repeat(steps, len(steps)), np.tile(steps, len(steps))  # (fraction a * fraction b,)
    octave = multiply((a + form.one).view(np.float16), (b + form.one).view(np.float16)).view(np.uint16)
    seen = np.zeros(len(a), dtype=np.int64)  # how often each pair of fractions occurred
    for exponent_a, exponent_b in _octaves(form):
        seen += _moved_products(form, a, b, octave, exponent_a, exponent_b)
    truth = (a.astype(np.int64) + form.smallest) * (b.astype(np.int64) + form.smallest)
    significand = (octave.astype(np.int64) & (form.smallest - 1)) + form.smallest
    deficit = truth - (significand * form.smallest << (octave - form.one >> form.fraction_bits))
    # Two such fractions differ by more than 2**-44, so float64 finds the largest without doubt
    worst = int(np.argmax(np.where(seen > 0, deficit / truth, -np.inf)))
    return WorstError(
        pairs=int(seen.sum()),
        worst=Fraction(int(deficit[worst]), int(truth[worst])),
        negative=int(seen[deficit < 0].sum()),
        exact=int(seen[deficit == 0].sum()),
    )


def _octaves(form: _Format) -> Iterator[tuple[int, int]]:
    """Yield the unordered pairs of biased exponents for which a product can be normal."""
    top, bias = (1 << form.exponent_bits) - 2, form.one >> form.fraction_bits
    for exponent_a in range(1, top + 1):
        for exponent_b in range(exponent_a, top + 1):
            if bias <= exponent_a + exponent_b <= bias + top:
                yield exponent_a, exponent_b


def _moved_products(
    form: _Format, a: NDArray, b: NDArray, octave: NDArray, exponent_a: int, exponent_b: int
) -> NDArray[np.bool_]:
    """Multiply two whole octaves, check the words, and mark the pairs that belong to the domain."""
    words_a, words_b = a + (exponent_a << form.fraction_bits), b + (exponent_b << form.fraction_bits)
    words = multiply(words_a.view(np.float16), words_b.view(np.float16)).view(np.uint16)
    bias = form.one >> form.fraction_bits
    moved = octave.astype(np.int32) + (exponent_a + exponent_b - 2 * bias << form.fraction_bits)
    domain = (moved >= form.smallest) & (moved < form.infinity)
    if not np.array_equal(words[domain], moved[domain]):
        raise ArithmeticError(f"multiply is not homogeneous at the exponents {exponent_a} and {exponent_b}")
    return domain if exponent_a < exponent_b else domain & (a <= b)


# --- Matrix products ----------------------------------------------------------------------------------------


def matmul(a: Any, b: Any, *, offset: float = 0.0, carry: bool = True) -> Any:
    """Return the matrix product whose multiplications are Mitchell's (eq-mitchell-dot, chapter mitchell).

    Parameters
    ----------
    a : ndarray or CPU tensor of float32, shape (..., K)
    b : ndarray or CPU tensor of float32, shape (K, N)
    offset : float
        Constant added in the log domain, in (-1, 1).
    carry : bool
        If False, a fraction sum of 1 and more is not carried into the exponent: ``2**(k + l) (1 + x + y)``
        throughout, errors up to 25 %, and no more than two ordinary matrix products
        (eq-mitchell-nocarry-gemm).

    Returns
    -------
    ndarray or tensor of float32, shape (..., N)
        Within ``4e-6`` times the sum of the absolute products of the true sum of `multiply`, which in turn is
        within 1/9 of that of the exact products. No temporary has the size (M, K, N).

    Raises
    ------
    TypeError
        If an operand is not float32 or the libraries differ.
    ValueError
        If the shapes do not match, the offset is out of range or given with ``carry=False``, or an entry is
        not finite with ``carry=False``.

    Examples
    --------
    >>> matmul(np.float32([[3, 0], [1, 2]]), np.float32([[3], [5]]))
    array([[ 8.],
           [13.]], dtype=float32)
    """
    _check_offset(offset)
    rows, columns, finish = _matrices(a, b)
    if carry:
        return finish(_mitchell_matmul(rows, columns, round(offset * _FLOAT32.smallest)))
    if offset:
        raise ValueError(f"matmul: carry=False cannot be combined with an offset, got {offset!r}")
    if not (np.isfinite(rows).all() and np.isfinite(columns).all()):
        raise ValueError("matmul: carry=False needs finite entries; one is inf or NaN")
    return finish(_nocarry_matmul(rows, columns))


def carry_levels_matmul(a: ArrayLike, b: ArrayLike, fraction_bits: int) -> NDArray[np.float64]:
    """Return the Mitchell matrix product as ``2**m`` ordinary ones (eq-mitchell-carry-levels).

    On a grid of m fraction bits the carry ``max(0, x + y - 1)`` is a sum over levels t of the AND gates
    ``[x >= t][y > 1 - t]``, hence of rank one each. The first level is always empty, which leaves
    ``2**m - 2`` levels and the two products of eq-mitchell-nocarry-gemm (chapter mitchell). For ``m >= 1``
    fewer are impossible: the table of all fraction products has rank ``2**m``, as second differences show.

    Parameters
    ----------
    a : array_like of real numbers, shape (..., K)
    b : array_like of real numbers, shape (K, N)
        Finite, with at most `fraction_bits` bits after the leading one.
    fraction_bits : int
        m, from 0 to 12.

    Returns
    -------
    ndarray of float64, shape (..., N)
        The sum of the Mitchell products; exact as long as float64 can hold the partial sums.

    Raises
    ------
    TypeError, ValueError
        If `fraction_bits` is not an integer in range, an entry has more fraction bits, or the shapes do not
        match.

    Examples
    --------
    >>> carry_levels_matmul([[1.5, 3.0]], [[1.5], [2.0]], fraction_bits=1)
    array([[8.]])
    """
    m = _check_count("fraction_bits", fraction_bits, at_least=0)
    if m > 12:
        raise ValueError(f"fraction_bits must be at most 12, which already takes 4096 products, got {m}")
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    _check_matrices(a.shape, b.shape)
    return sum(left @ right for left, right in _carry_factors(a, b, m))


def _carry_factors(
    a: NDArray[np.float64], b: NDArray[np.float64], fraction_bits: int
) -> Iterator[tuple[NDArray, NDArray]]:
    """Yield the pairs of matrices whose products sum to the Mitchell product."""
    steps = 1 << fraction_bits
    (power_a, steps_a), (power_b, steps_b) = _grid("a", a, steps), _grid("b", b, steps)
    yield a, power_b
    yield power_a, b - power_b
    for level in range(2, steps):
        yield power_a * (steps_a >= level) / steps, power_b * (steps_b > steps - level)


def _grid(name: str, values: NDArray[np.float64], steps: int) -> tuple[NDArray, NDArray]:
    """Return signed powers of two, and the fractions as whole numbers of steps."""
    if not np.isfinite(values).all():
        raise ValueError(f"carry_levels_matmul: {name} must be finite")
    power = _signed_power(values)
    fraction = (values / np.where(values == 0, 1, power) - (values != 0)) * steps
    if np.any(fraction != np.floor(fraction)):
        raise ValueError(f"carry_levels_matmul: {name} has a fraction that is no multiple of 1/{steps}")
    return power, fraction


def _signed_power(values: NDArray) -> NDArray:
    """Return each value with its fraction cleared: ``s 2**k`` for ``s 2**k (1 + x)``, and 0 for 0."""
    return np.ldexp(np.copysign(values.dtype.type(0.5), values) * (values != 0), np.frexp(values)[1])


def _nocarry_matmul(a: NDArray, b: NDArray) -> NDArray:
    power_b = _signed_power(b)
    with np.errstate(over="ignore", invalid="ignore"):  # sums overflow as in `_mitchell_matmul`, in silence
        return a @ power_b + _signed_power(a) @ (b - power_b)  # (1 + x) + y, the powers outside


def _check_matrices(shape_a: tuple[int, ...], shape_b: tuple[int, ...]) -> None:
    if len(shape_a) < 1 or len(shape_b) != 2 or shape_a[-1] != shape_b[0]:
        raise ValueError(f"want shapes (..., K) and (K, N), got {shape_a} and {shape_b}")


def _matrices(a: Any, b: Any) -> tuple[NDArray[np.float32], NDArray[np.float32], Callable[[NDArray], Any]]:
    """Return both operands as matrices, and how to give the result its shape and type."""
    if _kind(a) != _kind(b) or _kind(a) not in (("numpy", "float32"), ("torch", "float32")):
        raise TypeError(f"want two arrays or two tensors of float32, got {_describe(a)} and {_describe(b)}")
    _check_matrices(tuple(a.shape), tuple(b.shape))
    shape = (*a.shape[:-1], b.shape[1])
    rows = _words(a, _FLOAT32).view(np.float32).reshape(math.prod(shape[:-1]), a.shape[-1])  # (M, K)

    def finish(result: NDArray) -> Any:
        with np.errstate(over="ignore"):
            floats = result.astype(np.float32, copy=False).reshape(shape)
        return _as_tensor(floats, a.dtype) if _is_tensor(a) else floats

    return rows, _words(b, _FLOAT32).view(np.float32), finish


@dataclass(frozen=True)
class _Codes:
    """The words of one operand of `matmul`, and what is known of their magnitudes."""

    words: NDArray[np.uint32]  # rows of K words
    zero: NDArray[np.bool_] | None  # None if there is no zero
    low: int  # over the entries that are not zero
    high: int


def _codes(matrix: NDArray[np.float32]) -> _Codes:
    words = np.ascontiguousarray(matrix).view(np.uint32)
    size = words & _FLOAT32.magnitude
    low, high = int((size - 1).min()) + 1, int(size.max())
    return _Codes(words, size == 0 if int(size.min()) == 0 else None, low, high)


def _mitchell_matmul(rows: NDArray[np.float32], columns: NDArray[np.float32], offset: int) -> NDArray:
    """Choose the cheapest inner loop that is right for the range of the operands."""
    if not rows.size or not columns.size:
        return np.zeros((len(rows), columns.shape[1]))
    a, b = _codes(rows), _codes(columns.T)
    if min(a.high, b.high) == 0 and max(a.high, b.high) < _FLOAT32.infinity:
        return np.zeros((len(a.words), len(b.words)))
    operation = _Operation(_FLOAT32, offset, divide=False)
    # So many exponents of head room that the largest sum of _TERMS products cannot overflow either
    head = _TERMS.bit_length() << _FLOAT32.fraction_bits
    if not operation.stays_normal(a.low, a.high + head, b.low, b.high):
        return _exact_matmul(operation, a, b)
    if a.zero is None and b.zero is None:
        return _sum_of_words(a.words + operation.wrapped_shift, b.words)
    return _sparse_matmul(operation, a, b)


def _sparse_matmul(operation: _Operation, a: _Codes, b: _Codes) -> NDArray:
    """Replace the zeros of one operand by powers of two so tiny that their products are dust, and clear that.

    Zeros of the other operand, or all of them if dust could be taken for a result, are cleared by AND gates.
    """
    swept, other = (a, b) if a.zero is not None else (b, a)
    # A sum of products is zero or at least 2**-23 times the least of them; the dust of K terms is counted
    # with 2**terms > K
    lowest = a.low + b.low + operation.shift - (_FLOAT32.fraction_bits + 1 << _FLOAT32.fraction_bits)
    terms = a.words.shape[1].bit_length() + 1
    dust = _FLOAT32.smallest + other.high - other.low + (terms << _FLOAT32.fraction_bits)
    if dust >= lowest:
        return _sum_of_words(a.words + operation.wrapped_shift, b.words, _gate(a), _gate(b))
    tiny = np.uint32((_FLOAT32.smallest - operation.shift - other.low) % (1 << 32))
    filled = np.where(swept.zero, tiny, swept.words)
    words_a, words_b = (filled, b.words) if swept is a else (a.words, filled)
    gate_b = _gate(b) if swept is a else None
    result = _sum_of_words(words_a + operation.wrapped_shift, words_b, None, gate_b)
    result[np.abs(result) <= np.uint32(dust).view(np.float32)] = 0
    return result


def _gate(codes: _Codes) -> NDArray[np.uint32] | None:
    """Return 0 for a zero and all ones for the rest, None if there is no zero."""
    return None if codes.zero is None else np.subtract(codes.zero, 1, dtype=np.int32).view(np.uint32)


def _sum_of_words(
    words_a: NDArray[np.uint32],
    words_b: NDArray[np.uint32],
    gate_a: NDArray[np.uint32] | None = None,
    gate_b: NDArray[np.uint32] | None = None,
) -> NDArray:
    """Return for all pairs of rows the sum of the floats that word sums spell: (M, K), (N, K) -> (M, N)."""

    def add(rows: slice, columns: slice, terms: slice, out: NDArray[np.uint32]) -> None:
        np.add(words_a[rows, None, terms], words_b[None, columns, terms], out=out)
        if gate_a is not None:
            np.bitwise_and(out, gate_a[rows, None, terms], out=out)
        if gate_b is not None:
            np.bitwise_and(out, gate_b[None, columns, terms], out=out)

    return _sum_tiles(words_a.shape, len(words_b), add)


def _exact_matmul(operation: _Operation, a: _Codes, b: _Codes) -> NDArray:
    """Use `multiply`'s own words: for subnormal, infinite and NaN entries, and products out of range."""

    def add(rows: slice, columns: slice, terms: slice, out: NDArray[np.uint32]) -> None:
        out[...] = _apply(operation, a.words[rows, None, terms], b.words[None, columns, terms])

    return _sum_tiles(a.words.shape, len(b.words), add, dtype=np.float64)


def _sum_tiles(shape_a: tuple[int, int], n: int, add: Callable, dtype: type = np.float32) -> NDArray[np.float64]:
    """Fill tiles of words with `add`, read them as float32, and let BLAS sum them over the terms."""
    m, k = shape_a
    result = np.zeros((m, n))
    buffer = np.empty(min(_TILE, m * n * k), dtype=np.uint32)
    for rows, columns, terms in _tiles(m, n, k):
        shape = (rows.stop - rows.start, columns.stop - columns.start, terms.stop - terms.start)
        tile = buffer[: math.prod(shape)].reshape(shape)  # (row, column, term)
        add(rows, columns, terms, tile)
        products = tile.view(np.float32).reshape(-1, shape[2]).astype(dtype, copy=False)
        with np.errstate(invalid="ignore"):
            result[rows, columns] += (products @ np.ones(shape[2], dtype)).reshape(shape[:2])
    return result


def _tiles(m: int, n: int, k: int) -> Iterator[tuple[slice, slice, slice]]:
    """Cut (m, n, k) into blocks of at most `_TILE` elements and at most `_TERMS` terms."""
    step_k = min(k, _TERMS)
    step_n = min(n, _TILE // step_k)
    step_m = max(1, _TILE // (step_k * step_n))
    for row in range(0, m, step_m):
        for column in range(0, n, step_n):
            for term in range(0, k, step_k):
                yield (
                    slice(row, min(row + step_m, m)),
                    slice(column, min(column + step_n, n)),
                    slice(term, min(term + step_k, k)),
                )


# --- Neural networks ----------------------------------------------------------------------------------------


def _slope_matmul(
    g: NDArray[np.float32], p: NDArray[np.float32], q: NDArray[np.float32], offset: float
) -> NDArray[np.float32]:
    """Return ``sum_n g[m, n] slope(p[m, k], q[n, k])``: (M, N), (M, K), (N, K) -> (M, K)."""
    result = np.zeros(p.shape)
    if not p.size or not q.size:
        return result.astype(np.float32)
    slopes = _word_slopes(p, q, offset) if _has_plain_slopes(p, q) else _exact_slopes(p, q, offset)
    with np.errstate(over="ignore", invalid="ignore"):
        for rows, inputs, outputs in _tiles(len(p), p.shape[1], len(q)):
            result[rows, inputs] += (g[rows, None, outputs] @ slopes(rows, inputs, outputs))[:, 0]
        return np.where(p == 0, g @ q, result).astype(np.float32)  # the rule of `slope` at zero


def _has_plain_slopes(p: NDArray[np.float32], q: NDArray[np.float32]) -> bool:
    """Say whether the words give the slopes: normal or zero, with room for the exponent of q to move."""
    a, b = _codes(p), _codes(q)
    step, infinity = _FLOAT32.smallest, _FLOAT32.infinity
    return a.low >= step and a.high < infinity and b.low >= 2 * step and b.high < infinity - 2 * step


def _word_slopes(p: NDArray[np.float32], q: NDArray[np.float32], offset: float) -> Callable:
    units = np.uint32(round(offset * _FLOAT32.smallest) % (1 << 32))
    fraction = (_words(p, _FLOAT32) & (_FLOAT32.smallest - 1)) + units
    words = _words(q, _FLOAT32)
    # Clears the fraction of the sum, and the whole of it where q is zero
    gate = np.where(q == 0, np.uint32(0), np.uint32(_FLOAT32.sign | _FLOAT32.infinity))

    def slopes(rows: slice, inputs: slice, outputs: slice) -> NDArray[np.float32]:
        total = fraction[rows, None, inputs] + words[None, outputs, inputs]  # (row, output, input)
        return np.bitwise_and(total, gate[None, outputs, inputs], out=total).view(np.float32)

    return slopes


def _exact_slopes(p: NDArray[np.float32], q: NDArray[np.float32], offset: float) -> Callable:
    offset = round(offset * _FLOAT32.smallest) / _FLOAT32.smallest  # as `matmul` adds it to the words
    known_p, known_q = np.isfinite(p), np.isfinite(q)
    plain_p, plain_q = np.where(known_p, p, 1), np.where(known_q, q, 1)

    def slopes(rows: slice, inputs: slice, outputs: slice) -> NDArray[np.float64]:
        power = slope(plain_p[rows, None, inputs], plain_q[None, outputs, inputs], offset=offset)
        known = known_p[rows, None, inputs] & known_q[None, outputs, inputs]
        return np.where(known, power, np.nan)

    return slopes


@functools.cache
def _product_function() -> type:
    """Define the autograd function on first use, so that the module imports without torch."""
    import torch

    class MitchellProduct(torch.autograd.Function):
        """``x @ weight.T`` with Mitchell products, and one of three backward passes."""

        @staticmethod
        def forward(ctx: Any, x: Any, weight: Any, offset: float, backward: str, carry: bool) -> Any:
            ctx.save_for_backward(x, weight)
            ctx.mode, ctx.options = backward, {"offset": offset, "carry": carry}
            return matmul(x, weight.t(), **ctx.options)

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, grad: Any) -> tuple:
            x, weight = ctx.saved_tensors
            rows, grads = (
                x.reshape(-1, x.shape[-1]),
                grad.reshape(-1, grad.shape[-1]),
            )  # (batch, in), (batch, out)
            product = _BACKWARD[ctx.mode]
            to_x = product(grads, rows, weight, **ctx.options).reshape(x.shape) if ctx.needs_input_grad[0] else None
            to_weight = product(grads.t(), weight, rows, **ctx.options) if ctx.needs_input_grad[1] else None
            return to_x, to_weight, None, None, None

    return MitchellProduct


def _exact_backward(g: torch.Tensor, p: torch.Tensor, q: torch.Tensor, offset: float, carry: bool) -> torch.Tensor:
    return g @ q


def _mitchell_backward(g: torch.Tensor, p: torch.Tensor, q: torch.Tensor, offset: float, carry: bool) -> torch.Tensor:
    return matmul(g, q, offset=offset, carry=carry)


def _slope_backward(g: torch.Tensor, p: torch.Tensor, q: torch.Tensor, offset: float, carry: bool) -> torch.Tensor:
    if not carry:  # on each octave a straight line of slope sign(q) 2**l
        return g @ _as_tensor(_signed_power(q.detach().numpy()), q.dtype)
    arrays = (value.detach().numpy() for value in (g, p, q))
    return _as_tensor(_slope_matmul(*arrays, offset), g.dtype)


_BACKWARD = {"exact": _exact_backward, "mitchell": _mitchell_backward, "slope": _slope_backward}


def _check_layer(offset: float, backward: str, carry: bool) -> None:
    _check_offset(offset)
    _check_choice("backward", backward, tuple(_BACKWARD))
    if offset and not carry:
        raise ValueError(f"carry=False cannot be combined with an offset, got {offset!r}")


@functools.cache
def _linear_class() -> type:
    """Define `MitchellLinear` on first use, so that the module imports without torch."""
    import torch

    class MitchellLinear(torch.nn.Linear):
        """A linear layer whose multiplications are Mitchell's (eq-mitchell-dot, chapter mitchell).

        Parameters
        ----------
        in_features, out_features : int
        bias : bool
            As in `torch.nn.Linear`; the bias is added exactly.
        offset : float
            Constant added in the log domain, in (-1, 1).
        backward : {"exact", "mitchell", "slope"}
            Gradients by ordinary products with the other factor, by the same products with `matmul`, or by
            the true derivative (eq-mitchell-slope).
        carry : bool
            As in `matmul`; if False, ``offset`` must be zero.

        Raises
        ------
        ValueError
            If the offset is out of range or given with ``carry=False``, or `backward` unknown. Calls raise
            TypeError unless all is float32.

        Examples
        --------
        >>> import torch
        >>> layer = MitchellLinear(2, 1, bias=False)
        >>> layer.weight.data = torch.tensor([[3.0, 0.0]])
        >>> layer(torch.tensor([[3.0, 7.0]])).item()
        8.0
        """

        def __init__(
            self,
            in_features: int,
            out_features: int,
            bias: bool = True,
            *,
            offset: float = 0.0,
            backward: Literal["exact", "mitchell", "slope"] = "exact",
            carry: bool = True,
        ) -> None:
            _check_layer(offset, backward, carry)
            super().__init__(in_features, out_features, bias)
            self.offset, self.backward, self.carry = offset, backward, carry

        def forward(self, input: torch.Tensor) -> torch.Tensor:
            product = _product_function().apply(input, self.weight, self.offset, self.backward, self.carry)
            return product if self.bias is None else product + self.bias

        def extra_repr(self) -> str:
            own = f"offset={self.offset}, backward={self.backward!r}" + ("" if self.carry else ", carry=False")
            return f"{super().extra_repr()}, {own}"

    MitchellLinear.__qualname__ = "MitchellLinear"  # pickle looks it up in the module
    return MitchellLinear


def __getattr__(name: str) -> Any:
    if name == "MitchellLinear":
        return _linear_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def convert(
    module: torch.nn.Module,
    *,
    offset: float = 0.0,
    backward: Literal["exact", "mitchell", "slope"] = "exact",
    carry: bool = True,
) -> torch.nn.Module:
    """Return a copy of a network in which every `torch.nn.Linear` is a `MitchellLinear` (chapter mitchell).

    The copy shares the parameters, so that training either trains both; buffers and structure are its own,
    and the original is left as it was. Modules that read a layer's weight instead of calling it keep their
    exact products: `torch.nn.MultiheadAttention`, and `torch.nn.TransformerEncoderLayer` in its fast path for
    inference.

    Parameters
    ----------
    module : torch.nn.Module
        Of float32 parameters.
    offset : float
        Constant added in the log domain, in (-1, 1).
    backward : {"exact", "mitchell", "slope"}
    carry : bool
        As in `MitchellLinear`.

    Returns
    -------
    torch.nn.Module
        Of the same class, or a MitchellLinear if `module` is a linear layer itself.

    Raises
    ------
    TypeError
        If `module` is not a module.
    ValueError
        If the offset, `backward` or their combination with `carry` is not allowed, or a linear layer is lazy or
        parametrized.

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.ReLU())
    >>> convert(net)[0]
    MitchellLinear(in_features=4, out_features=2, bias=True, offset=0.0, backward='exact')
    """
    import torch
    from torch.nn.utils import parametrize

    _check_layer(offset, backward, carry)
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"convert: want a torch.nn.Module, got {type(module).__name__}")
    layers = [name for name, layer in module.named_modules() if isinstance(layer, torch.nn.Linear)]
    for name in layers:
        layer = module.get_submodule(name)
        if parametrize.is_parametrized(layer) or torch.nn.parameter.is_lazy(layer.weight):
            raise ValueError(f"convert: the linear layer {name!r} is lazy or parametrized; resolve that first")
    # A memo that already holds the parameters makes deepcopy share them
    converted = copy.deepcopy(module, {id(parameter): parameter for parameter in module.parameters()})
    for name in layers:
        layer = converted.get_submodule(name)
        layer.__class__ = _linear_class()  # keeps hooks, training mode and parameters where they are
        layer.offset, layer.backward, layer.carry = offset, backward, carry
    return converted


# --- Energy -------------------------------------------------------------------------------------------------


def energy_saving(
    multiply: ArrayLike,
    integer_add: ArrayLike,
    float_add: ArrayLike = 0.0,
    memory: ArrayLike = 0.0,
    reuse: ArrayLike = 1.0,
) -> NDArray[np.float64]:
    """Return the share of energy saved by an integer addition for each multiplication (eq-mitchell-energy).

    Parameters
    ----------
    multiply, integer_add : array_like of real numbers
        Energy of the multiplication and of the integer addition in its place, in one unit (see
        `HOROWITZ_PJ`).
    float_add : array_like of real numbers
        Energy of the accumulating addition, spent in either case.
    memory : array_like of real numbers
        Energy to fetch a pair of operands.
    reuse : array_like of real numbers
        In how many products a fetched pair takes part, above 0. All five broadcast.

    Returns
    -------
    ndarray of float64
        ``(multiply - integer_add) / (multiply + float_add + memory / reuse)`` (chapter mitchell).

    Raises
    ------
    ValueError
        If an energy is negative, `multiply` or `reuse` is not positive, or one is NaN.

    Examples
    --------
    >>> pj = HOROWITZ_PJ
    >>> alone = energy_saving(pj["float32 multiply"], pj["int32 add"])
    >>> mac = energy_saving(pj["float32 multiply"], pj["int32 add"], pj["float32 add"])
    >>> float(alone.round(3)), float(mac.round(3))
    (0.973, 0.783)
    """
    product, replacement, addition, fetch, uses = (
        np.asarray(value, dtype=np.float64) for value in (multiply, integer_add, float_add, memory, reuse)
    )
    if not all(np.all(value >= 0) for value in (replacement, addition, fetch)):
        raise ValueError("energy_saving: integer_add, float_add and memory must not be negative or NaN")
    if not (np.all(product > 0) and np.all(uses > 0)):
        raise ValueError("energy_saving: multiply and reuse must be positive")
    return np.asarray((product - replacement) / (product + addition + fetch / uses))
