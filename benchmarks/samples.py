"""Many samples of one measure, in one number."""

import math
from collections.abc import Sequence


def percentile(samples: Sequence[float], percent: float) -> float:
    """Return the smallest sample that `percent` of all do not exceed (nearest rank)."""
    ordered = sorted(samples)
    return ordered[max(math.ceil(len(ordered) * percent / 100), 1) - 1]


def median(samples: Sequence[float]) -> float:
    """Return the median, which is one of the samples."""
    return percentile(samples, 50)
