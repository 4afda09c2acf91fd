"""How many jobs go into one queue message.

Guided self-scheduling (Polychronopoulos and Kuck, 1987): a chunk is what is left, shared among all threads. So a large
batch starts with large chunks, which cost little, and ends with single jobs, which leave no thread idle while another
works off a tail. Small batches get single jobs and full parallelism.
"""

from __future__ import annotations

#: Slots assumed while no worker has said how many it has.
ASSUMED_SLOTS = 128


def chunk_sizes(remaining: int, slots: int, largest: int, at_most: int) -> list[int]:
    """Sizes of the next chunks: they sum to `min(remaining, at_most)`, each between 1 and `largest`.

    Args:
        remaining: jobs not yet sent.
        slots: threads of all live workers of the queue; 0 means unknown.
        largest: most jobs in one message.
        at_most: jobs to send now.
    """
    slots = slots or ASSUMED_SLOTS
    sizes = []
    allowed = min(remaining, at_most)
    while allowed > 0:
        size = max(1, min(largest, remaining // slots, allowed))
        sizes.append(size)
        remaining -= size
        allowed -= size
    return sizes
