"""exp, sigmoid and tanh as polynomials, so that whole vectors are computed at once; a C library takes number by number.

Each function takes an expression, a number or a vector of float32, and gives one of its kind. The polynomials are those
of S. Moshier's Cephes library (expf, tanhf); results differ from the exact ones by about 1e-7 relative.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

from tvm import tirx

_LOG2_E, _LN2_HIGH, _LN2_LOW = 1.44269504088896341, 0.693359375, -2.12194440e-4  # high: few bits, exact in products
_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1, 1.0, 1.0)
_LEAST, _MOST = -87.3, 88.7  # beyond, 2^n is no normal number
_BIAS, _MANTISSA = 127, 23  # of float32
_TANH = (-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1)
_SMALL = 0.625  # below, the exponential loses digits of tanh


def exp(x: Any) -> Any:
    """e to the power of x; x below -87.3 or above 88.7 counts as these."""
    kind = x.ty.dtype
    x = tirx.max(tirx.min(x, _like(x, _MOST)), _like(x, _LEAST))
    power = tirx.floor(x * _like(x, _LOG2_E) + _like(x, 0.5))
    rest = x - power * _like(x, _LN2_HIGH) - power * _like(x, _LN2_LOW)
    whole = str(kind).replace("float", "int")
    bits = (tirx.Cast(whole, power) + tirx.const(_BIAS, whole)) * tirx.const(1 << _MANTISSA, whole)
    return polynomial(rest, _EXP) * tirx.reinterpret(kind, bits)


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x))."""
    return _like(x, 1.0) / (_like(x, 1.0) + exp(_like(x, 0.0) - x))


def tanh(x: Any) -> Any:
    """The hyperbolic tangent."""
    square = x * x
    small = polynomial(square, _TANH) * square * x + x
    large = _like(x, 1.0) - _like(x, 2.0) / (exp(x + x) + _like(x, 1.0))
    return tirx.Select(square < _like(x, _SMALL * _SMALL), small, large)


def polynomial(x: Any, coefficients: Sequence[float]) -> Any:
    """A polynomial, its highest coefficient first."""
    return reduce(lambda total, c: total * x + _like(x, c), coefficients[1:], _like(x, coefficients[0]))


def _like(x: Any, value: float) -> Any:
    return tirx.const(value, x.ty.dtype)
