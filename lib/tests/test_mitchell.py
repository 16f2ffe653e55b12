"""Tests of explainers.mitchell: an exact reference in fractions, laws, traps, peers and bad input."""

from __future__ import annotations

import copy
import doctest
import io
import itertools
import math
import os
import pickle
import subprocess
import sys
import tracemalloc
import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from explainers import mitchell
from explainers.mitchell import FORMATS, MitchellLinear, convert, divide, matmul, multiply, multiply_int

# --- A slow reference that shares no code with the library --------------------------------------------------

LAYOUT = {"float16": (5, 10), "bfloat16": (8, 7), "float32": (8, 23), "float64": (11, 52)}


class Slow:
    """One IEEE format in fractions: decode words, combine them by the definition, round once, encode."""

    def __init__(self, name):
        self.e, self.m = LAYOUT[name]
        self.bias = 2 ** (self.e - 1) - 1
        self.top = 2**self.e - 1
        self.bits = 1 + self.e + self.m

    def decode(self, word):
        sign = -1 if word >> (self.bits - 1) else 1
        e, f = word >> self.m & self.top, word & (2**self.m - 1)
        if e == self.top:
            return sign, "nan" if f else "inf"
        if e == 0:
            return sign, Fraction(f, 2**self.m) * Fraction(2) ** (1 - self.bias)
        return sign, (1 + Fraction(f, 2**self.m)) * Fraction(2) ** (e - self.bias)

    def encode(self, sign, value):
        """Round a non-negative Fraction to nearest even by comparing distances; 'nan' and 'inf' pass."""
        high = 0 if sign > 0 else 1 << (self.bits - 1)
        if value == "nan":
            return "nan"
        if value == "inf" or value >= Fraction(2) ** (self.bias + 1):
            return high | self.top << self.m
        exponent = max(floor_log2(value), 1 - self.bias) if value else 1 - self.bias
        steps = value / Fraction(2) ** (exponent - self.m)
        below = math.floor(steps)
        rest = steps - below
        if rest > Fraction(1, 2) or (rest == Fraction(1, 2) and below % 2):
            below += 1
        return high | (below + (exponent + self.bias - 1 << self.m))

    def run(self, op, word_a, word_b, units=0):
        (s, p), (t, q) = self.decode(word_a), self.decode(word_b)
        sign = s * t
        if "nan" in (p, q):
            return "nan"
        if op == "divide":
            if p == q and (p == "inf" or p == 0):
                return "nan"
            if p == "inf" or q == 0:
                return self.encode(sign, "inf")
            if q == "inf" or p == 0:
                return self.encode(sign, 0)
        else:
            if "inf" in (p, q):
                return "nan" if 0 in (p, q) else self.encode(sign, "inf")
            if 0 in (p, q):
                return self.encode(sign, 0)
        logs = slow_log(p) + (slow_log(q) if op == "multiply" else -slow_log(q))
        return self.encode(sign, slow_exp(logs + Fraction(units, 2**self.m)))


def floor_log2(value):
    k = value.numerator.bit_length() - value.denominator.bit_length()
    return k if Fraction(2) ** k <= value else k - 1


def slow_log(value):
    k = floor_log2(value)
    return k + value / Fraction(2) ** k - 1


def slow_exp(u):
    n = math.floor(u)
    return Fraction(2) ** n * (1 + u - n)


def from_words(words, name):
    """Read words as an array of the format, or as a tensor for bfloat16."""
    if name == "bfloat16":
        return torch.from_numpy(np.asarray(words, np.uint16).view(np.int16)).view(torch.bfloat16)
    bits = sum(LAYOUT[name]) + 1
    return np.asarray(words, f"uint{bits}").view(name)


def to_words(values):
    if isinstance(values, torch.Tensor):
        size = {2: torch.int16, 4: torch.int32, 8: torch.int64}[values.element_size()]
        values = values.view(size).numpy()
    return values.view(f"uint{8 * values.itemsize}")


