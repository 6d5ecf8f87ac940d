"""How much is measured: all of it, or a tenth."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    secrets: int = 20_000
    million: int = 1_000_000
    tenth: int = 100_000
    rounds: int = 3
    sample: int = 60
    backends: int = 1_000
    minutes: float = 10.0
    deliveries: int = 4_000
    telling_s: float = 11.0
    busy_backends: int = 200
    busy_s: float = 8.0
    distant_s: float = 0.02
    """After which a small backend answers a call: a store in the same region, not in memory."""
    bursts: int = 35
    thousands: int = 10_000
    reads_s: float = 5.0
    clouded: int = 10_000

    @classmethod
    def quick(cls) -> "Plan":
        return cls(
            secrets=2_000,
            million=100_000,
            tenth=10_000,
            rounds=1,
            sample=20,
            backends=100,
            minutes=0.5,
            deliveries=800,
            telling_s=2.0,
            busy_backends=60,
            busy_s=2.0,
            bursts=5,
            thousands=1_000,
            reads_s=1.5,
            clouded=1_000,
        )
