"""Which weights the canaries of a group get next. No I/O."""

from collections.abc import Mapping, Sequence


def next_weight(read_back: int, steps: Sequence[int], max_step: int) -> int | None:
    """Return the weight (percent) that may follow the one read back: the first step above it, or as far as it may go.

    Args:
        read_back: percent that the canary gets now, whoever set it.
        steps: rising weights of the release.
        max_step: percent points by which one update may raise a weight.

    Returns:
        None when no step is above it.
    """
    above = next((step for step in steps if step > read_back), None)
    return None if above is None else min(above, read_back + max_step)


def next_weights(read_back: Mapping[str, int], steps: Sequence[int], max_step: int) -> dict[str, int] | None:
    """Return the weight that each service of a group gets next; None when no step is above the lowest.

    Those that are behind, as after an update that was killed half-way, catch up; none ever falls.
    """
    target = next_weight(min(read_back.values()), steps, max_step)
    return None if target is None else {name: max(weight, target) for name, weight in read_back.items()}
