"""The limiter's local buckets: which ones it keeps and removes. test_rate_limit tests that they decide as Redis does."""

from hypothesis import given
from hypothesis import strategies as st

from servicekit.access.rate_limit import Limit, LocalBuckets

# The interval is so long that no bucket is refilled while a test runs.
LONG = Limit(3, 1000.0)
HOLDER = "an attempt"


def test_the_stand_in_forgets_the_least_recently_used_bucket_first() -> None:
    buckets, once = LocalBuckets(3, lambda: 1.0), Limit(1, 1000.0)
    for key in ("a", "b", "c"):
        assert buckets.take(key, once, HOLDER).seconds == 0
    assert buckets.take("a", once, HOLDER).seconds > 0  # a refused take counts as a use too
    assert buckets.take("d", once, HOLDER).seconds == 0
    assert [buckets.take(key, once, HOLDER).seconds > 0 for key in ("a", "c", "d")] == [True] * 3
    assert buckets.take("b", once, HOLDER).seconds == 0


@given(keys=st.lists(st.integers(0, 50), max_size=200), capacity=st.integers(1, 20))
def test_the_stand_in_never_has_more_buckets_than_it_may(keys: list[int], capacity: int) -> None:
    buckets = LocalBuckets(capacity, lambda: 1.0)
    for key in keys:
        buckets.take(str(key), LONG, HOLDER)
        assert len(buckets) <= capacity
    buckets.give_back("unknown", LONG, HOLDER)
    assert len(buckets) == min(capacity, len(set(keys)))


def test_the_stand_in_does_not_keep_a_full_bucket() -> None:
    buckets = LocalBuckets(3, lambda: 1.0)
    buckets.take("a", LONG, HOLDER)
    buckets.give_back("a", LONG, HOLDER)
    assert len(buckets) == 0
