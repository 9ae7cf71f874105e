"""A natural mistake, what must be said of it, and what must not."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Slip:
    exercise: str
    name: str
    code: str
    say: list[str] = field(default_factory=list)
    never: list[str] = field(default_factory=list)
    right: bool = False