def special_words(name):
    """Zeros, subnormal, normal, boundary, infinite and NaN words of both signs."""
    e, m = LAYOUT[name]
    one, infinity = (2 ** (e - 1) - 1) << m, (2**e - 1) << m
    half = 1 << (m - 1)
    positive = [0, 1, 2, 3, half, half + 1, (1 << m) - 1, 1 << m, (1 << m) + 1, (2 << m) - 1]
    positive += [one // 2, one // 2 + half, (one // 2) + 1, one - (1 << m), one - 1, one, one + 1, one + half]
    positive += [one + (1 << m), infinity - 1, infinity - (1 << m), infinity - half, infinity, infinity + 1]
    positive += [infinity + half, infinity + (1 << m) - 1]
    return positive + [word | 1 << (e + m) for word in positive]


def assert_matches_reference(name, words_a, words_b, op, offset=0.0):
    routine = {"multiply": multiply, "divide": divide}[op]
    result = routine(from_words(words_a, name), from_words(words_b, name), offset=offset)
    slow = Slow(name)
    units = round(offset * 2**slow.m)
    nan_from = (2**slow.e - 1) << slow.m
    for a, b, got in zip(words_a, words_b, to_words(result), strict=True):
        want = slow.run(op, int(a), int(b), units)
        got = int(got)
        if want == "nan":
            assert got & (1 << slow.bits - 1) - 1 > nan_from, (name, op, hex(a), hex(b), hex(got))
        else:
            assert got == want, (name, op, offset, hex(a), hex(b), hex(got), hex(want))


# --- Elementwise semantics ----------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ["multiply", "divide"])
@pytest.mark.parametrize("name", LAYOUT)
def test_special_values_match_the_reference(name, op):
    pairs = list(itertools.product(special_words(name), repeat=2))
    for offset in (0.0, 0.0566, -0.4):
        assert_matches_reference(name, [a for a, _ in pairs], [b for _, b in pairs], op, offset)


@pytest.mark.parametrize("op", ["multiply", "divide"])
@pytest.mark.parametrize("name", LAYOUT)
def test_random_words_match_the_reference(name, op):
    rng = np.random.default_rng(1)
    bits = sum(LAYOUT[name]) + 1
    words_a, words_b = rng.integers(0, 2**bits, (2, 1500), dtype=np.uint64)
    assert_matches_reference(name, words_a.tolist(), words_b.tolist(), op)
    assert_matches_reference(name, words_a.tolist(), words_b.tolist(), op, offset=0.999)


@pytest.mark.parametrize("name", LAYOUT)
def test_subnormal_results_round_to_nearest_even(name):
    rng = np.random.default_rng(2)
    e, m = LAYOUT[name]
    # Exponents that sum to just below the normal range, so that 0 to m + 2 bits are rounded away
    bias = 2 ** (e - 1) - 1
    a = rng.integers(1, bias, 800)
    b = np.maximum(bias + 1 - rng.integers(0, m + 4, 800) - a, 1)
    words = [((k << m) + rng.integers(0, 1 << m, 800)).tolist() for k in (a, b)]
    assert_matches_reference(name, *words, "multiply")
    ties = [((k << m) + (1 << (m - 1))).tolist() for k in (a, b)]
    assert_matches_reference(name, *ties, "multiply")


def test_float64_subnormals_do_not_overflow_the_sum_of_logarithms():
    tiny = np.array([5e-324, -5e-324, 2.0**-1074, 3 * 2.0**-1074])
    got = multiply(tiny, np.array([5e-324, 2.2e-308, 2.0**1023, 3 * 2.0**1000]))
    np.testing.assert_array_equal(got, [0, -0.0, 2.0**-51, 2.0**-71])
    np.testing.assert_array_equal(np.signbit(got), [False, True, False, False])
    np.testing.assert_array_equal(divide(tiny, 2.0**-1074), [1, -1, 1, 3])
    np.testing.assert_array_equal(divide(tiny, np.float64(1.5) * 2.0**1000), [0, -0.0, 0, 0])


def test_article_example():
    assert float(multiply(np.float64(12.3), np.float64(4.56))) == pytest.approx(53.68, abs=1e-12)
    assert multiply(3.0, 3.0) == 8
    assert divide(1.0, 1.5) == 0.75


@pytest.mark.parametrize(
    ("a", "b", "want"),
    [
        (0.0, 0.5, 0.0),
        (-0.0, 0.5, -0.0),
        (-0.0, -3.0, 0.0),
        (0.0, np.inf, np.nan),
        (np.inf, -2.0, -np.inf),
        (np.inf, np.inf, np.inf),
        (np.nan, 4.0, np.nan),
        (np.nan, 0.0, np.nan),
        (1e30, 1e30, np.inf),
        (-1e30, 1e30, -np.inf),
        (1e-30, 1e-30, 0.0),
        (-1e-30, 1e-30, -0.0),
    ],
)
def test_special_products(a, b, want):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = multiply(np.float32([a]), np.float32([b]))[0]
    np.testing.assert_array_equal(got, np.float32(want))
    assert np.isnan(want) or np.signbit(got) == np.signbit(want)


@pytest.mark.parametrize(
    ("a", "b", "want"),
    [
        (0.0, 0.0, np.nan),
        (np.inf, np.inf, np.nan),
        (0.0, -5.0, -0.0),
        (5.0, -0.0, -np.inf),
        (0.0, np.inf, 0.0),
        (np.inf, 0.0, np.inf),
        (3.0, -np.inf, -0.0),
        (np.nan, 1.0, np.nan),
    ],
)
def test_special_quotients(a, b, want):
    got = divide(np.float32([a]), np.float32([b]))[0]
    np.testing.assert_array_equal(got, np.float32(want))
    assert np.isnan(want) or np.signbit(got) == np.signbit(want)


def test_one_odd_element_does_not_change_its_neighbours():
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((2, 50_000)).astype(np.float32)
    clean = multiply(a, b)
    for value in (0.0, -0.0, np.inf, np.nan, 1e-40, 3e38):
        spoiled = a.copy()
        spoiled[[0, 16_383, 16_384, 49_999]] = value
        changed = to_words(multiply(spoiled, b)) != to_words(clean)
        assert set(np.flatnonzero(changed)) <= {0, 16_383, 16_384, 49_999}
        for i in (0, 16_383, 16_384, 49_999):
            np.testing.assert_array_equal(multiply(spoiled, b)[i], multiply(spoiled[i : i + 1], b[i : i + 1])[0])


@pytest.mark.parametrize("routine", [multiply, divide])
@pytest.mark.parametrize("name", LAYOUT)
def test_results_do_not_depend_on_the_neighbours_in_a_chunk(name, routine):
    # One element alone is a chunk of its own, for which the ranges decide which path is taken
    words = from_words(special_words(name), name)
    together = routine(words[:, None], words, offset=0.3)
    for i, j in itertools.product(range(len(words)), repeat=2):
        alone = routine(words[i : i + 1], words[j : j + 1], offset=0.3)
        assert to_words(alone)[0] == to_words(together)[i, j], (i, j)


def test_offset_moves_the_word_by_its_rounded_units():
    a, b = np.float32([1.25, 1.0]), np.float32([1.5, -1.0])
    plain, moved = to_words(multiply(a, b)), to_words(multiply(a, b, offset=2.5 / 2**23))
    np.testing.assert_array_equal(moved - plain, 2)  # 2.5 rounds to even
    quotient = to_words(divide(a, b, offset=-0.25)) - to_words(divide(a, b))
    np.testing.assert_array_equal(quotient.astype(np.int32), -(2**21))
    np.testing.assert_array_equal(multiply(np.float32([0, np.inf]), 2.0, offset=0.5), [0, np.inf])


# --- Types, shapes, strides ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_numpy_dtypes_are_kept(dtype):
    a = np.array([1.5, 3.0], dtype)
    for got in (multiply(a, a), divide(a, a), multiply(a, 2), multiply(2.5, a), divide(1, a)):
        assert isinstance(got, np.ndarray)
        assert got.dtype == dtype
    np.testing.assert_array_equal(multiply(a, 3), [4.0, 8.0])
    assert type(multiply(dtype(3), dtype(3))) is dtype
    assert isinstance(multiply(np.array(3, dtype), dtype(3)), np.ndarray)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_torch_dtypes_are_kept(dtype):
    a = torch.tensor([1.5, 3.0, 0.0], dtype=dtype, requires_grad=True)
    got = multiply(a, a)
    assert got.dtype == dtype
    assert not got.requires_grad
    assert got.tolist() == [2, 8, 0]
    assert multiply(a, 3).tolist() == [4, 8, 0]
    assert divide(1.0, a).tolist() == [0.75, 0.375, math.inf]
    assert divide(1.0, a).dtype == dtype
    assert multiply(a[0], a[1]).shape == ()


def test_torch_agrees_with_numpy_bit_for_bit():
    rng = np.random.default_rng(4)
    words = rng.integers(0, 2**32, (2, 20_000), dtype=np.uint32)
    a, b = words.view(np.float32)
    got = multiply(torch.from_numpy(a), torch.from_numpy(b))
    np.testing.assert_array_equal(to_words(got), to_words(multiply(a, b)))


def test_python_numbers_adapt_and_overflow_to_infinity():
    assert multiply(2, 3.5) == 7.0
    assert isinstance(multiply(2, 3), np.float64)
    assert multiply(np.float16([1]), 1e300)[0] == np.inf
    assert multiply(torch.ones(1, dtype=torch.float16), 1e300).item() == math.inf


def test_zero_dimensional_and_empty():
    zero_d = multiply(np.array(3.0, np.float32), np.array(3.0, np.float32))
    assert zero_d.shape == ()
    assert zero_d == 8
    assert multiply(np.zeros((0, 3), np.float32), np.zeros((1, 3), np.float32)).shape == (0, 3)
    assert multiply(np.zeros(0, np.float16), 2.0).shape == (0,)
    assert divide(torch.zeros(2, 0), torch.zeros(0)).shape == (2, 0)
    assert multiply(torch.tensor(3.0), torch.tensor(3.0)).item() == 8


def test_lazily_negated_tensors():
    lazy = torch.tensor([1 + 3j, 2 - 1.5j]).conj().imag
    assert lazy.is_neg()
    assert multiply(lazy, 3.0).tolist() == [-8, 4]


def test_broadcasting_and_strides():
    rng = np.random.default_rng(5)
    a = rng.standard_normal((40, 30, 20)).astype(np.float32)
    b = rng.standard_normal((30, 1)).astype(np.float32)
    want = multiply(a.copy(), np.ascontiguousarray(np.broadcast_to(b, a.shape)))
    np.testing.assert_array_equal(multiply(a, b), want)
    np.testing.assert_array_equal(multiply(b, a), want)
    views = [(a[::-2, :, ::3], want[::-2, :, ::3]), (a[:, :, ::-1], want[:, :, ::-1])]
    for view, expected in views:
        np.testing.assert_array_equal(multiply(view, b), expected)
    np.testing.assert_array_equal(multiply(a.T, b[None].T), want.T)
    np.testing.assert_array_equal(multiply(np.asfortranarray(a), b), want)
    t, u = torch.from_numpy(a).permute(2, 0, 1), torch.from_numpy(b[:, 0])
    np.testing.assert_array_equal(multiply(t, u).numpy(), want.transpose(2, 0, 1))
    np.testing.assert_array_equal(multiply(t[::2], u).numpy(), want.transpose(2, 0, 1)[::2])


def test_operands_are_left_alone_and_may_be_read_only_or_foreign_endian():
    a = np.float32([3, 0, 1e-40])
    kept = a.copy()
    a.flags.writeable = False
    want = multiply(a, a)
    np.testing.assert_array_equal(a, kept)
    swapped = a.astype(">f4")
    np.testing.assert_array_equal(multiply(swapped, a), want)
    assert multiply(swapped, swapped).dtype == np.float32


# --- Laws ---------------------------------------------------------------------------------------------------


def test_group_laws_hold_bit_for_bit():
    rng = np.random.default_rng(6)
    a, b, c = (rng.standard_normal((3, 100_000)) * np.exp(rng.normal(0, 3, (3, 100_000)))).astype(np.float32)
    np.testing.assert_array_equal(multiply(a, b), multiply(b, a))
    np.testing.assert_array_equal(multiply(multiply(a, b), c), multiply(a, multiply(b, c)))
    np.testing.assert_array_equal(divide(multiply(a, b), b), a)
    np.testing.assert_array_equal(multiply(divide(a, b), b), a)
    np.testing.assert_array_equal(divide(a, b), multiply(a, divide(np.float32(1), b)))
    assert np.any((a * b) * c != a * (b * c))  # what the law is worth: IEEE multiplication does not have it


def test_powers_of_two_multiply_exactly_and_only_they():
    fractions = 1 + np.arange(256) / 256
    p, q = np.meshgrid(fractions, fractions)
    exact = multiply(p, q) == p * q
    np.testing.assert_array_equal(exact, (p == 1) | (q == 1))


def test_bounds_on_all_nine_bit_fractions():
    fractions = 1 + np.arange(512) / 512
    p, q = np.meshgrid(fractions, fractions)
    product, quotient = multiply(p, q) / (p * q) - 1, divide(p, q) / (p / q) - 1
    assert product.max() == 0
    assert product.min() == pytest.approx(-float(mitchell.MAX_PRODUCT_ERROR), abs=1e-15)
    assert quotient.min() == 0
    assert quotient.max() == pytest.approx(float(mitchell.MAX_QUOTIENT_ERROR), abs=1e-15)
    worst = np.argwhere(product < product.min() + 1e-9)
    assert worst.tolist() == [[256, 256]]


def test_float16_worst_error():
    found = mitchell.float16_worst_error()
    assert found == mitchell.WorstError(353_378_304, Fraction(1, 9), 0, 690_870)


def test_float16_worst_error_notices_a_wrong_word(monkeypatch):
    def faulty(a, b):
        result = multiply(a, b)
        result[(a == 1.5 * 2**-3) & (b == 1.25)] *= 2
        return result

    monkeypatch.setattr(mitchell, "multiply", faulty)
    with pytest.raises(ArithmeticError, match="not homogeneous at the exponents 12 and 15"):
        mitchell.float16_worst_error()


def test_float16_worst_error_measures_multiply(monkeypatch):
    monkeypatch.setattr(mitchell, "multiply", lambda a, b: multiply(a, b, offset=0.0625))
    found = mitchell.float16_worst_error()
    assert found.negative > 0
    assert 0.06 < found.worst < 0.0729  # 161/2209, reached on a finer grid


# --- Logarithm, power, gap, error ---------------------------------------------------------------------------


def test_log2_and_exp2_are_inverse_and_match_the_definition():
    x = np.logspace(-44, 38, 10_000).astype(np.float32)
    np.testing.assert_array_equal(mitchell.exp2(mitchell.log2(x)), x)
    for value in (1.0, 12.3, 4.56, 5e-324, 1.7976931348623157e308, 0.75):
        assert mitchell.log2(value) == float(slow_log(Fraction(value)))
    for value in (0.0, 5.6775, -3.25, 1023.75, -1073.5):
        assert mitchell.exp2(value) == float(slow_exp(Fraction(value)))
    powers = 2.0 ** np.arange(-1022, 1024)
    np.testing.assert_array_equal(mitchell.log2(powers), np.arange(-1022, 1024))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert mitchell.exp2([5000.0, -5000.0, 1e300, -1e300]).tolist() == [math.inf, 0.0, math.inf, 0.0]
    assert isinstance(mitchell.log2(3), np.ndarray)


def test_log2_is_rounded_when_float64_cannot_hold_it():
    # 52 fraction bits and an exponent of 100 do not fit: the round trip is not exact for every double
    x = np.nextafter(2.0**100, np.inf)
    assert mitchell.exp2(mitchell.log2(x)) != x


def test_gap():
    x = np.linspace(0, 1, 100_001)
    gap = mitchell.gap(x)
    assert gap[0] == 0
    assert abs(gap[-1]) < 1e-15
    assert gap.max() == pytest.approx(0.0860713, abs=1e-7)
    assert x[gap.argmax()] == pytest.approx(1 / math.log(2) - 1, abs=1e-5)
    p = 1 + x[:-1]
    np.testing.assert_allclose(gap[:-1], np.log2(p) - mitchell.log2(p), atol=1e-15)


@pytest.mark.parametrize(
    ("op", "routine", "true"), [("multiply", multiply, np.multiply), ("divide", divide, np.divide)]
)
def test_relative_error_agrees_with_the_words(op, routine, true):
    x, y = np.random.default_rng(7).random((2, 5000))
    for offset in (0.0, 0.0625, -0.3):
        p, q = 1 + x, 1 + y
        got = mitchell.relative_error(p - 1, q - 1, op=op, offset=offset)
        np.testing.assert_allclose(got, routine(p, q, offset=offset) / true(p, q) - 1, atol=1e-14)


@pytest.mark.parametrize("base", [math.sqrt(2), 2.0, 3.0, 4.0, 10.0])
def test_relative_error_in_other_bases(base):
    grid = np.arange(512) / 512
    error = mitchell.relative_error(grid[:, None], grid, base=base)
    assert error.max() <= 1e-15
    assert error.min() == pytest.approx(-(((base - 1) / (base + 1)) ** 2), abs=1e-12)


def test_mean_error_constant():
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(30):
        third, log2, log3 = mpmath.mpf(1) / 3, mpmath.log(2), mpmath.log(3)
        dilogarithms = mpmath.polylog(2, third) - mpmath.polylog(2, 2 * third)
        closed = 4 * log2**2 - 1 - 3 * (log2 * log3 + dilogarithms)
    assert float(closed) == mitchell.MEAN_PRODUCT_ERROR
    middle = (np.arange(1000) + 0.5) / 1000
    measured = -mitchell.relative_error(middle[:, None], middle).mean()
    assert measured == pytest.approx(mitchell.MEAN_PRODUCT_ERROR, abs=1e-6)


def test_lmul_offset():
    assert [mitchell.lmul_offset(m) for m in range(1, 9)] == [1 / 2, 1 / 4, 1 / 8, 1 / 8] + [1 / 16] * 4


def test_slope_is_the_exact_difference_quotient():
    rng = np.random.default_rng(8)
    p = rng.integers(1, 2**20, 20_000) / 2.0**10 * rng.choice([-1, 1], 20_000)
    q = rng.integers(1, 2**20, 20_000) / 2.0**10 * rng.choice([-1, 1], 20_000)
    h = np.sign(p) * 2.0**-30  # away from zero, as at a kink
    for offset in (0.0, 0.25, -0.25):
        exact = (multiply(p + h, q, offset=offset) - multiply(p, q, offset=offset)) / h
        np.testing.assert_array_equal(mitchell.slope(p, q, offset=offset), exact)


def test_slope_averages_to_the_other_factor():
    p = 1 + (np.arange(4096) + 0.5) / 4096
    for q in (1.0, 1.25, -1.5, 7.75):
        assert mitchell.slope(p, q).mean() == q
    assert mitchell.slope(0.0, -1.25) == -1.25
    assert mitchell.slope(3.0, 0.0) == 0


# --- The one-liner ------------------------------------------------------------------------------------------


def test_raw_multiply_has_the_bugs_of_the_article():
    a = np.float32([0, 0, 0, np.inf, 1e30, np.nan, 3, -3])
    b = np.float32([0.5, 0.3, 2, np.inf, 1e30, 4, 3, 5])
    got = mitchell.raw_multiply(a, b)
    assert got.tolist() == pytest.approx(
        [-math.inf, -2.04e38, 1.18e-38, -1, -8.0e-18, -1.5 * 2.0**-126, 8, -14], rel=0.02, abs=0
    )
    assert got.dtype == np.float32
    assert mitchell.raw_multiply(a[:1, None], b).shape == (1, 8)
    assert mitchell.raw_multiply(np.array(3, np.float32), np.array(3, np.float32)) == 8


def test_raw_multiply_is_right_for_three_quarters_of_all_words():
    words = np.random.default_rng(9).integers(0, 2**32, (2, 200_000), dtype=np.uint32)
    a, b = words.view(np.float32)
    raw, right = mitchell.raw_multiply(a, b), multiply(a, b)
    share = np.mean((to_words(raw) == to_words(right)) | (np.isnan(raw) & np.isnan(right)))
    assert share == pytest.approx(0.738, abs=0.01)


# --- Integers -----------------------------------------------------------------------------------------------

EIGHT_BITS = np.meshgrid(np.arange(256), np.arange(256))


def slow_int(p, q, corrections):
    """Mitchell's product with corrections from the definition of the error, by recursion."""
    if p == 0 or q == 0:
        return 0
    product = slow_exp(slow_log(Fraction(p)) + slow_log(Fraction(q)))
    if corrections == 0:
        return product
    k, n = 1 << p.bit_length() - 1, 1 << q.bit_length() - 1
    if Fraction(p, k) + Fraction(q, n) - 2 < 1:
        return product + slow_int(p - k, q - n, corrections - 1)
    return product + slow_int(2 * k - p, 2 * n - q, corrections - 1)


@pytest.mark.parametrize("corrections", [0, 1, 2, 3])
def test_multiply_int_matches_fractions(corrections):
    p, q = (grid[::3, ::5].ravel() for grid in EIGHT_BITS)
    want = [slow_int(int(a), int(b), corrections) for a, b in zip(p, q, strict=True)]
    assert multiply_int(p, q, corrections=corrections).tolist() == want
    assert [multiply_int(int(a), int(b), corrections=corrections) for a, b in zip(p, q, strict=True)] == want


@pytest.mark.parametrize("corrections", [0, 1, 2, 3])
def test_multiply_int_worst_cases(corrections):
    p, q = np.meshgrid(np.arange(1, 1024), np.arange(1, 1024))
    got = multiply_int(p, q, corrections=corrections)
    worst = mitchell.jacobsthal(corrections)
    assert np.all(got <= p * q)
    assert np.all((p * q - got) * worst**2 <= p * q)
    assert multiply_int(worst, worst, corrections=corrections) == worst**2 - 1


def test_multiply_int_means_of_the_brief():
    p, q = (grid[1:, 1:] for grid in EIGHT_BITS)
    mean = [100 * np.mean(1 - multiply_int(p, q, corrections=c) / (p * q)) for c in range(3)]
    assert mean == pytest.approx([3.788, 0.1268, 0.00254], rel=2e-3)
    mean = [100 * np.mean(1 - multiply_int(p, q, corrections=c, method="iterative") / (p * q)) for c in range(3)]
    assert mean == pytest.approx([8.913, 0.8337, 0.0708], rel=2e-3)


def test_iterative_is_exact_after_the_smaller_popcount_and_bounded_before():
    p, q = (grid[1:, 1:].ravel() for grid in EIGHT_BITS)
    blocks = np.minimum(np.bitwise_count(p), np.bitwise_count(q))
    for c in range(8):
        got = multiply_int(p, q, corrections=c, method="iterative")
        np.testing.assert_array_equal(got[blocks <= c + 1], (p * q)[blocks <= c + 1])
        assert np.all((p * q - got) * 4 ** (c + 1) < p * q)


def test_multiply_int_signs_zeros_and_kinds():
    assert multiply_int(-3, 3) == multiply_int(3, -3) == -8
    assert multiply_int(-3, -3) == 8
    assert multiply_int(0, 5) == multiply_int(5, 0) == multiply_int(0, 0) == 0
    p = np.array([-7, 0, 3, 127], np.int8)
    got = multiply_int(p, np.uint8(11))
    assert got.dtype == np.int64
    assert got.tolist() == [-72, 0, multiply_int(3, 11), multiply_int(127, 11)]
    assert multiply_int(p[:, None], p, corrections=2).shape == (4, 4)
    assert multiply_int(p[:, None], p, corrections=9).tolist() == np.outer(p.astype(int), p).tolist()
    assert multiply_int(np.zeros(0, int), 3).shape == (0,)
    assert isinstance(multiply_int(np.array(3), 3), np.ndarray)


def test_multiply_int_with_large_integers():
    assert multiply_int(3 << 100, 3 << 200) == 8 << 300
    huge = 3**200
    assert type(multiply_int(huge, huge)) is int
    assert multiply_int(huge, huge, corrections=400) == huge**2
    largest = np.array([2**31 - 1])
    got = multiply_int(largest, -largest, corrections=40)
    assert got.tolist() == [-((2**31 - 1) ** 2)]
    assert multiply_int(largest, largest)[0] == multiply_int(2**31 - 1, 2**31 - 1)


def test_operand_decomposition():
    p, q = (grid[1:, 1:] for grid in EIGHT_BITS)
    got = mitchell.operand_decomposition(p, q)
    np.testing.assert_array_equal((p | q) * (p & q) + (p & ~q) * (~p & q), p * q)
    np.testing.assert_array_equal(got, multiply_int(p | q, p & q) + multiply_int(p & ~q, ~p & q))
    error = 1 - got / (p * q)
    assert error.min() == 0
    assert error.max() == pytest.approx(1 / 9, abs=1e-15)
    assert 100 * error.mean() == pytest.approx(2.027, abs=1e-3)
    assert mitchell.operand_decomposition(-7, 11) == -mitchell.operand_decomposition(7, 11) == -76
    assert mitchell.operand_decomposition(5 << 90, 6) == mitchell.operand_decomposition(5, 6 << 90) == 7 << 92


def test_jacobsthal():
    assert [mitchell.jacobsthal(c) for c in range(5)] == [3, 11, 43, 171, 683]


# --- Powers of the word -------------------------------------------------------------------------------------


def octave(count=2**16, octaves=1):
    steps = np.arange(0, octaves * 2**23, octaves * 2**23 // count, dtype=np.uint32)
    return (steps + np.uint32(0x3F800000)).view(np.float32)


def test_reciprocal_squares_its_error():
    x = octave()
    for newton in range(4):
        error = 1 - mitchell.reciprocal(x, newton=newton) * x.astype(np.float64)
        assert abs(error).max() == pytest.approx(8.0 ** -(2**newton), rel=1e-6)
        assert np.all(error <= 1e-15) if newton == 0 else np.all(error >= -1e-15)


def test_reciprocal_is_the_word_trick_and_continues_it():
    x = np.random.default_rng(10).integers(0x00800000, 0x7E000000, 10_000, dtype=np.uint32).view(np.float32)
    got = mitchell.reciprocal(x)
    np.testing.assert_array_equal(got, (np.uint32(0x7F000000) - x.view(np.uint32)).view(np.float32))
    np.testing.assert_array_equal(got, divide(np.float64(1), x.astype(np.float64)))
    large = np.float32([3e38])  # the reciprocal is subnormal, and its word would be negative
    assert mitchell.reciprocal(large)[0] == divide(1.0, float(large[0]))


def test_rsqrt_errors_of_the_brief():
    x = octave(2**18, octaves=2)
    truth = 1 / np.sqrt(x.astype(np.float64))

    def span(**options):
        error = 100 * (mitchell.rsqrt(x, **options) / truth - 1)
        return error.min(), error.max()

    assert span(magic=0x5F400000, newton=0) == pytest.approx((0, 8.866), abs=2e-3)
    assert span(newton=0) == pytest.approx((-3.438, 3.396), abs=2e-3)
    assert span() == pytest.approx((-0.1752, 0), abs=1e-4)
    assert span(magic=0x5F37642F, newton=0) == pytest.approx((-3.421, 3.421), abs=2e-3)
    assert span(magic=0x5F375A86)[0] == pytest.approx(-0.1751, abs=1e-4)


def test_rsqrt_is_the_word_trick():
    x = np.random.default_rng(11).integers(0x00800000, 0x7F800000, 10_000, dtype=np.uint32).view(np.float32)
    want = (np.uint32(0x5F3759DF) - (x.view(np.uint32) >> 1)).view(np.float32)
    np.testing.assert_array_equal(mitchell.rsqrt(x, newton=0), want)


# --- Small formats ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_decode_matches_ml_dtypes(name):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    form = FORMATS[name]
    codes = np.arange(1 << form.bits)
    want = codes.astype(np.uint8).view(getattr(ml_dtypes, name)).astype(np.float64)
    np.testing.assert_array_equal(form.decode(codes), want)
    np.testing.assert_array_equal(np.signbit(form.decode(codes)), np.signbit(want))


@pytest.mark.parametrize("name", FORMATS)
def test_minifloat_products_of_all_codes(name):
    form = FORMATS[name]
    codes = np.arange(1 << form.bits)
    got, valid = form.multiply(codes[:, None], codes)
    values = [Fraction(v) if math.isfinite(v) else None for v in form.decode(codes)]
    smallest = Fraction(2) ** (1 - form.bias)
    largest = Fraction(float(form.decode(form.max_code)))
    for a, b in itertools.product(codes.tolist(), repeat=2):
        p, q = values[a], values[b]
        if p is None or q is None or abs(p) < smallest or abs(q) < smallest:
            assert not valid[a, b]
            continue
        product = slow_exp(slow_log(abs(p)) + slow_log(abs(q)))
        assert valid[a, b] == (smallest <= product <= largest)
        if valid[a, b]:
            assert values[got[a, b]] == (product if (p < 0) == (q < 0) else -product)


def rounding_peer(name):
    """Return adder codes and the exact products, with the codes that ml_dtypes rounds those to."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    form = FORMATS[name]
    codes = np.arange(1 << form.bits)
    got, valid = form.multiply(codes[:, None], codes)
    values = form.decode(codes)
    normal = np.where(np.isfinite(values), values, 0)
    product = np.multiply.outer(normal, normal)[valid]
    rounded = product.astype(getattr(ml_dtypes, name)).view(np.uint8)
    return form, got[valid], rounded, product


def test_one_fraction_bit_rounds_correctly():
    _, got, rounded, _ = rounding_peer("float4_e2m1fn")
    np.testing.assert_array_equal(got, rounded)
    assert len(got) > 0


@pytest.mark.parametrize("name", ["float6_e3m2fn", "float8_e5m2"])
def test_two_fraction_bits_give_a_nearest_value(name):
    form, got, rounded, product = rounding_peer(name)
    with np.errstate(invalid="ignore"):
        distance, best = abs(form.decode(got) - product), abs(form.decode(rounded) - product)
    np.testing.assert_array_equal(distance[np.isfinite(best)], best[np.isfinite(best)])
    if name == "float8_e5m2":
        assert (len(got), int(np.sum(got == rounded))) == (43_152, 37_752)


def test_three_fraction_bits_do_not():
    steps = 1 + np.arange(8) / 8
    codes = np.arange(0x38, 0x40)
    got, valid = FORMATS["float8_e4m3fn"].multiply(codes[:, None], codes)
    assert valid.all()
    ml_dtypes = pytest.importorskip("ml_dtypes")
    rounded = np.multiply.outer(steps, steps).astype(ml_dtypes.float8_e4m3fn).view(np.uint8)
    assert int(np.sum(got == rounded)) == 39


def test_minifloat_of_sixteen_bits_is_float16():
    half = mitchell.Minifloat(5, 10, 15, 0x7BFF)
    codes = np.random.default_rng(12).integers(0, 2**16, (2, 4000))
    got, valid = half.multiply(*codes)
    want = to_words(multiply(*codes.astype(np.uint16).view(np.float16)))
    np.testing.assert_array_equal(got[valid], want[valid])
    assert 0.3 < valid.mean() < 0.9
    np.testing.assert_array_equal(half.decode(codes), codes.astype(np.uint16).view(np.float16).astype(float))
    assert half.bits == 16


def test_formats_are_frozen_and_complete():
    assert list(FORMATS) == [
        "float4_e2m1fn",
        "float6_e2m3fn",
        "float6_e3m2fn",
        "float8_e4m3fn",
        "float8_e5m2",
    ]
    assert [form.bits for form in FORMATS.values()] == [4, 6, 6, 8, 8]
    with pytest.raises(AttributeError, match="cannot assign"):
        FORMATS["float8_e5m2"].bias = 3


# --- Matrix products ----------------------------------------------------------------------------------------


def assert_matmul_is_sum_of_products(a, b, offset=0.0, dust=0.0):
    products = multiply(a[..., :, None], b, offset=offset).astype(np.float64)
    got, want = matmul(a, b, offset=offset), products.sum(-2)
    assert got.dtype == np.float32
    assert got.shape == want.shape
    excess = abs(got - want) - 4e-6 * abs(products).sum(-2) - dust
    assert excess.max(initial=0) <= 0, excess.max()


@pytest.mark.parametrize("offset", [0.0, 0.0566, -0.25])
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 64, 10), (65, 300, 33), (3, 5000, 2), (300, 1, 300), (1, 257, 600)])
def test_matmul_accuracy(shape, offset):
    m, k, n = shape
    rng = np.random.default_rng(13)
    a, b = rng.standard_normal((m, k)).astype(np.float32), rng.standard_normal((k, n)).astype(np.float32)
    assert_matmul_is_sum_of_products(a, b, offset)
    assert_matmul_is_sum_of_products(abs(a), abs(b), offset)


@pytest.mark.parametrize("zeros", [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("scale", [1.0, 1e-15, 1e15])
def test_matmul_with_zeros(zeros, scale):
    rng = np.random.default_rng(14)
    a, b = rng.standard_normal((2, 90, 90)).astype(np.float32) * np.float32(scale)
    for matrix, sparse in zip((a, b), zeros, strict=True):
        if sparse:
            matrix[rng.random(matrix.shape) < 0.5] = 0
            matrix[3], matrix[:, 5] = 0, -0.0
    assert_matmul_is_sum_of_products(a, b)
    got = matmul(a, b)
    if zeros[0]:
        assert not got[3].any()
    if zeros[1]:
        assert not got[:, 5].any()


def test_zeros_leave_no_dust_even_when_products_cancel():
    a = np.float32([[3, -3, 0, 0], [0, 0, 0, 0], [1, 0, 0, 2]])
    b = np.float32([[5, 1], [5, 0], [7, 9], [0, 11]])
    assert matmul(a, b).tolist() == [[0, 3], [0, 0], [5, 23]]
    assert not matmul(np.zeros((2, 3), np.float32), b[:3]).any()


def test_zeros_among_wide_ranges_use_gates():
    # Dust could be mistaken for these results, so the zeros are cleared one by one
    a = np.float32([[1e-16, 0, 1e16], [0, 0, 0]])
    b = np.float32([[1e-16], [1e16], [0]])
    np.testing.assert_array_equal(matmul(a, b), [[multiply(a[0, 0], b[0, 0])], [0]])


def test_matmul_over_a_huge_range_falls_back():
    rng = np.random.default_rng(15)
    a = (rng.standard_normal((20, 30)) * 2.0 ** rng.integers(-120, 60, (20, 30))).astype(np.float32)
    b = (rng.standard_normal((30, 20)) * 2.0 ** rng.integers(-120, 60, (30, 20))).astype(np.float32)
    a[4], b[:, 2] = 0, 1e-42
    assert_matmul_is_sum_of_products(a, b)
    assert_matmul_is_sum_of_products(a, b, offset=0.1)


def test_matmul_special_values_follow_ieee():
    a = np.float32([[np.inf, 1], [np.nan, 1], [0, 1], [np.inf, -np.inf]])
    b = np.float32([[1, 0], [1, 1]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = matmul(a, b)
    np.testing.assert_array_equal(got, [[np.inf, np.nan], [np.nan, np.nan], [1, 1], [np.nan, np.nan]])
    assert np.isnan(matmul(np.zeros((1, 1), np.float32), np.float32([[np.inf]])))[0, 0]


def test_matmul_sums_do_not_overflow_on_the_way():
    a = np.float32([[2e38, 2e38, -2e38, -2e38]])
    assert matmul(a, np.ones((4, 1), np.float32)) == 0
    assert matmul(np.repeat(a, 64, axis=1), np.ones((256, 1), np.float32)) == 0
    assert matmul(np.float32([[3e38, 3e38]]), np.ones((2, 1), np.float32)) == np.inf


def test_matmul_shapes_and_strides():
    rng = np.random.default_rng(16)
    a = rng.standard_normal((2, 3, 4, 8)).astype(np.float32)
    b = rng.standard_normal((8, 5)).astype(np.float32)
    got = matmul(a, b)
    assert got.shape == (2, 3, 4, 5)
    np.testing.assert_array_equal(got[1, 2], matmul(a[1, 2].copy(), b))
    np.testing.assert_allclose(matmul(a[0, 0, 0], b), got[0, 0, 0], atol=2e-6)  # BLAS: another order
    np.testing.assert_array_equal(matmul(a[..., ::-1], b[::-1]), matmul(a[..., ::-1].copy(), b[::-1].copy()))
    np.testing.assert_array_equal(matmul(a, np.asfortranarray(b)), got)
    assert matmul(a[:0], b).shape == (0, 3, 4, 5)
    assert matmul(a, b[:, :0]).shape == (2, 3, 4, 0)
    empty = matmul(np.zeros((2, 0), np.float32), np.zeros((0, 3), np.float32))
    np.testing.assert_array_equal(empty, np.zeros((2, 3)))
    tensor = matmul(torch.from_numpy(a).requires_grad_(), torch.from_numpy(b))
    assert tensor.dtype == torch.float32
    np.testing.assert_array_equal(tensor.numpy(), got)


def test_matmul_memory_stays_far_below_the_cube():
    rng = np.random.default_rng(17)
    a, b = rng.standard_normal((2, 384, 384)).astype(np.float32)
    tracemalloc.start()
    matmul(a, b)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12e6  # the bound of the brief is 48 MB, the cube has 226 MB


def test_nocarry_product_is_two_gemms_of_the_right_sum():
    rng = np.random.default_rng(18)
    a, b = rng.standard_normal((40, 50)), rng.standard_normal((50, 30))
    a[3, :], b[5, 2] = 0, 0
    a, b = a.astype(np.float32), b.astype(np.float32)
    got = matmul(a, b, carry=False)
    exponents = np.floor(np.log2(np.where(a == 0, 1, abs(a)))), np.floor(np.log2(np.where(b == 0, 1, abs(b))))
    powers = 2.0 ** exponents[0][:, :, None] * 2.0 ** exponents[1]
    x, y = abs(a) / 2.0 ** exponents[0] - 1, abs(b) / 2.0 ** exponents[1] - 1
    sign = np.sign(a)[:, :, None] * np.sign(b)
    want = (sign * powers * (1 + x[:, :, None] + y)).sum(1)
    np.testing.assert_allclose(got, want, atol=2e-5)
    assert got.dtype == np.float32
    assert matmul(np.float32([[1.5]]), np.float32([[1.5]]), carry=False) == 2
    assert matmul(np.float32([[1.75]]), np.float32([[1.75]]), carry=False) == 2.5


@pytest.mark.parametrize("bits", [0, 1, 2, 3, 5])
def test_carry_levels_give_exactly_the_mitchell_product(bits):
    rng = np.random.default_rng(19)

    def draw(shape):
        values = (1 + rng.integers(0, 1 << bits, shape) / (1 << bits)) * 2.0 ** rng.integers(-4, 4, shape)
        return values * rng.choice([-1, 0, 1], shape)

    a, b = draw((2, 9, 12)), draw((12, 7))
    want = multiply(a[..., None], b).sum(-2)
    np.testing.assert_array_equal(mitchell.carry_levels_matmul(a, b, bits), want)


def test_carry_levels_on_all_seven_bit_fractions():
    steps = 1 + np.arange(128) / 128
    got = mitchell.carry_levels_matmul(steps[:, None], steps[None], 7)
    np.testing.assert_array_equal(got, multiply(steps[:, None], steps))


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_carry_levels_take_two_to_the_m_products_and_no_fewer_would_do(bits):
    steps = 1 + np.arange(1 << bits) / (1 << bits)
    assert len(list(mitchell._carry_factors(steps[:, None], steps[None], bits))) == 2**bits
    assert np.linalg.matrix_rank(multiply(steps[:, None], steps)) == 2**bits


# --- Neural networks ----------------------------------------------------------------------------------------


def layer_and_input(mode, offset=0.0, sparse=True):
    rng = np.random.default_rng(20)
    layer = MitchellLinear(12, 7, offset=offset, backward=mode)
    x = rng.standard_normal((3, 5, 12)).astype(np.float32)
    weight = rng.standard_normal((7, 12)).astype(np.float32)
    if sparse:
        x[rng.random(x.shape) < 0.3], weight[rng.random(weight.shape) < 0.2] = 0, 0
    layer.weight.data, x = torch.from_numpy(weight), torch.from_numpy(x).requires_grad_()
    g = torch.from_numpy(rng.standard_normal((3, 5, 7)).astype(np.float32))
    g[0, 0] = 0
    return layer, x, g


def gradients(layer, x, g):
    layer(x).backward(g)
    return x.grad, layer.weight.grad, layer.bias.grad


@pytest.mark.parametrize("bias", [True, False])
def test_linear_forward_is_matmul_plus_bias(bias):
    layer = MitchellLinear(6, 4, bias=bias, offset=0.05)
    x = torch.from_numpy(np.random.default_rng(21).standard_normal((2, 3, 6)).astype(np.float32))
    want = matmul(x, layer.weight.t(), offset=0.05) + (layer.bias if bias else 0)
    assert torch.equal(layer(x), want)
    torch.testing.assert_close(layer(x[0, 0]), want[0, 0])
    assert (layer.bias is None) is not bias
    assert layer.weight.shape == (4, 6)


def test_exact_backward_is_that_of_an_ordinary_layer():
    layer, x, g = layer_and_input("exact", offset=0.05)
    y = x.detach().clone().requires_grad_()
    weight = layer.weight.detach().clone().requires_grad_()
    torch.nn.functional.linear(y, weight, layer.bias.detach()).backward(g)
    to_x, to_weight, to_bias = gradients(layer, x, g)
    torch.testing.assert_close(to_x, y.grad)
    torch.testing.assert_close(to_weight, weight.grad)
    torch.testing.assert_close(to_bias, g.sum((0, 1)))


@pytest.mark.parametrize("offset", [0.0, 0.0566])
def test_mitchell_backward_is_the_same_products_with_matmul(offset):
    layer, x, g = layer_and_input("mitchell", offset)
    to_x, to_weight, _ = gradients(layer, x, g)
    flat, rows = g.reshape(-1, 7).contiguous(), x.detach().reshape(-1, 12)
    assert torch.equal(to_x.reshape(-1, 12), matmul(flat, layer.weight.detach(), offset=offset))
    assert torch.equal(to_weight, matmul(flat.t().contiguous(), rows, offset=offset))
    assert not torch.equal(to_x.reshape(-1, 12), flat @ layer.weight.detach())


@pytest.mark.parametrize("offset", [0.0, 0.3, 0.9, -0.3])
def test_slope_backward_is_the_sum_of_slopes(offset):
    layer, x, g = layer_and_input("slope", offset)
    to_x, to_weight, _ = gradients(layer, x, g)
    p, w, h = (value.detach().double().numpy() for value in (x.reshape(-1, 12), layer.weight, g.reshape(-1, 7)))
    want_x = np.einsum("bo,boi->bi", h, mitchell.slope(p[:, None], w[None], offset=offset))
    want_w = np.einsum("bo,boi->oi", h, mitchell.slope(w[None], p[:, None], offset=offset))
    np.testing.assert_allclose(to_x.reshape(-1, 12).numpy(), want_x, atol=3e-6)
    np.testing.assert_allclose(to_weight.numpy(), want_w, atol=1e-5)


def nocarry_layer(mode):
    layer, x, g = layer_and_input(mode)
    layer.carry = False
    return layer, x, g


def signed_power(values):
    return torch.sign(values) * 2.0 ** torch.floor(torch.log2(values.abs().clamp(min=1e-30)))


def test_forward_without_carry_is_two_matrix_products():
    layer, x, _ = nocarry_layer("exact")
    w = layer.weight.detach()
    want = x @ signed_power(w).T + signed_power(x) @ (w - signed_power(w)).T + layer.bias
    torch.testing.assert_close(layer(x), want)
    assert not torch.allclose(layer(x), matmul(x.detach(), w.t()) + layer.bias, atol=1e-2)


def test_exact_backward_without_carry_is_that_of_an_ordinary_layer():
    with_carry, without = layer_and_input("exact"), nocarry_layer("exact")
    for one, other in zip(gradients(*with_carry), gradients(*without), strict=True):
        assert torch.equal(one, other)


def test_mitchell_backward_without_carry_uses_the_same_products():
    layer, x, g = nocarry_layer("mitchell")
    to_x, to_weight, _ = gradients(layer, x, g)
    flat, rows = g.reshape(-1, 7), x.detach().reshape(-1, 12)
    assert torch.equal(to_x.reshape(-1, 12), matmul(flat, layer.weight.detach(), carry=False))
    assert torch.equal(to_weight, matmul(flat.t(), rows, carry=False))


def test_slope_backward_without_carry_is_the_derivative_within_an_octave():
    layer, x, g = nocarry_layer("slope")
    gradients(layer, x, g)
    flat, rows = g.reshape(-1, 7), x.detach().reshape(-1, 12)
    torch.testing.assert_close(x.grad.reshape(-1, 12), flat @ signed_power(layer.weight.detach()))
    torch.testing.assert_close(layer.weight.grad, flat.t() @ signed_power(rows))
    p, q, step = np.float32(1.25), np.float32([[1.75]]), np.float32(2**-10)
    change = (matmul(np.float32([[p + step]]), q, carry=False) - matmul(np.float32([[p]]), q, carry=False)) / step
    assert change.item() == signed_power(torch.tensor(1.75)).item()


def test_slope_backward_is_the_derivative_of_the_layer():
    layer, x, g = layer_and_input("slope", sparse=False)
    to_x = gradients(layer, x, g)[0].numpy()
    p, w = x.detach().double().numpy(), layer.weight.detach().double().numpy()

    def output(inputs):  # in float64, where a step of 2**-30 never crosses a kink of these numbers
        return np.sum(multiply(inputs[..., None, :], w).sum(-1) * g.double().numpy())

    for index in [(0, 1, 0), (1, 2, 5), (2, 4, 11), (1, 0, 3)]:
        step = np.zeros_like(p)
        step[index] = 2.0**-30 * np.sign(p[index])
        change = (output(p + step) - output(p)) / step[index]
        assert to_x[index] == pytest.approx(change, abs=2e-5)


@pytest.mark.parametrize("extreme", [1e-41, 3e38, 2e-38])
@pytest.mark.parametrize("where", ["x", "weight"])
def test_slope_backward_outside_the_plain_range(extreme, where):
    layer, x, g = layer_and_input("slope", offset=0.9)
    (x.data[1, 1] if where == "x" else layer.weight.data[1])[2] = extreme
    to_x = gradients(layer, x, g)[0].double().reshape(-1, 12).numpy()
    p, w, h = (value.detach().double().numpy() for value in (x.reshape(-1, 12), layer.weight, g.reshape(-1, 7)))
    want = np.einsum("bo,boi->bi", h, mitchell.slope(p[:, None], w[None], offset=0.9))
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(to_x, want.astype(np.float32), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("offset", [0.0, 0.9, -0.9])
def test_slope_backward_at_the_ends_of_the_exponent_range(offset):
    for weight, x in itertools.product([1e-41, 1e-38, 1.3e-38, 2.2e-38, 1e38, 3e38], [1.1, -1.9, 1e-40]):
        layer = MitchellLinear(1, 1, bias=False, offset=offset, backward="slope")
        layer.weight.data = torch.tensor([[weight]])
        value = torch.tensor([[x]], requires_grad=True)
        g = 1e20 if weight < 1 else 1e-20
        layer(value).backward(torch.tensor([[g]]))
        want = g * mitchell.slope(value.item(), layer.weight.item(), offset=offset)
        assert value.grad.item() == pytest.approx(want, rel=1e-6, abs=0)


@pytest.mark.parametrize("other", [1.0, 1e-41])
def test_slope_backward_has_one_offset_whatever_the_range_of_the_rest(other):
    """The fractions add up to 1 - 2**-23, and 0.75 * 2**-23 more, rounded to 2**-23, makes a carry."""
    layer = MitchellLinear(2, 1, bias=False, offset=0.75 * 2.0**-23, backward="slope")
    layer.weight.data = torch.tensor([[1.5 - 2.0**-23, 1.0]])
    x = torch.tensor([[1.5, other]], requires_grad=True)
    layer(x).backward(torch.tensor([[1.0]]))
    assert x.grad[0, 0].item() == 2.0


def test_gradients_cannot_be_differentiated_again():
    layer, x, g = layer_and_input("exact")
    (to_x,) = torch.autograd.grad(layer(x), x, g.requires_grad_(), create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        to_x.sum().backward()


def test_slope_backward_does_not_hide_nan():
    layer, x, g = layer_and_input("slope")
    x.data[0, 1, 0] = math.nan
    to_x, to_weight, _ = gradients(layer, x, g)
    assert torch.isnan(to_x[0, 1, 0])
    assert torch.isnan(to_weight[:, 0]).all()
    assert torch.isfinite(to_weight[:, 1:]).all()


def test_only_needed_gradients_are_computed():
    layer, x, g = layer_and_input("mitchell")
    layer.weight.requires_grad_(False)
    layer(x.detach())  # nothing to do
    layer(x).backward(g)
    assert layer.weight.grad is None
    assert x.grad is not None


def test_training_with_every_backward_mode_lowers_the_loss():
    rng = np.random.default_rng(22)
    x = torch.from_numpy(rng.standard_normal((64, 8)).astype(np.float32))
    y = torch.from_numpy(rng.integers(0, 3, 64))
    for mode, carry in itertools.product(("exact", "mitchell", "slope"), (True, False)):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            plain = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
        net = convert(plain, backward=mode, carry=carry)
        optimizer = torch.optim.Adam(net.parameters(), 0.02)
        losses = []
        for _ in range(60):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.5 * losses[0]


def network():
    shared = torch.nn.Linear(4, 4)
    inner = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4), shared, shared)
    return torch.nn.ModuleDict({"inner": inner, "head": torch.nn.Linear(4, 2, bias=False)})


def test_convert_shares_parameters_and_leaves_the_original_alone():
    net = network().eval()
    state = copy.deepcopy(net.state_dict())
    converted = convert(net, offset=0.05, backward="mitchell")
    for (name, old), (again, new) in zip(net.named_parameters(), converted.named_parameters(), strict=True):
        assert name == again
        assert new is old
    assert [type(m) for m in net.modules() if isinstance(m, torch.nn.Linear)] == [torch.nn.Linear] * 3
    kinds = [m for m in converted.modules() if isinstance(m, torch.nn.Linear)]
    assert [type(m) for m in kinds] == [MitchellLinear] * 3
    assert {(m.offset, m.backward, m.training) for m in kinds} == {(0.05, "mitchell", False)}
    assert converted["inner"][2] is converted["inner"][3]
    converted.train()
    converted["inner"](torch.randn(8, 4, generator=torch.Generator().manual_seed(0)))  # moves batch statistics
    assert not net.training
    assert all(torch.equal(net.state_dict()[key], value) for key, value in state.items())
    assert not torch.equal(converted.state_dict()["inner.1.running_mean"], state["inner.1.running_mean"])


def test_convert_handles_a_bare_layer_hooks_and_its_own_result():
    plain = torch.nn.Linear(3, 2)
    seen = []
    plain.register_forward_hook(lambda *_: seen.append(1))
    converted = convert(plain)
    assert type(converted) is MitchellLinear
    assert type(plain) is torch.nn.Linear
    x = torch.tensor([[1.5, -3.0, 0.75]])
    assert torch.equal(converted(x), matmul(x, plain.weight.t()) + plain.bias)
    assert len(seen) == 1
    again = convert(converted, backward="slope", carry=False)
    assert (again.backward, converted.backward) == ("slope", "exact")
    assert (again.carry, converted.carry) == (False, True)
    assert torch.equal(again(x), matmul(x, plain.weight.t(), carry=False) + plain.bias)


def test_linear_survives_pickle_and_deepcopy():
    layer = MitchellLinear(3, 2, offset=0.1, backward="slope")
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    for twin in (
        pickle.loads(pickle.dumps(layer)),
        copy.deepcopy(layer),
        torch.load(buffer, weights_only=False),
    ):
        assert type(twin) is MitchellLinear
        assert (twin.offset, twin.backward, twin.carry) == (0.1, "slope", True)
        assert torch.equal(twin.weight, layer.weight)
    assert repr(layer) == "MitchellLinear(in_features=3, out_features=2, bias=True, offset=0.1, backward='slope')"
    assert repr(MitchellLinear(1, 1, carry=False)).endswith("offset=0.0, backward='exact', carry=False)")


# --- Energy -------------------------------------------------------------------------------------------------


def test_energy_savings_of_the_brief():
    pj = mitchell.HOROWITZ_PJ
    costs = pj["float32 multiply"], pj["int32 add"]
    assert mitchell.energy_saving(*costs) == pytest.approx(3.6 / 3.7)
    assert mitchell.energy_saving(*costs, pj["float32 add"]) == pytest.approx(3.6 / 4.6)
    sram = mitchell.energy_saving(*costs, pj["float32 add"], pj["read 64 bits, 8 KB SRAM"], [1, 10])
    assert sram.tolist() == pytest.approx([3.6 / 14.6, 3.6 / 5.6])
    assert mitchell.energy_saving(*costs, pj["float32 add"], pj["read 64 bits, DRAM (low)"]) < 0.005
    with pytest.raises(TypeError, match="item assignment"):
        pj["int8 add"] = 0


# --- Bad input ----------------------------------------------------------------------------------------------

F32 = np.ones(3, np.float32)


@pytest.mark.parametrize("routine", [multiply, divide])
@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (F32, np.ones(3), "NumPy float32 and NumPy float64"),
        (F32, np.float64(2), "NumPy float32 and NumPy float64"),
        (F32, np.ones(3, int), "NumPy float32 and NumPy int64"),
        (np.ones(3, int), np.ones(3, int), "NumPy int64 and NumPy int64"),
        (np.ones(3, int), 2.0, "NumPy int64 and Python float"),
        (F32, torch.ones(3), "NumPy float32 and torch.float32 tensor"),
        (torch.ones(3), torch.ones(3).double(), "torch.float32 tensor and torch.float64 tensor"),
        (
            torch.ones(3).to(torch.float8_e5m2),
            torch.ones(3).to(torch.float8_e5m2),
            "torch.float8_e5m2.*FORMATS",
        ),
        (torch.ones(3, dtype=torch.int32), 1.0, "torch.int32 tensor"),
        (F32 + 1j, 1.0, "NumPy complex64"),
        (np.ones(3, np.longdouble), 1.0, "NumPy (longdouble|float128|float64|float96)"),
        ([1.0], F32, "Python list and NumPy float32"),
        (True, F32, "Python bool"),
        (F32, None, "Python NoneType"),
        (np.ma.masked_array(F32), F32, "MaskedArray|NumPy float32"),
    ],
)
def test_types_that_do_not_fit_are_refused(routine, a, b, message):
    with pytest.raises(TypeError, match=message):
        routine(a, b)


def test_tensors_must_be_dense_and_on_the_cpu():
    with pytest.raises(TypeError, match="on the CPU, got torch.strided on meta"):
        multiply(torch.ones(3, device="meta"), 2.0)
    with pytest.raises(TypeError, match="dense"):
        multiply(torch.ones(3).to_sparse(), torch.ones(3).to_sparse())


@pytest.mark.parametrize("offset", [1.0, -1.0, 2.5, math.nan, math.inf])
def test_offset_out_of_range(offset):
    calls = [
        lambda: multiply(F32, F32, offset=offset),
        lambda: divide(F32, F32, offset=offset),
        lambda: matmul(F32, F32[:, None], offset=offset),
        lambda: MitchellLinear(2, 2, offset=offset),
        lambda: convert(torch.nn.Linear(2, 2), offset=offset),
        lambda: mitchell.relative_error(0.5, 0.5, offset=offset),
        lambda: mitchell.slope(1.0, 1.0, offset=offset),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=f"offset must lie strictly between -1 and 1, got {offset}"):
            call()


def test_shapes_that_do_not_fit():
    a, b = np.ones((2, 3), np.float32), np.ones((2, 4), np.float32)
    for call in (multiply, divide, mitchell.raw_multiply, mitchell.relative_error, mitchell.slope):
        with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 4\)"):
            call(a * 0.5 if call is mitchell.relative_error else a, b * np.float32(0.5))
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 4\)"):
        multiply(torch.from_numpy(a), torch.from_numpy(b))
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 4\)"):
        multiply_int(a.astype(int), b.astype(int))
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 4\)"):
        FORMATS["float8_e5m2"].multiply(a.astype(int), b.astype(int))
    for x, y in ((a, b), (a, b[0]), (a[0, 0], b), (a, np.ones((1, 3, 4), np.float32))):
        with pytest.raises(ValueError, match=r"want shapes \(..., K\) and \(K, N\), got \("):
            matmul(np.asarray(x), y)
    with pytest.raises(ValueError, match="want shapes"):
        mitchell.carry_levels_matmul(a, b, 1)


def test_matmul_bad_input():
    with pytest.raises(TypeError, match="NumPy float64 and NumPy float64"):
        matmul(np.ones((2, 2)), np.ones((2, 2)))
    with pytest.raises(TypeError, match="torch.float32 tensor and NumPy float32"):
        matmul(torch.ones(2, 2), np.ones((2, 2), np.float32))
    with pytest.raises(TypeError, match="torch.float16 tensor"):
        matmul(torch.ones(2, 2).half(), torch.ones(2, 2).half())
    with pytest.raises(TypeError, match="Python list"):
        matmul([[1.0]], [[1.0]])
    with pytest.raises(ValueError, match="carry=False cannot be combined with an offset, got 0.1"):
        matmul(F32, F32[:, None], offset=0.1, carry=False)
    with pytest.raises(ValueError, match="carry=False needs finite entries"):
        matmul(F32 * np.inf, F32[:, None], carry=False)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan])
def test_log2_wants_positive_finite_numbers(bad):
    with pytest.raises(ValueError, match="log2: x must be positive and finite"):
        mitchell.log2([1.0, bad])


def test_other_domains():
    with pytest.raises(ValueError, match="exp2: u must be finite"):
        mitchell.exp2(math.nan)
    with pytest.raises(ValueError, match=r"gap: x must lie in \[0, 1\]"):
        mitchell.gap(1.5)
    for x, y in ((1.0, 0.5), (0.5, -0.1), (math.nan, 0)):
        with pytest.raises(ValueError, match=r"fractions x and y must lie in \[0, 1\)"):
            mitchell.relative_error(x, y)
    for base in (1.0, 0.5, math.inf, math.nan):
        with pytest.raises(ValueError, match="base must be finite and above 1"):
            mitchell.relative_error(0.5, 0.5, base=base)
    with pytest.raises(ValueError, match="op must be one of 'multiply', 'divide', got 'add'"):
        mitchell.relative_error(0.5, 0.5, op="add")
    with pytest.raises(ValueError, match="slope: p and q must be finite"):
        mitchell.slope(math.inf, 1.0)
    with pytest.raises(ValueError, match="fraction_bits must be at least 1, got 0"):
        mitchell.lmul_offset(0)
    with pytest.raises(TypeError, match="fraction_bits must be an integer, got Python float"):
        mitchell.lmul_offset(3.0)
    with pytest.raises(ValueError, match="corrections must be at least 0, got -1"):
        mitchell.jacobsthal(-1)


def test_multiply_int_bad_input():
    for bad in (
        1.5,
        True,
        np.float64(2),
        np.array([1.0]),
        np.array([True]),
        [1, 2],
        torch.ones(2, dtype=torch.int32),
        "3",
    ):
        for call in (multiply_int, mitchell.operand_decomposition):
            with pytest.raises(TypeError, match="q must be an integer or an ndarray of integers, got"):
                call(3, bad)
    for bad in (np.array([2**31]), np.array([-(2**31)]), np.array([2**63], np.uint64)):
        with pytest.raises(OverflowError, match="p must stay below"):
            multiply_int(bad, 1)
    with pytest.raises(OverflowError, match="q must stay below"):
        multiply_int(np.array([1]), 2**80)
    with pytest.raises(ValueError, match="corrections must be at least 0, got -1"):
        multiply_int(3, 3, corrections=-1)
    with pytest.raises(TypeError, match="corrections must be an integer, got Python bool"):
        multiply_int(3, 3, corrections=True)
    with pytest.raises(ValueError, match="method must be one of 'mitchell', 'iterative', got 'babic'"):
        multiply_int(3, 3, method="babic")


@pytest.mark.parametrize("routine", [mitchell.reciprocal, mitchell.rsqrt])
def test_power_routines_bad_input(routine):
    for bad in (0.0, -1.0, 1e-40, math.inf, math.nan, -0.0):
        with pytest.raises(ValueError, match="x must be positive and normal"):
            routine(np.float32([1, bad]))
    for bad in (np.ones(2), 1.0, torch.ones(2), np.ones(2, np.uint32)):
        with pytest.raises(TypeError, match="x must be a float32 ndarray, got"):
            routine(bad)
    with pytest.raises(ValueError, match="newton must be at least 0"):
        routine(F32, newton=-1)
    with pytest.raises(ValueError, match="magic must be below"):
        routine(F32, magic=2**31)
    with pytest.raises(TypeError, match="magic must be an integer, got Python float"):
        routine(F32, magic=1.0)


def test_raw_multiply_bad_input():
    for bad in (np.ones(3), 2.0, torch.ones(3), [1.0]):
        with pytest.raises(TypeError, match="b must be a float32 ndarray, got"):
            mitchell.raw_multiply(F32, bad)


def test_minifloat_bad_input():
    form = FORMATS["float4_e2m1fn"]
    for bad in ([16], [-1]):
        with pytest.raises(ValueError, match=r"codes must lie in \[0, 16\)"):
            form.decode(bad)
        with pytest.raises(ValueError, match=r"codes must lie in \[0, 16\)"):
            form.multiply(1, bad)
    with pytest.raises(TypeError, match="codes must be integers, got float64"):
        form.decode([1.0])
    with pytest.raises(ValueError, match="1 to 10 exponent bits"):
        mitchell.Minifloat(11, 2, 1, 7)
    for code in (1, 8):
        with pytest.raises(ValueError, match="max_code must be a normal positive code"):
            mitchell.Minifloat(2, 1, 1, code)


def test_carry_levels_bad_input():
    with pytest.raises(ValueError, match="a has a fraction that is no multiple of 1/2"):
        mitchell.carry_levels_matmul([[1.25]], [[1.5]], 1)
    with pytest.raises(ValueError, match="b must be finite"):
        mitchell.carry_levels_matmul([[1.5]], [[math.inf]], 1)
    with pytest.raises(ValueError, match="at most 12"):
        mitchell.carry_levels_matmul([[1.5]], [[1.5]], 13)


def test_linear_and_convert_bad_input():
    with pytest.raises(ValueError, match="backward must be one of 'exact', 'mitchell', 'slope', got 'none'"):
        MitchellLinear(2, 2, backward="none")
    with pytest.raises(ValueError, match="backward must be one of"):
        convert(torch.nn.Linear(2, 2), backward="none")
    for build in (lambda **k: MitchellLinear(2, 2, **k), lambda **k: convert(torch.nn.Linear(2, 2), **k)):
        with pytest.raises(ValueError, match="carry=False cannot be combined with an offset, got 0.05"):
            build(offset=0.05, carry=False)
    with pytest.raises(TypeError, match="want a torch.nn.Module, got ndarray"):
        convert(F32)
    weighted = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(2, 2))
    for net in (torch.nn.Sequential(weighted), torch.nn.Sequential(torch.nn.LazyLinear(2))):
        with pytest.raises(ValueError, match="the linear layer '0' is lazy or parametrized"):
            convert(net)
    with pytest.raises(TypeError, match="torch.float64 tensor"):
        MitchellLinear(2, 2).double()(torch.ones(2).double())
    with pytest.raises(ValueError, match="want shapes"):
        MitchellLinear(2, 3)(torch.ones(4))


def test_energy_bad_input():
    for bad in (
        (0, 0.1),
        (math.nan, 0.1),
        (3.7, -0.1),
        (3.7, 0.1, 0, 0, 0),
        (3.7, 0.1, 0, -1),
        (3.7, 0.1, math.nan),
    ):
        with pytest.raises(ValueError, match="energy_saving: "):
            mitchell.energy_saving(*bad)


# --- The module itself --------------------------------------------------------------------------------------


def documented():
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = finder.find(mitchell) + finder.find(MitchellLinear, "MitchellLinear", globs=vars(mitchell).copy())
    return {test.name: test for test in found if test.examples}


@pytest.mark.parametrize("name", sorted(documented()))
def test_docstring_examples(name):
    test = documented()[name]
    test.globs["MitchellLinear"] = MitchellLinear
    runner = doctest.DocTestRunner()
    output = io.StringIO()
    runner.run(test, out=output.write)
    assert runner.failures == 0, output.getvalue()


def test_every_public_name_is_documented_with_its_label_and_an_example():
    examples = " ".join(documented())
    for name in mitchell.__all__:
        value = getattr(mitchell, name)
        if not callable(value) or value is mitchell.WorstError:
            continue
        assert "chapter mitchell" in value.__doc__, name
        assert name in examples, name
        assert "eq-mitchell-" in value.__doc__ or name in ("convert",), name


def run_python(code):
    environment = {**os.environ, "PYTHONPATH": str(Path(mitchell.__file__).parents[1])}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


def test_numpy_use_needs_no_torch():
    code = """
import sys
from explainers import mitchell
assert "torch" not in sys.modules, "imported without need"
sys.modules["torch"] = None
import numpy as np
x = np.ones((2, 2), np.float32)
assert mitchell.multiply(3.0, 3.0) == 8 and (mitchell.matmul(x, x) == 2).all()
try:
    mitchell.MitchellLinear
except ImportError:
    print("no torch")
"""
    done = run_python(code)
    assert done.stdout == "no torch\n", done.stderr


def test_unknown_attributes_are_still_errors():
    with pytest.raises(AttributeError, match="has no attribute 'multipy'"):
        _ = mitchell.multipy


def test_calls_leave_the_random_state_alone():
    state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state().clone()  # noqa: NPY002
    convert(network_without_seed := torch.nn.Identity())
    matmul(np.ones((3, 3), np.float32), np.ones((3, 3), np.float32))
    assert isinstance(network_without_seed, torch.nn.Identity)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_state)


# --- Found by `make mutate` -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("units", "slope"), [(0.4, 1.0), (0.6, 2.0), (-0.4, 1.0), (1.0, 2.0)])
def test_an_offset_is_rounded_to_the_last_place_before_it_decides_on_a_carry(units, slope):
    p, q = np.array([[2 - 2.0**-23]], dtype=np.float32), np.ones((1, 1), dtype=np.float32)
    slopes = mitchell._word_slopes(p, q, units * 2.0**-23)
    assert slopes(slice(1), slice(1), slice(1)).item() == slope


def test_the_quoted_energies_are_in_the_ratios_that_the_talk_draws():
    """Of figure 1.1.9: a multiplication of 32 bits costs 31 additions, memory a hundred to a thousand operations."""
    pj = mitchell.HOROWITZ_PJ
    assert pj["int32 multiply"] == pytest.approx(31 * pj["int32 add"])
    assert pj["float32 multiply"] / pj["float16 multiply"] == pytest.approx(3.4, abs=0.05)
    assert pj["read 64 bits, DRAM (high)"] == 2 * pj["read 64 bits, DRAM (low)"]
    assert pj["read 64 bits, 1 MB SRAM"] == 5 * pj["read 64 bits, 32 KB SRAM"] == 10 * pj["read 64 bits, 8 KB SRAM"]
    assert list(pj.values())[:4] == sorted(list(pj.values())[:4])


def test_the_quoted_energies_are_those_of_the_table_of_horowitz():
    """Of the same figure 1.1.9, entry by entry, in its own order: additions, multiplications, memory."""
    additions = {"int8 add": 0.03, "int32 add": 0.1, "float16 add": 0.4, "float32 add": 0.9}
    products = {"int8 multiply": 0.2, "int32 multiply": 3.1, "float16 multiply": 1.1, "float32 multiply": 3.7}
    caches = {"read 64 bits, 8 KB SRAM": 10, "read 64 bits, 32 KB SRAM": 20, "read 64 bits, 1 MB SRAM": 100}
    memory = {"read 64 bits, DRAM (low)": 1300, "read 64 bits, DRAM (high)": 2600}
    assert dict(mitchell.HOROWITZ_PJ) == additions | products | caches | memory


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("place", [0, 1])
def test_one_entry_that_is_not_finite_is_enough_to_refuse_an_array(bad, place):
    spoiled, fine = np.ones((2, 2), np.float32), np.ones((2, 2), np.float32)
    spoiled[place, 1 - place] = bad
    with pytest.raises(ValueError, match="exp2: u must be finite"):
        mitchell.exp2(spoiled)
    for p, q in ((spoiled, fine), (fine, spoiled)):
        with pytest.raises(ValueError, match="slope: p and q must be finite"):
            mitchell.slope(p, q)
        with pytest.raises(ValueError, match="carry=False needs finite entries"):
            matmul(p, q, carry=False)
        with pytest.raises(ValueError, match=f"carry_levels_matmul: {'a' if p is spoiled else 'b'} must be finite"):
            mitchell.carry_levels_matmul(p, q, 1)


@pytest.mark.parametrize("bad", [1.0, 1.5, 2.0, -0.25, math.nan])
def test_one_fraction_outside_the_octave_is_enough_to_refuse_an_array(bad):
    for x, y in (([0.25, bad], [0.25, 0.5]), ([0.25, 0.5], [bad, 0.25]), (0.5, bad), (bad, 0.5)):
        with pytest.raises(ValueError, match=r"fractions x and y must lie in \[0, 1\)"):
            mitchell.relative_error(x, y)
    if bad != 1:
        with pytest.raises(ValueError, match=r"gap: x must lie in \[0, 1\]"):
            mitchell.gap([0.5, bad])


def test_one_entry_off_the_grid_is_enough_to_refuse_a_matrix():
    for a, b, name in (([[1.5, 1.25]], [[1.5], [1.0]], "a"), ([[1.5, 1.0]], [[1.5], [1.75]], "b")):
        with pytest.raises(ValueError, match=f"{name} has a fraction that is no multiple of 1/2"):
            mitchell.carry_levels_matmul(a, b, 1)


def test_carry_levels_take_up_to_twelve_bits():
    last = 2 - 2.0**-12  # the sum of two such fractions is 2 - 2**-11: 2 times (2 - 2**-11)
    assert mitchell.carry_levels_matmul([[last]], [[last]], 12) == 4 - 2.0**-10


def test_one_energy_out_of_range_is_enough_to_refuse_an_array():
    for place in range(5):
        for bad in (-1.0, math.nan):
            energies = [3.7, 0.1, 0.9, 10.0, 1.0]
            energies[place] = [energies[place], bad]
            with pytest.raises(ValueError, match="energy_saving: "):
                mitchell.energy_saving(*energies)
    assert mitchell.energy_saving(0.2, 0.03) == pytest.approx(0.85)  # below one picojoule, 8 bits
    assert mitchell.energy_saving(2, 0, 0, 1, 0.5) == pytest.approx(0.5)  # a pair fetched twice for each product
    assert mitchell.energy_saving(2, 1, memory=2) == pytest.approx(0.25)


def test_magnitudes_of_integer_arrays_are_bounded_on_both_sides():
    limit = 2**31
    for bad in ([limit, 0], [0, limit], [-limit, 0], [0, -limit], [-limit - 5, 7]):
        for call in (multiply_int, mitchell.operand_decomposition):
            with pytest.raises(OverflowError, match="q must stay below"):
                call(1, np.array(bad))
    p = np.array([limit - 1, 1 - limit, 3])
    assert multiply_int(p, 1).tolist() == p.tolist()
    assert multiply_int(p, -2).tolist() == (-2 * p).tolist()


@pytest.mark.parametrize("corrections", [0, 1, 3])
@pytest.mark.parametrize("method", ["mitchell", "iterative"])
def test_signs_of_integers_only_change_the_sign(corrections, method):
    sizes = [0, 1, 3, 11, 171, 12_345, 2**31 - 1]
    for p, q in itertools.product(sizes, repeat=2):
        size = multiply_int(p, q, corrections=corrections, method=method)
        decomposed = mitchell.operand_decomposition(p, q)
        for s, t in itertools.product((1, -1), repeat=2):
            assert multiply_int(s * p, t * q, corrections=corrections, method=method) == s * t * size
            got = multiply_int(np.array([s * p]), np.array([t * q]), corrections=corrections, method=method)
            assert got.tolist() == [s * t * size]
            assert mitchell.operand_decomposition(s * p, t * q) == s * t * decomposed
            assert mitchell.operand_decomposition(np.array([s * p]), t * q).tolist() == [s * t * decomposed]


def test_masked_and_object_arrays_of_integers_are_refused():
    for bad in (np.ma.masked_array([1, 2]), np.array([1, 2], dtype=object), np.array(["1"])):
        with pytest.raises(TypeError, match="p must be an integer or an ndarray of integers, got"):
            multiply_int(bad, 2)


@pytest.mark.parametrize("name", LAYOUT)
def test_an_invalid_operation_gives_a_quiet_nan(name):
    quiet = 1 << (LAYOUT[name][1] - 1)  # the first fraction bit, of IEEE 754-2008
    e, m = LAYOUT[name]
    zero, infinity = from_words([0], name), from_words([(2**e - 1) << m], name)
    for result in (multiply(zero, infinity), divide(zero, zero), divide(infinity, infinity)):
        assert int(to_words(result)[0]) & (quiet | (2**e - 1) << m) == quiet | (2**e - 1) << m


@pytest.mark.parametrize("routine", [multiply, divide])
def test_two_elements_in_a_chunk_do_not_change_each_other(routine):
    words = [0, 1, 0x007FFFFF, 0x3F000001, 0x60000001, 0x7F7FFFFF, 0x7F800000]
    values = from_words(words, "float32")
    table = to_words(routine(values[:, None], values)).ravel()
    firsts, seconds = np.triu_indices(len(words) ** 2, 1)
    a, b = np.repeat(values, len(words)), np.tile(values, len(words))
    together = [to_words(routine(a[[i, j]], b[[i, j]])) for i, j in zip(firsts, seconds, strict=True)]
    np.testing.assert_array_equal(together, np.stack([table[firsts], table[seconds]], 1))


def test_results_beyond_the_range_come_without_a_floating_point_error():
    big, one = np.float32([[3e38, 3e38]]), np.float32([[1]])
    with np.errstate(all="raise"):
        assert mitchell.exp2([2000.0, -2000.0]).tolist() == [math.inf, 0]
        assert mitchell.slope(1.75, [1.7e308, -5e-324], offset=0.5).tolist() == [math.inf, -1e-323]
        assert mitchell.slope(1.0, 5e-324, offset=-0.5) == 0
        assert multiply(np.float16([1]), -1e300)[0] == -math.inf
        assert matmul(big, big.T)[0, 0] == matmul(big, big.T, carry=False)[0, 0] == math.inf
        assert matmul(big, np.ones((2, 1), np.float32)) == math.inf
        assert np.isnan(matmul(np.float32([[np.inf, -np.inf]]), np.ones((2, 1), np.float32)))
        assert np.isnan(matmul(big * np.float32([1, -1]), big.T, carry=False))
        assert mitchell._slope_matmul(big, one, np.float32([[1], [1]]), 0.0) == math.inf
        assert np.isnan(mitchell._slope_matmul(np.float32([[np.inf, -np.inf]]), one, np.float32([[1], [1]]), 0.0))
        assert mitchell._slope_matmul(big, 0 * one, np.float32([[1], [1]]), 0.0) == math.inf


def test_a_float8_operand_is_sent_to_the_small_formats_whatever_the_other_is():
    small = torch.ones(3).to(torch.float8_e4m3fn)
    for a, b in ((small, torch.ones(3)), (torch.ones(3), small)):
        with pytest.raises(TypeError, match="FORMATS"):
            multiply(a, b)
    with pytest.raises(TypeError) as failure:
        multiply(F32, np.ones(3))
    assert "FORMATS" not in str(failure.value)


def test_the_magic_word_lies_strictly_between_zero_and_two_to_the_31():
    one = np.float32([1])
    # Word 1 less the word of one, less the bias: -2 * 127 octaves and one step of 2**-23
    assert mitchell.reciprocal(one, magic=1) == 2.0**-254 * (1 + 2.0**-23)
    assert mitchell.reciprocal(one, magic=2**31 - 1) == 2.0**1 * (2 - 2.0**-23)
    for routine in (mitchell.reciprocal, mitchell.rsqrt):
        with pytest.raises(ValueError, match="magic must be at least 1, got 0"):
            routine(one, magic=0)


def test_the_narrowest_and_the_widest_small_formats():
    powers = mitchell.Minifloat(2, 0, 1, 3)  # no fraction: 0, 1, 2, 4
    assert powers.decode(range(8)).tolist() == [0, 1, 2, 4, -0.0, -1, -2, -4]
    codes, valid = powers.multiply([1, 2, 2, 3], [2, 2, 3, 7])
    assert codes[valid].tolist() == [2, 3]
    assert valid.tolist() == [True, True, False, False]
    steps = mitchell.Minifloat(1, 2, 0, 7)  # one exponent bit: four subnormal numbers, four normal ones
    assert steps.decode(range(8)).tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5]
    wide = mitchell.Minifloat(10, 52, 511, (1 << 62) - (1 << 52) - 1)
    assert wide.bits == 63
    assert wide.decode([511 << 52, (511 << 52) + 1, 1 << 62]).tolist() == [1, 1 + 2.0**-52, 0]
    for fields in ((0, 2), (11, 2), (3, -1), (3, 53), (-1, 60)):
        with pytest.raises(ValueError, match="want 1 to 10 exponent bits and 0 to 52 fraction bits, got"):
            mitchell.Minifloat(*fields, 1, 5)


def test_the_largest_code_of_a_small_format_may_be_the_least_normal_or_the_first_of_the_last_exponent():
    assert mitchell.Minifloat(2, 1, 1, 2).decode([1, 2, 3, 6]).tolist()[:2] == [0.5, 1]
    assert np.isnan(mitchell.Minifloat(2, 1, 1, 2).decode([3, 4, 5, 7])).all()
    ends_at_four = mitchell.Minifloat(2, 1, 1, 6)  # what would be infinity is the last number
    np.testing.assert_array_equal(ends_at_four.decode([5, 6, 7, 14]), [3, 4, np.nan, -4])
    codes, valid = ends_at_four.multiply([4, 4], [4, 5])
    assert (codes[0], valid.tolist()) == (6, [True, False])


def test_one_code_out_of_range_is_enough_and_none_at_all_is_fine():
    form = FORMATS["float4_e2m1fn"]
    for bad in ([0, 16], [16, 0], [-1, 0], [0, -1], [3, 99]):
        with pytest.raises(ValueError, match=r"codes must lie in \[0, 16\)"):
            form.decode(bad)
    with pytest.raises(TypeError, match="codes must be integers, got bool"):
        form.decode([True])
    assert form.decode([]).shape == (0,)
    assert [part.shape for part in form.multiply(np.zeros((0, 3)), 1)] == [(0, 3), (0, 3)]


def test_matmul_of_one_term_is_multiply_bit_for_bit():
    # Among them offsets of a part of the last place, which are rounded and not cut off
    a, b = np.random.default_rng(23).standard_normal((2, 40)).astype(np.float32)
    for units in (0.0, 0.6, 1.4, -0.6, 474_789.6, -2_000_000.7):
        offset = units * 2.0**-23
        np.testing.assert_array_equal(
            matmul(a[:, None], b[None], offset=offset), multiply(a[:, None], b, offset=offset)
        )
    one, subnormal = np.ones((1, 1), np.float32), np.float32([[2.0**-126 - 2.0**-149]])
    assert matmul(one, one, offset=0.6 * 2.0**-23) == 1 + 2.0**-23
    assert matmul(subnormal, 2 * one) == matmul(2 * one, subnormal) == 2 * subnormal


def test_outer_products_of_any_two_by_two_special_numbers():
    sizes = np.float32([0, 1e-45, 2.0**-126, 1.5, 1.5 * 2.0**100, 3e38])
    pairs = [list(pair) for pair in itertools.combinations_with_replacement(range(len(sizes)), 2)]
    table = multiply(sizes[:, None], -sizes)
    indices = list(itertools.product(pairs, repeat=2))
    got = [matmul(sizes[i][:, None], -sizes[j][None]) for i, j in indices]
    np.testing.assert_allclose(got, [table[np.ix_(i, j)] for i, j in indices], rtol=4e-6)


@pytest.mark.parametrize("largest", [1.0, 2 - 2.0**-22])
@pytest.mark.parametrize("value", [1.0, 1.5, 2 - 2.0**-22])
def test_zeros_do_not_swallow_a_difference_in_the_last_place(value, largest):
    # Their dust is -2**-126 here, cleared up to 2**-123, or twice that; the scale passes by both
    a, b = np.float32([[value + 2.0**-23, -value, 0]]), np.float32([[1], [1], [-largest]])
    for exponent in range(-102, 20):
        scale = np.float32(2.0**exponent)
        for got in (matmul(a * scale, b), matmul(b.T, a.T * scale)):
            assert got.item() == pytest.approx(2.0 ** (exponent - 23), rel=0.2, abs=0), exponent


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 31, 255, 256, 1000])
@pytest.mark.parametrize("spread", [1.0, 1000.0])
def test_a_row_of_zeros_gives_zero_however_long_it_is(count, spread):
    positive = np.linspace(1, spread, count, dtype=np.float32)[:, None]
    rows = np.zeros((2, count), np.float32)
    rows[1, 0] = 3
    for offset in (0.0, 0.9, -0.9):
        want = [0, multiply(np.float32(3), positive[0, 0], offset=offset)]
        assert matmul(rows, positive, offset=offset)[:, 0].tolist() == want
        assert matmul(positive.T, rows.T, offset=offset)[0].tolist() == want


def test_more_terms_than_a_tile_holds():
    count = mitchell._TILE + 10
    assert matmul(np.full((1, count), 3, np.float32), np.full((count, 2), 3, np.float32)).tolist() == [[8 * count] * 2]


@pytest.mark.parametrize("mode", ["exact", "mitchell", "slope"])
@pytest.mark.parametrize("carry", [True, False])
def test_an_empty_batch_gives_zero_gradients(mode, carry):
    layer = MitchellLinear(3, 2, backward=mode, carry=carry)
    x = torch.zeros(0, 3, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad.shape == (0, 3)
    assert torch.equal(layer.weight.grad, torch.zeros(2, 3))
    assert torch.equal(layer.bias.grad, torch.zeros(2))


@pytest.mark.parametrize("mode", ["exact", "mitchell", "slope"])
def test_the_gradient_of_the_weights_needs_none_of_the_input(mode):
    layer, x, g = layer_and_input(mode)
    _, want, _ = gradients(layer, x, g)
    layer.zero_grad()
    layer(x.detach()).backward(g)
    assert torch.equal(layer.weight.grad, want)


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_slope_backward_does_not_hide_infinity(bad):
    layer, x, g = layer_and_input("slope", sparse=False)
    x.data[1, 1, 2] = bad
    to_x, to_weight, _ = gradients(layer, x, g)
    assert torch.isnan(to_x[1, 1, 2])
    assert torch.isnan(to_x).sum() == 1
    assert torch.isnan(to_weight[:, 2]).all()
    assert torch.isfinite(to_weight[:, torch.arange(12) != 2]).all()
    x.grad, layer.weight.data[4, 7] = None, bad
    x.data[1, 1, 2], layer.weight.grad = 1.0, None
    to_x, to_weight, _ = gradients(layer, x, g)
    assert torch.isnan(to_x[..., 7]).all()
    assert torch.isfinite(to_x[..., torch.arange(12) != 7]).all()
    assert torch.isnan(to_weight[4, 7])
    assert torch.isnan(to_weight).sum() == 1


def test_slope_backward_of_zero_weights_is_zero():
    layer = MitchellLinear(2, 3, bias=False, backward="slope")
    layer.weight.data.zero_()
    x = torch.tensor([[1 + 2.0**-23, -3.0]], requires_grad=True)
    layer(x).sum().backward()
    assert torch.equal(x.grad, torch.zeros(1, 2))


@pytest.mark.parametrize("name", FORMATS)
def test_the_sum_of_codes_is_that_of_an_adder_of_the_width_of_the_format(name):
    form = FORMATS[name]
    codes = np.arange(1 << form.bits)
    got, _ = form.multiply(codes[:, None], codes)  # all of them, the meaningless ones as well
    np.testing.assert_array_equal(got, (codes[:, None] + codes - (form.bias << form.fraction_bits)) % 2**form.bits)


def test_float16_worst_error_judges_relative_errors_of_the_pairs_that_it_examines_only(monkeypatch):
    fractions = {(1.25, 1.25): 1.25, (1.75, 1.125): 1.0}  # too small by 1/5; and by half, but in the other order only

    def faulty(a, b):
        result = multiply(a, b)
        for (x, y), product in fractions.items():
            result[(a == x) & (b == y)] = product
        return result

    monkeypatch.setattr(mitchell, "multiply", faulty)
    monkeypatch.setattr(mitchell, "_octaves", lambda form: [(15, 15)])
    pairs = 1024 * 1025 // 2  # of fractions, the smaller one first
    found = mitchell.float16_worst_error()
    assert (found.pairs, found.worst, found.negative) == (pairs, Fraction(1, 5), 0)
    assert found.exact == 1024  # one of the two is a power of two


def test_ordinary_operands_and_zeros_take_the_fast_roads(monkeypatch):
    def slow(*_):
        raise AssertionError("a slow road for ordinary operands")

    for name in ("_exact", "_exact_matmul", "_exact_slopes"):
        monkeypatch.setattr(mitchell, name, slow)
    a = np.float32([[1.5, -1e-9, 3e12], [2, 7, -0.1]])
    with_zeros = a * np.float32([1, 0, 1])
    for p, q in itertools.product((a, with_zeros), repeat=2):
        multiply(p, q)
        matmul(p, q.T)
        matmul(p, q.T, offset=0.5)
        mitchell._slope_matmul(np.float32(np.eye(2)), p, q, 0.5)
    assert divide(with_zeros, a)[0, 1] == 0
    monkeypatch.setattr(mitchell, "_repair", slow)
    multiply(a, a)
    divide(a, a, offset=-0.5)
