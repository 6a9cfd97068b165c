"""What was computed earlier, offered as an engine that remembers.

A recording answers for the inputs it was made with and for no others. That the model is another one than recorded is no
error, for to hold a new version against the old one's outputs is what recordings are for; but it is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from surgeon_debug.recording import Recording
from surgeon_debug.values import Feeds, Value, digest, normalise
from surgeon_passes.errors import BadOptionError, EngineError
from surgeon_passes.near_names import did_you_mean


class Recorded:
    """A recording as a runner: it runs nothing, and returns what was recorded for the inputs it is given.

    Args:
        recording: The values.
        label: How messages call it, such as the path of its file.
    """

    def __init__(self, recording: Recording, label: str) -> None:
        self.recording = recording
        self.label = label
        self.meta = recording.meta
        self._wanted: list[str] = []
        self._by_feeds: dict[str, int] | None = None

    @property
    def samples(self) -> int:
        """Number of samples."""
        return self.recording.samples

    @property
    def origin(self) -> str:
        """Where the values come from, in words: ``m.onnx on onnxruntime:optimize=none (onnxruntime 1.23.0)``."""
        runner, model = (str(self.meta.get(key) or "") for key in ("runner", "model"))
        versions = self.meta.get("versions")
        package = runner.split(":")[0]
        version = versions.get(package) if isinstance(versions, dict) else None
        words = " on ".join(part for part in (model, runner) if part)
        return f"{words} ({package} {version})" if words and version else words

    def feeds(self, sample: int) -> dict[str, Value]:
        """The inputs of a sample; empty if they were not recorded."""
        return self.recording.feeds(sample)

    def names(self, sample: int = 0) -> list[str]:
        """The recorded tensors of a sample."""
        return self.recording.names(sample)

    def values(self, sample: int, names: Iterable[str]) -> dict[str, Value]:
        """Recorded values.

        Args:
            sample: The number of the sample, from 0.
            names: The tensors wanted.

        Returns:
            Those of them that were recorded.

        Raises:
            FileError: The recording is damaged.
        """
        recording = self.recording
        return {name: recording.get(sample, name) for name in dict.fromkeys(names) if recording.has(sample, name)}

    def check_fits(self, model_digest: str, names: Iterable[str]) -> list[str]:
        """Hold the recording against the model it will be compared with.

        Args:
            model_digest: Of that model, by :func:`surgeon_passes.graph.digest`; empty if it is not to be compared.
            names: Tensors that must have been recorded, as a rule the model's outputs.

        Returns:
            Sentences that a reader of the comparison must know.

        Raises:
            BadOptionError: A tensor was not recorded, or the recording is empty.
        """
        if self.samples == 0:
            raise BadOptionError("holds no sample", where=self.label)
        for name in names:
            for sample in range(self.samples):
                if not self.recording.has(sample, name):
                    where = f" in sample {sample}" if self.samples > 1 else ""
                    hint = did_you_mean(name, self.names(sample))
                    raise BadOptionError(f"does not hold '{name}'{where}", where=self.label, hint=hint)
        recorded = self.meta.get("model_digest")
        if not model_digest or recorded == model_digest:
            return []
        if not recorded:
            return [f"{self.label} does not say which model it was recorded from"]
        return [f"{self.label} was recorded from another version of the model; a difference may be what was changed"]

    def check_feeds(self, feeds: Sequence[Feeds]) -> list[str]:
        """Make sure that a run was given the inputs of the recording.

        Args:
            feeds: The inputs of the run, for each sample.

        Returns:
            Sentences that a reader of the comparison must know.

        Raises:
            BadOptionError: The inputs are others.
        """
        if len(feeds) != self.samples:
            raise BadOptionError(
                f"holds {self.samples} samples and the run has {len(feeds)}",
                where=self.label,
                hint="run the samples that were recorded",
            )
        unsure = False
        for sample, given in enumerate(feeds):
            if not self.recording.has_feeds(sample):
                unsure |= bool(given)
                continue
            recorded = self.recording.feeds(sample)
            for name in given:
                if name not in recorded:
                    raise BadOptionError(f"does not hold the input '{name}'", where=self.label)
                if digest(recorded[name]) != digest(given[name]):
                    raise BadOptionError(
                        f"was computed from other values of input '{name}' in sample {sample}",
                        where=self.label,
                        hint="leave out --feeds, and the recorded inputs are used",
                    )
        if unsure:
            return [f"{self.label} does not say which inputs it was computed from; they may be others"]
        return []

    def prepare(self, model_path: Path, outputs: Sequence[str]) -> None:
        """Note which tensors are wanted; the model is not looked at."""
        del model_path
        self._wanted = list(outputs)

    def run(self, feeds: Feeds) -> Mapping[str, Value]:
        """What was recorded for these inputs.

        Raises:
            EngineError: Nothing was, or inputs were not recorded and there are several samples.
        """
        return self.values(self._sample_of(feeds), self._wanted)

    def _sample_of(self, feeds: Feeds) -> int:
        known = [sample for sample in range(self.samples) if self.recording.has_feeds(sample)]
        if not known:
            if self.samples == 1:
                return 0
            raise EngineError(f"{self.label} holds {self.samples} samples and does not say which inputs they belong to")
        if self._by_feeds is None:
            self._by_feeds = {digest(self.recording.feeds(sample)): sample for sample in reversed(known)}
        sample = self._by_feeds.get(digest({name: normalise(value) for name, value in feeds.items()}))
        if sample is None:
            raise EngineError(
                f"{self.label} does not hold what these inputs give", hint="use the inputs that were recorded with it"
            )
        return sample

    def close(self) -> None:
        """Close the file."""
        self.recording.close()
