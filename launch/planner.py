"""How many ticks the next compiled call runs.

A call takes about two seconds, so that progress shows and signals are heeded; its size
never changes a result.
"""

import itertools
from collections.abc import Iterator

from controller.loop import Schedule

CALL_SECONDS = 2.0


class Planner:
    """Learns what a child step and a policy step cost, and plans calls.

    Args:
      schedule: of the search.
      rounds: after which the search ends.
      max_ticks: most ticks of a call.
      fixed: ticks of every call, 0 to choose them by time.
    """

    def __init__(self, schedule: Schedule, rounds: int, max_ticks: int, fixed: int = 0):
        self._schedule = schedule
        self._rounds = rounds
        self._max_ticks = max_ticks
        self._fixed = fixed
        self._seconds: dict[bool, float] = {}  # of a tick, by whether the policy learns
        self._seen: dict[bool, tuple[float, int]] = {}  # seconds and ticks, the same

    def ticks(self, round: int, tick: int) -> int:
        """Ticks of the next call, from a position of the search; 0 at its end."""
        planned, seconds = 0, 0.0
        for learn in self._kinds(round, tick):
            if planned == (self._fixed or self._max_ticks):
                break
            if not self._fixed and learn not in self._seconds:
                return planned or 1  # time one tick of a new kind before running more
            seconds += self._seconds.get(learn, 0.0)
            if not self._fixed and planned and seconds > CALL_SECONDS:
                break
            planned += 1
        return planned

    def observe(self, round: int, tick: int, count: int, seconds: float) -> None:
        """Learns from a call of `count` ticks that began at a position."""
        kinds = list(itertools.islice(self._kinds(round, tick), count))
        if len(set(kinds)) == 1:
            total, number = self._seen.get(kinds[0], (0.0, 0))
            self._seen[kinds[0]] = total, number = total + seconds, number + count
            # One trial may take a hundred times as long as the next: their mean tells.
            mean = total / number if self._fixed else seconds / count
            self._seconds[kinds[0]] = mean
        elif kinds:
            expected = sum(self._seconds.get(kind, 0.0) for kind in kinds)
            factor = seconds / expected if expected else 1.0
            self._seconds = {k: v * factor for k, v in self._seconds.items()}

    def total(self) -> int:
        """Ticks of the whole search."""
        return sum(sum(self._counts(round)) for round in range(self._rounds))

    def done(self, round: int, tick: int) -> int:
        """Ticks before a position."""
        return tick + sum(sum(self._counts(r)) for r in range(round))

    def remaining_seconds(self, round: int, tick: int) -> float:
        """Expected seconds from a position to the end of the search."""
        known = list(self._seconds.values()) or [0.0]
        child, policy = (self._seconds.get(kind, known[0]) for kind in (False, True))
        seconds = 0.0
        for r in range(round, self._rounds):
            child_steps, policy_steps = self._counts(r)
            if r == round and tick:
                phase = self._schedule.phase(r)
                policy_steps = sum(map(phase.learns, range(tick, phase.ticks)))
                child_steps = phase.ticks - tick - policy_steps
            seconds += child_steps * child + policy_steps * policy
        return seconds

    def _counts(self, round: int) -> tuple[int, int]:
        phase = self._schedule.phase(round)
        return phase.child_steps, phase.policy_steps

    def _kinds(self, round: int, tick: int) -> Iterator[bool]:
        """Whether the policy learns, for each tick from a position on."""
        while round < self._rounds:
            phase = self._schedule.phase(round)
            for t in range(tick, phase.ticks):
                yield phase.learns(t)
            round, tick = round + 1, 0
