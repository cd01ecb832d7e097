"""The valid values of a rate limit."""

import pytest

from servicekit.access.rate_limit import Limit


@pytest.mark.parametrize(
    ("burst", "seconds"), [(0, 1.0), (-1, 1.0), (1, 0.0), (1, -1.0), (1, 1e-7), (1, float("nan")), (1, float("inf")), (10_000, 1e6)]
)
def test_a_limit_that_makes_no_sense_is_refused(burst: int, seconds: float) -> None:
    with pytest.raises(ValueError, match="burst must be at least 1"):
        Limit(burst, seconds)
