"""Taking samples in turn, since a machine's speed may drift by a factor of two within the hour."""

import sys
import time

_begin = time.monotonic()


def progress(text):
    print(f"bench: {time.monotonic() - _begin:6.0f} s  {text}", file=sys.stderr, flush=True)


def rounds(count, sides):
    """Calls each side once a round and yields what they gave, by name; the first round warms up and is left out.

    Sides that are compared run right after one another, and another one is first each time. `sides` has a function for
    each name, which is given the number of the round.
    """
    names = list(sides)
    for number in range(count + 1):
        shift = number % len(names)
        result = {name: sides[name](number) for name in names[shift:] + names[:shift]}
        if number > 0:
            yield result


def timed(session, statement):
    """The seconds that a statement takes, its commit included."""
    begin = time.perf_counter()
    session.execute(statement)
    return time.perf_counter() - begin
