"""Whether the model that learns is the one that played.

Before the first optimizer step of an update, what was sampled is scored anew by the very same weights. The two
log-probabilities differ by rounding alone. A mask, a position or a dropout that differs between playing and learning
shifts them by whole nats, and then every ratio, clip and KL of the update is wrong.
"""

from __future__ import annotations

from medserl.engines.base import UpdateStats
from medserl.errors import RunError

EXPLAINED = {"float32": 0.01, "float16": 0.05, "bfloat16": 0.2}
"""Root mean square, in nats, that rounding explains: several times what is seen. A float32 has 24 bits, and models of
30 layers are 1e-5 apart; a router of experts that is on the verge now and then sends one token elsewhere. A float16 has
11 bits, a bfloat16 8: a logit of 20 is rounded by up to 1/16. The mean square and not the largest, because one token in
a thousand may be far off in bfloat16; and not the mean, because a wrong window concerns long notes alone."""
ANOTHER_PROGRAM = 2.0
"""More is explained where another program samples, with kernels of its own."""


def explained_gap(dtype: str, *, another_program: bool = False) -> float:
    """What rounding in this type explains of `UpdateStats.logprob_gap_rms`."""
    return EXPLAINED.get(dtype, max(EXPLAINED.values())) * (ANOTHER_PROGRAM if another_program else 1.0)


def require_same_policy(stats: UpdateStats) -> None:
    """Raises RunError where the gap is larger than its engine's rounding explains."""
    if stats.gap_explained is None or stats.logprob_gap_rms <= stats.gap_explained:
        return
    raise RunError(
        f"when it learns, the model gives what it wrote other log-probabilities than when it wrote it: "
        f"{stats.logprob_gap_rms:.2g} apart (root mean square; at most {stats.logprob_gap_max:.2g}), and rounding "
        f"explains {stats.gap_explained:g}. So nothing right can be learnt: try dtype float32 and no "
        "gradient_checkpointing; if it stays, this model cannot be trained here"
    )
