"""What is compared, on which inputs and by which limits: the options that comparing and all searches share."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from surgeon_debug.feed_files import load_feeds
from surgeon_debug.limits import Limits
from surgeon_debug.user_functions import Postprocess, load_postprocess
from surgeon_debug.values import Feeds
from surgeon_passes.graph import load


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampledRequest:
    """The options, as typed; see the help of the commands."""

    model: Path
    feeds: Path | None = None
    samples: int = 1
    seed: int = 0
    dims: str = ""
    rtol: float | None = None
    atol: float | None = None
    metric: tuple[str, ...] = ()
    per_tensor: Path | None = None
    postprocess: str | None = None
    save: Path | None = None
    allow_external: bool = False

    def load_feeds(self) -> Sequence[Feeds] | None:
        """The samples in the file that was named; None if none was.

        Raises:
            SurgeonError: It or the model cannot be read, or they do not fit each other.
        """
        if self.feeds is None:
            return None
        return load_feeds(self.feeds, load(self.model, allow_external=self.allow_external))

    def limits(self) -> Limits | None:
        """The caller's own limits; None if there are none.

        Raises:
            SurgeonError: They make no sense.
        """
        limits = Limits.parse(self.metric, self.per_tensor, rtol=self.rtol, atol=self.atol)
        return limits if limits.given else None

    def load_postprocess(self) -> Postprocess | None:
        """The function that makes what is compared; None for the outputs themselves.

        Raises:
            SurgeonError: There is none of that name.
        """
        return None if self.postprocess is None else load_postprocess(self.postprocess)
