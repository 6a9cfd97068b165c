"""What of an execution can be observed: debug tensors and the times of layers."""

from __future__ import annotations

from typing import Any

from tests.simulated_tensorrt.callbacks import Held


class Observed:
    """The part of a context that observation needs."""

    _engine: Any
    _listener: Held | None
    _states: dict[str, bool]
    _unfused: bool
    _profiler: Any
    _emits: bool
    _times: list[tuple[str, float]]

    def _error(self, words: str, code: int = 3, where: str = "") -> bool:
        raise NotImplementedError

    # debug tensors

    def set_debug_listener(self, listener: Any) -> bool:
        self._listener = None if listener is None else Held(listener)
        return True

    def get_debug_listener(self) -> Any:
        return self._listener.get() if self._listener else None

    def set_tensor_debug_state(self, name: str, flag: bool) -> bool:
        if name not in self._engine._engine.marked:
            return self._error(f"{name} is no debug tensor", where="setTensorDebugState")
        self._states[name] = flag
        return True

    def get_debug_state(self, name: str) -> bool:
        return self._states.get(name, False)

    def set_all_tensors_debug_state(self, flag: bool) -> bool:
        self._states.update(dict.fromkeys(self._engine._engine.marked, flag))
        if self._engine._engine.traits.all_covers_unfused:
            self._unfused = flag
        return True

    @property
    def unfused_tensors_debug_state(self) -> bool:
        return self._unfused

    @unfused_tensors_debug_state.setter
    def unfused_tensors_debug_state(self, value: bool) -> None:
        self._unfused = value and self._engine._engine.unfused

    # profiling

    @property
    def profiler(self) -> Any:
        return self._profiler

    @profiler.setter
    def profiler(self, value: Any) -> None:
        self._profiler = value

    @property
    def enqueue_emits_profile(self) -> bool:
        return self._emits

    @enqueue_emits_profile.setter
    def enqueue_emits_profile(self, value: bool) -> None:
        self._emits = value

    def report_to_profiler(self) -> bool:
        if self._profiler is None or not self._times:
            return False
        for name, milliseconds in self._times:
            self._profiler.report_layer_time(name, milliseconds)
        return True
