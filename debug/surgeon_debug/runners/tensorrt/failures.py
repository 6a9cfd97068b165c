"""How the making of an engine can end, in words that callers tell apart.

An engine is made in a process of its own, and what goes wrong travels as text; so the words are part of the contract.
Every message about a timing cache that did not decide begins with :data:`CACHE_NOT_FOLLOWED`: such an engine says
nothing about the tactics that it was asked to have.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence

from surgeon_debug.endings import Ending, EngineFailure

CACHE_NOT_FOLLOWED = "the timing cache was not followed"
"""How a message begins that says: this engine, if there is one, does not have the tactics that were asked for."""

_METADATA = re.compile(r" \(\[ONNX Layer: [^)]*\)$")  # only a build without pins says whose layer it was
_PARSE = "tensorrt cannot parse"
_BUILD = "tensorrt cannot build"


class BuildStatus(enum.Enum):
    """What became of a build."""

    OK = "ok"
    """There is an engine."""
    NOT_LOADED = "not loaded"
    """There is a plan; nobody has seen yet whether an engine can be made of it."""
    PARSE_ERROR = "parse error"
    """The parser refused the model."""
    BUILD_ERROR = "build error"
    """The builder made no engine."""
    CACHE_REFUSED = "cache refused"
    """The timing cache is for another version, device or set of flags, or is none."""
    CACHE_MISS = "cache miss"
    """Something had to be timed although every tactic should come from the cache."""
    PIN_REFUSED = "pin refused"
    """A pinned tactic is not in the cache, or cannot be used."""
    NOT_APPLIED = "not applied"
    """An engine was built, and its tactics are not the pinned ones."""
    ROUTE_REFUSED = "route refused"
    """The build route was not taken."""


_INVALID = (
    BuildStatus.CACHE_REFUSED,
    BuildStatus.CACHE_MISS,
    BuildStatus.PIN_REFUSED,
    BuildStatus.NOT_APPLIED,
)


class BuildFailure(EngineFailure):
    """A build that made no engine, or not the one that was asked for.

    Args:
        status: What became of it.
        words: What the engine said, without a full stop.
        model: The model's name.
        hint: What to do next.
        ending: How it ended, for callers that know nothing of builds.
        nodes: Nodes of the main graph that TensorRT names as the ones it refuses.
    """

    def __init__(
        self,
        status: BuildStatus,
        words: str,
        *,
        model: str = "",
        hint: str = "",
        ending: Ending = Ending.REFUSED,
        nodes: Sequence[str] = (),
    ) -> None:
        if status in _INVALID:
            what = f"{CACHE_NOT_FOLLOWED}: {status.value}: {words}"
        elif status is BuildStatus.PARSE_ERROR:
            what = f"{_PARSE} {model}: {words}"
        else:
            what = f"{_BUILD} {model}: {words}"
        super().__init__(what, ending=ending, hint=hint, nodes=nodes)
        self.status = status


def cache_not_followed(message: str) -> bool:
    """Whether a failure's message says that an engine lacks the tactics it was asked to have: an invalid probe."""
    return CACHE_NOT_FOLLOWED in message


def plain_reason(message: str) -> str:
    """A failure's message without what tells builds apart that fail alike: the same words mean the same failure.

    Args:
        message: What a build with pins, or without any, failed with.

    Returns:
        The engine's own words; empty if the message is about a cache that was not followed for another reason than
        that the engine would not be built with what was pinned.
    """
    pinned = f"{CACHE_NOT_FOLLOWED}: {BuildStatus.PIN_REFUSED.value}: "
    if pinned in message:
        words = message.partition(pinned)[2]
    elif CACHE_NOT_FOLLOWED in message:
        return ""
    else:
        _, found, rest = message.partition(_BUILD)
        words = rest.partition(": ")[2] if found else message
    return _METADATA.sub("", words)


def parser_refused(message: str) -> bool:
    """Whether a failure's message says that the parser refused the model."""
    return _PARSE in message


def builder_refused(message: str) -> bool:
    """Whether a failure's message says that the builder made no engine, for another reason than a timing cache."""
    return _BUILD in message
