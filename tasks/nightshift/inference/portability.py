"""Portability of a file as those ask for it who run it: `nightshift.inference.pair_sums` has what it means.

Imports the standard library only, and onnx for a file that does not say its largest sum.
"""

import contextlib
from collections.abc import Mapping
from typing import Final

from nightshift.hardware import processor

PAIR_SUM: Final = "nightshift.pair_sum"  # metadata of a file: the largest sum of two products, 0 without any
PAIR_LIMIT: Final = 32_767  # of a signed 16-bit integer


def pair_sum_of(facts: Mapping[str, str], model: bytes) -> int | None:
    """The largest sum of two products in a file, as its metadata say, or else its graph; None if neither."""
    with contextlib.suppress(KeyError, ValueError):
        return int(facts[PAIR_SUM])
    try:
        import onnx

        from nightshift.inference.pair_sums import pair_sums

        return max(pair_sums(onnx.load_model_from_string(model)).values(), default=0)
    except Exception:  # onnx is not installed, or raises one of its many kinds for a graph of others
        return None


def saturates_here(pair_sum: int | None) -> bool:
    """Whether integer kernels may compute such a file wrongly on this processor."""
    return (pair_sum is None or pair_sum > PAIR_LIMIT) and not processor.has_dot_products()
