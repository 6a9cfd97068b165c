"""What was asked of a TensorRT, and what it answered."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any


class Reply(enum.Enum):
    """An answer in one word."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"
    """It could not be seen here; what was seen says why."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """The answer to one question."""

    number: int
    """The question's number, from 1."""
    question: str
    reply: Reply
    seen: str
    """What the answer rests on, as a phrase."""
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """All that was seen, as JSON."""

    def to_json(self) -> dict[str, Any]:
        """The answer as JSON."""
        return {**dataclasses.asdict(self), "reply": self.reply.value, "details": dict(self.details)}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Answer:
        """The answer that :meth:`to_json` wrote.

        Raises:
            KeyError: A field is missing.
            ValueError: The reply is none.
        """
        return cls(
            int(found["number"]), str(found["question"]), Reply(found["reply"]), str(found["seen"]), found["details"]
        )


QUESTIONS = {
    1: "Have convolutions of the classic kind keys in an editable timing cache, and can these be edited?",
    2: "Is what the inspector says of convolutions, attention and plugins understood?",
    3: "Does set_all_tensors_debug_state switch the unfused tensors on, too?",
    4: "Is the logger called from other threads when the builder has several?",
    5: "Is the timing cache of another device refused by set_timing_cache?",
    6: "Does ERROR_ON_TIMING_CACHE_MISS stop every build that misses a key?",
    7: "Are there build routes here, and do they change the layers?",
    8: "Is a rebuild from the timing cache faster than a build, with the compilation cache off?",
}
"""What nobody can tell without a GPU, by number."""

Found = tuple[Reply, str, dict[str, Any]]
"""A reply, what it rests on, and the details."""
