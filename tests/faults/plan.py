"""What happens in an episode, drawn from its seed: how fast the load is, and which faults when."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from random import Random

from faults.world import Fault, Faults

RATES = {0: 2, 20: 1, 300: 3, inf: 2}  # operations per second, and how often that rate is to be
MANY = 0.5  # of the episodes have more than one fault


@dataclass(frozen=True)
class Planned:
    """A fault that begins `at` so many seconds and `lasts` so many."""

    at: float
    lasts: float
    subject: str
    fault: Fault

    @property
    def name(self) -> str:
        """What it is called."""
        return self.fault.__name__.replace("_", " ")


@dataclass(frozen=True)
class Plan:
    """What happens in an episode: `rate` operations a second for some `seconds`, and faults."""

    rate: float
    seconds: float
    faults: Sequence[Planned]


def plan(
    random: Random, only: Sequence[str], there_are: Faults, rates: Mapping[float, int] = RATES
) -> Plan:
    """Draw an episode; leave out all faults but those that have one of the words `only`."""
    (rate,) = random.choices(list(rates), list(rates.values()))
    seconds = random.uniform(1.0, 4.0) if rate else 0.0
    if rate and random.random() < MANY:
        faults = [
            each for subject in there_are for each in _series(random, subject, there_are, seconds)
        ]
    else:
        # Nothing else makes up for what the service misses.
        subject = random.choice(list(there_are))
        at = random.uniform(0, seconds)
        faults = [Planned(at, _lasts(random), subject, _choice(random, there_are[subject]))]
    words = [word.lower() for word in only]
    return Plan(
        rate,
        seconds,
        [each for each in faults if not words or any(word in each.name for word in words)],
    )


def _series(random: Random, subject: str, there_are: Faults, seconds: float) -> Iterator[Planned]:
    """Yield faults of one subject, one after the other."""
    at = random.uniform(0, seconds)
    while at < seconds:
        yield Planned(at, lasts := _lasts(random), subject, _choice(random, there_are[subject]))
        at += lasts + random.uniform(0, 1.5)


def _lasts(random: Random) -> float:
    return random.choice([0.0, random.uniform(0, 0.5), random.uniform(0, 2.5)])


def seeded(seed: int) -> Random:
    """Return what draws the same each time."""
    return Random(seed)  # noqa: S311  # for tests


def _choice(random: Random, weights: Mapping[Fault, int]) -> Fault:
    (fault,) = random.choices(list(weights), list(weights.values()))
    return fault
