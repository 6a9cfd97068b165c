"""The ONNX parser: what it takes, what it refuses and in which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnx.external_data_helper
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from tests.simulated_tensorrt.attributes import Flagged
from tests.simulated_tensorrt.callbacks import Journal
from tests.simulated_tensorrt.graph import from_model
from tests.simulated_tensorrt.pybind import make
from tests.simulated_tensorrt.support import Problem, problems, supported


class OnnxParser(Flagged):
    """Fills a network from an ONNX model."""

    _trt: Any
    _journal: Journal
    _profile: str

    def __init__(self, network: Any, logger: Any) -> None:
        self._network = network
        self._errors: list[Problem] = []
        self._flags = 1 << int(self._trt.OnnxParserFlag.NATIVE_INSTANCENORM)
        self._subgraphs: list[tuple[list[int], bool]] | None = None
        self._config: Any = None

    def parse(self, model: Any, path: str | None = None) -> bool:
        return self._parse(bytes(model), path)

    def parse_from_file(self, model: str) -> bool:
        if not Path(model).is_file():
            return self._refuse([_whole("MODEL_DESERIALIZE_FAILED", f"Failed to open file: {model}")])
        return self._parse(Path(model).read_bytes(), model)

    def _parse(self, data: bytes, path: str | None) -> bool:
        model = self._load(data, path)
        if model is None:
            return False
        found = problems(model, self._profile)
        if found:
            return self._refuse(found[:1])  # parsing ends at the first
        try:
            graph = from_model(model)
        except Exception as error:  # noqa: BLE001  (onnx raises many kinds for a graph that is none)
            return self._refuse([_whole("INVALID_GRAPH", str(error).splitlines()[0])])
        self._fill(graph)
        return True

    def _fill(self, graph: Any) -> None:
        for node in graph.nodes:
            self._journal.verbose(f"Parsing node: {node.name} [{node.op_type}]")
            self._journal.verbose(f"Registering layer: {node.name} for ONNX node: {node.name}")
            for name in node.output:
                self._journal.verbose(f"Registering tensor: {name} for ONNX tensor: {name}")
        self._network._fill(graph)

    def _load(self, data: bytes, path: str | None) -> onnx.ModelProto | None:
        model = onnx.ModelProto()
        try:
            model.ParseFromString(data)
            if not model.HasField("graph") or not model.graph.output:
                raise DecodeError("no graph")
            _load_weights(model, Path(path).parent if path else Path())
        except DecodeError:
            self._refuse([_whole("MODEL_DESERIALIZE_FAILED", "Failed to parse the ONNX model")])
            return None
        except (OSError, ValueError) as error:
            words = f"Failed to load external weights: {str(error).splitlines()[0]}"
            self._refuse([_whole("MODEL_DESERIALIZE_FAILED", words)])
            return None
        return model

    def _refuse(self, found: list[Problem]) -> bool:
        self._errors += found
        for problem in found:
            where = f"While parsing node number {problem.index} [{problem.operator} -> {problem.node!r}]:"
            self._journal.error(f"ModelImporter.cpp:{1100 + problem.index}: {where}" if problem.operator else "Parser:")
            self._journal.error(f"ModelImporter.cpp:1107: ERROR: {problem.words}")
        return False

    def supports_operator(self, op_name: str) -> bool:
        return supported(op_name, self._profile)

    def supports_model_v2(self, model: Any, path: str | None = None) -> bool:
        loaded = self._load(bytes(model), path)
        if loaded is None:
            self._subgraphs = []
            return False
        found = problems(loaded, self._profile)
        if not found:
            self._fill(from_model(loaded))  # as the real one: the network is full now
        self._errors += found
        self._subgraphs = _segments(len(loaded.graph.node), {p.main for p in found}, any(p.main < 0 for p in found))
        return not found

    @property
    def num_subgraphs(self) -> int:
        return len(self._known_subgraphs())

    def is_subgraph_supported(self, index: int) -> bool:
        return self._known_subgraphs()[index][1]

    def get_subgraph_nodes(self, index: int) -> list[int]:
        return list(self._known_subgraphs()[index][0])

    def _known_subgraphs(self) -> list[tuple[list[int], bool]]:
        if self._subgraphs is None:
            raise RuntimeError("undefined before supports_model_v2: the real parser reads freed memory here")
        return self._subgraphs

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> Any:
        return make(self._trt.ParserError, _problem=self._errors[index])

    def clear_errors(self) -> None:
        self._errors = []

    def get_layer_output_tensor(self, name: str, i: int) -> Any:
        graph = self._network._graph
        for index, node in enumerate(graph.nodes if graph else ()):
            if node.name == name:
                return self._network._layer(index).get_output(i)
        return None

    def set_builder_config(self, builder_config: Any) -> bool:
        self._config = builder_config
        return True

    def get_used_vc_plugin_libraries(self) -> list[str]:
        return []


def _load_weights(model: onnx.ModelProto, folder: Path) -> None:
    """Read the weights outside of a model. Unlike onnx, the parser takes files with several hard links."""
    for tensor in onnx.external_data_helper._get_all_tensors(model):
        if not onnx.external_data_helper.uses_external_data(tensor):
            continue
        held = {entry.key: entry.value for entry in tensor.external_data}
        with (folder / held["location"]).open("rb") as file:
            file.seek(int(held.get("offset", 0)))
            tensor.raw_data = file.read(int(held.get("length", -1)))
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]


def _whole(code: str, words: str) -> Problem:
    return Problem(code, words, -1, "", "", (), -1)


def _segments(count: int, bad: set[int], all_bad: bool) -> list[tuple[list[int], bool]]:
    """Runs of nodes that are supported, and of nodes that are not."""
    found: list[tuple[list[int], bool]] = []
    for index in range(count):
        good = not all_bad and index not in bad
        if found and found[-1][1] == good:
            found[-1][0].append(index)
        else:
            found.append(([index], good))
    return found


class ParserError:
    """One error of the parser."""

    _trt: Any
    _problem: Problem

    def code(self) -> Any:
        return getattr(self._trt.ErrorCode, self._problem.code)

    def desc(self) -> str:
        return self._problem.words

    def file(self) -> str:
        return "ModelImporter.cpp"

    def func(self) -> str:
        return "parseNode"

    def line(self) -> int:
        return 1107

    def node(self) -> int:
        return self._problem.index

    def node_name(self) -> str:
        return self._problem.node

    def node_operator(self) -> str:
        return self._problem.operator

    def local_function_stack(self) -> list[str]:
        return list(self._problem.stack)

    def local_function_stack_size(self) -> int:
        return len(self._problem.stack)

    def __str__(self) -> str:
        problem = self._problem
        if not problem.operator:
            return f"In file ModelImporter.cpp: {problem.words}"
        return (
            f"In node {problem.index} with name: {problem.node} and operator: {problem.operator} (parseNode): "
            f"{problem.code}: {problem.words}"
        )
