"""The vendor's package: imported here and nowhere else, and asked what it can do rather than how old it is.

All other files of this folder take the module as an argument.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from surgeon_passes.errors import EngineError

_INSTALL = 'pip install "onnx-surgeon[tensorrt]"'


@dataclasses.dataclass(frozen=True)
class Capability:
    """Something that TensorRT's Python module has or lacks."""

    path: str
    """Where it is in the module: ``CLASS.MEMBER``."""
    since: str
    """The first version that has it."""
    needed: bool
    """Whether nothing works here without it."""


CAPABILITIES = (
    Capability("NetworkDefinitionCreationFlag.STRONGLY_TYPED", "10.0", True),
    Capability("IExecutionContext.execute_async_v3", "10.0", True),
    Capability("IOutputAllocator", "10.0", True),
    Capability("INetworkDefinition.mark_debug", "10.0", True),
    Capability("BuilderFlag.ERROR_ON_TIMING_CACHE_MISS", "10.0", True),
    Capability("OnnxParser.supports_model_v2", "10.3", True),
    Capability("BuilderFlag.EDITABLE_TIMING_CACHE", "10.8", True),
    Capability("ITimingCache.update", "10.8", True),
    Capability("INetworkDefinition.mark_unfused_tensors_as_debug_tensors", "10.12", True),
    Capability("IExecutionContext.unfused_tensors_debug_state", "10.12", True),
    Capability("OnnxParser.set_builder_config", "10.15", False),
    Capability("ICudaEngine.get_aliased_input_tensor", "10.15", False),
    Capability("IBuilderConfig.build_route", "11.1", False),
    Capability("IBuilderConfig.all_build_routes", "11.1", False),
)
"""What is asked for. The first version of each was read off the bindings of eighteen versions."""

OLDEST = "10.12"
"""The first version that has all that is needed."""


def load_tensorrt() -> Any:
    """The module ``tensorrt``, fit for use.

    Raises:
        EngineError: It is not installed, cannot be loaded, or lacks what is needed; the message says since which
            version that exists.
    """
    try:
        import tensorrt
    except ModuleNotFoundError as error:
        if error.name != "tensorrt":
            raise EngineError(f"the package tensorrt lacks {error.name}", hint=f"run {_INSTALL}") from error
        raise EngineError(
            "runner tensorrt needs the package tensorrt, which is not installed", hint=f"run {_INSTALL}"
        ) from None
    except (ImportError, OSError, RuntimeError) as error:
        words = " ".join(str(error).split())[:200]
        raise EngineError(
            f"the package tensorrt cannot be loaded: {words}", hint="see whether its libraries are installed"
        ) from error
    require(tensorrt)
    return tensorrt


def has(trt: Any, path: str) -> bool:
    """Whether the module has a class, or a class a member.

    Args:
        trt: The module.
        path: ``CLASS`` or ``CLASS.MEMBER``.
    """
    found = trt
    for name in path.split("."):
        if not hasattr(found, name):
            return False
        found = getattr(found, name)
    return True


def capabilities(trt: Any) -> frozenset[str]:
    """Which of :data:`CAPABILITIES` a module has, by their paths."""
    return frozenset(one.path for one in CAPABILITIES if has(trt, one.path))


def version_of(trt: Any) -> str:
    """The version that the module says it has."""
    return str(getattr(trt, "__version__", "of an unknown version"))


def require(trt: Any) -> None:
    """Refuse a module that lacks what is needed.

    Raises:
        EngineError: It does.
    """
    lacking = [one for one in CAPABILITIES if one.needed and not has(trt, one.path)]
    if not lacking:
        return
    first = lacking[0]
    more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
    raise EngineError(
        f"TensorRT {version_of(trt)} lacks {first.path}{more}, which exists since {first.since}",
        hint=f'run pip install "tensorrt>={OLDEST}"',
    )


def since(path: str) -> str:
    """The first version that has one of :data:`CAPABILITIES`."""
    return next(one.since for one in CAPABILITIES if one.path == path)


def member(trt: Any, enum: str, name: str) -> Any:
    """A member of an enum by name; None if this version has none of that name."""
    return getattr(getattr(trt, enum), name, None)
