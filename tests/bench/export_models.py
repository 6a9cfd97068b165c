"""Export the benchmark's models with random weights: nothing is downloaded, the same seed gives the same file.

Each model is written twice: ``NAME.onnx`` (weights inside) and ``NAME_external/NAME.onnx`` with ``NAME.data`` beside
it. Weights are random but the graphs are those of the public architectures, which is what a simplifier sees.

Run it with the interpreter of the ``bench`` extra: ``python tests/bench/export_models.py FOLDER [NAME ...]``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
import transformers

OPSET = 17


class FirstTensors(torch.nn.Module):
    """A transformers model whose output object becomes a plain tuple of tensors, in the order of ``wanted``."""

    def __init__(self, model: torch.nn.Module, inputs: Sequence[str], wanted: Sequence[str]) -> None:
        super().__init__()
        self.model, self.inputs, self.wanted = model, tuple(inputs), tuple(wanted)

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        out = self.model(**dict(zip(self.inputs, tensors, strict=True)), return_dict=True)
        return tuple(getattr(out, name) for name in self.wanted)


@dataclasses.dataclass(frozen=True)
class Export:
    """What one export needs."""

    build: Callable[[], torch.nn.Module]
    """Makes the model, with random weights."""
    inputs: dict[str, Callable[[], torch.Tensor]]
    """Sample inputs by name."""
    outputs: tuple[str, ...]
    """Attributes of the model's output object that become graph outputs."""
    axes: dict[str, dict[int, str]]
    """Dynamic axes by input or output."""


def _images() -> torch.Tensor:
    return torch.randn(1, 3, 224, 224)


def _ids() -> torch.Tensor:
    return torch.randint(0, 1000, (1, 16))


def _mask() -> torch.Tensor:
    return torch.ones(1, 16, dtype=torch.int64)


def _image_export(build: Callable[[], torch.nn.Module], output: str = "logits") -> Export:
    return Export(build, {"pixel_values": _images}, (output,), {"pixel_values": {0: "batch"}, output: {0: "batch"}})


def _text_export(build: Callable[[], torch.nn.Module], output: str) -> Export:
    both = {0: "batch", 1: "sequence"}
    return Export(
        build,
        {"input_ids": _ids, "attention_mask": _mask},
        (output,),
        {"input_ids": both, "attention_mask": both, output: both},
    )


def _swin() -> torch.nn.Module:
    return transformers.SwinForImageClassification(transformers.SwinConfig(num_labels=1000))


def _segformer() -> torch.nn.Module:
    return transformers.SegformerForSemanticSegmentation(transformers.SegformerConfig(num_labels=150))


def _mobilenet() -> torch.nn.Module:
    return transformers.MobileNetV2ForImageClassification(transformers.MobileNetV2Config(num_labels=1000))


def _resnet() -> torch.nn.Module:
    return transformers.ResNetForImageClassification(transformers.ResNetConfig(num_labels=1000))


def _vit() -> torch.nn.Module:
    return transformers.ViTForImageClassification(transformers.ViTConfig(num_labels=1000, attn_implementation="eager"))


def _bert() -> torch.nn.Module:
    return transformers.BertModel(transformers.BertConfig(attn_implementation="eager"), add_pooling_layer=False)


def _gpt2() -> torch.nn.Module:
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(attn_implementation="eager", use_cache=False))


EXPORTS: dict[str, Export] = {
    "mobilenet_v2": _image_export(_mobilenet),
    "segformer_b0": _image_export(_segformer),
    "swin_tiny": _image_export(_swin),
    "resnet_50": _image_export(_resnet),
    "vit_base": _image_export(_vit),
    "bert_base": _text_export(_bert, "last_hidden_state"),
    "gpt2": _text_export(_gpt2, "logits"),
}


def trained_looking(model: torch.nn.Module) -> torch.nn.Module:
    """Replace initial values that no trained model has.

    Biases of zero and gains of one would be merged as duplicates or removed as no-ops, which no trained model allows;
    convolutions drawn with a tiny deviation let activations vanish, and then a comparison of outputs shows nothing.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    for weight in model.parameters():
        if weight.numel() > 1 and (weight == weight.flatten()[0]).all():
            weight.add_(torch.randn_like(weight) * 0.05)
    return model


@torch.no_grad()
def export(name: str, folder: Path, seed: int) -> Path:
    """Write ``FOLDER/NAME.onnx`` with the TorchScript exporter and return its path."""
    torch.manual_seed(seed)
    wanted = EXPORTS[name]
    model = FirstTensors(trained_looking(wanted.build().eval()), tuple(wanted.inputs), wanted.outputs)
    samples = tuple(make() for make in wanted.inputs.values())
    path = folder / f"{name}.onnx"
    options: dict[str, Any] = {
        "input_names": list(wanted.inputs),
        "output_names": list(wanted.outputs),
        "dynamic_axes": wanted.axes,
        "opset_version": OPSET,
        "do_constant_folding": True,
        "dynamo": False,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, samples, str(path), **options)
    return path


def write_external(path: Path) -> Path:
    """Write the same model with all weights in one ``.data`` file, in a folder of its own."""
    folder = path.parent / f"{path.stem}_external"
    folder.mkdir(exist_ok=True)
    data = folder / f"{path.stem}.data"
    data.unlink(missing_ok=True)
    onnx.save_model(
        onnx.load(path),
        folder / path.name,
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=data.name,
        size_threshold=1024,
    )
    return folder / path.name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the models go")
    parser.add_argument("names", nargs="*", help=f"which; all if none is given: {', '.join(EXPORTS)}")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or EXPORTS:
        start = time.perf_counter()
        path = export(name, arguments.folder, arguments.seed)
        write_external(path)
        graph = onnx.load(path, load_external_data=False).graph
        counts = Counter(node.op_type for node in graph.node)
        summary = {
            "model": name,
            "nodes": len(graph.node),
            "megabytes": round(path.stat().st_size / 1e6, 1),
            "seconds": round(time.perf_counter() - start, 1),
            "most": dict(counts.most_common(5)),
        }
        print(json.dumps(summary), flush=True)


if __name__ == "__main__":
    main()
