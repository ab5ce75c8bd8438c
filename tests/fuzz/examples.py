"""How many examples a fuzz test tries, and how hostile bytes are made.

In `make test` the examples are the same each time, and three fifths of those that a test names: a minute of fuzzing in
all. `make soak` runs these tests again and again with other ones, by setting SIDECAR_FUZZ_FACTOR (times as many) and
pytest's --hypothesis-seed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

Test = Callable[..., None]


def fuzz(examples: int) -> Callable[[Test], Any]:
    """That many examples, or fewer but fixed ones in `make test`. No deadline: the machine's speed decides nothing."""
    factor = int(os.environ.get("SIDECAR_FUZZ_FACTOR", "0"))
    return settings(
        max_examples=examples * factor or examples * 3 // 5,
        derandomize=factor == 0,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )


@st.composite
def mutated(draw: st.DrawFn, originals: list[bytes], most: int = 4) -> bytes:
    """One of some good inputs, with bytes put in, taken out, doubled or changed, or a piece of another one."""
    data = draw(st.sampled_from(originals))
    for _ in range(draw(st.integers(1, most))):
        at = draw(st.integers(0, len(data)))
        end = at + draw(st.integers(0, 40))
        other = draw(st.sampled_from(originals))
        cut = draw(st.integers(0, len(other)))
        pieces = st.sampled_from([b"", data[at:end] * 2, other[cut : cut + 40], data[:at]]) | st.binary(max_size=12)
        data = data[:at] + draw(pieces) + data[end:]
    return data


def hostile(originals: list[bytes]) -> st.SearchStrategy[bytes]:
    """Good inputs changed, mostly; and sheer rubbish."""
    return mutated(originals) | mutated(originals, most=1) | st.binary(max_size=400)
