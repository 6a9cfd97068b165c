"""One family of errors; each message is one sentence: what was tried, where, what to do next.

Nothing below the roof prints or exits. The command line turns a member of this family into its sentence and an
exit code; everything else that reaches it is a bug of this project.
"""

from __future__ import annotations


class SurgeonError(Exception):
    """The root of the family.

    Args:
        what: What was tried and what went wrong, without a full stop.
        where: The file, node or tensor it happened at; empty where ``what`` says it.
        hint: What the reader can do next; empty where nothing helps.
    """

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}; {self.hint}" if self.hint else text


class BadModelError(SurgeonError):
    """The model cannot be used as it is: not ONNX, truncated, cyclic, weights missing, names that clash."""


class BadOptionError(SurgeonError):
    """What the caller asked for does not exist or makes no sense: a name, a value, a combination."""


class RefusalError(SurgeonError):
    """A rewrite will not be made because it cannot be shown to keep the values."""


class BrokenPassError(SurgeonError):
    """A pass broke its contract: it changed the interface, lost a tensor or altered a value."""


class EngineError(SurgeonError):
    """An engine refused a model, failed while running it, or is not installed."""


class FileError(SurgeonError):
    """A file cannot be read or written: missing, no permission, disk full, not a regular file."""


class UndecidedError(SurgeonError):
    """A question could not be answered either way; the message says why and what would help."""
