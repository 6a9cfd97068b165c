"""The engine's list of layers: groups with their tactics, reformat layers between them, names of the tensors."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Collection, Sequence

from tests.simulated_tensorrt.engine_file import Choice, EngineLayer
from tests.simulated_tensorrt.fusion import Group, metadata_of
from tests.simulated_tensorrt.graph import Graph, reads


def layers_of(
    graph: Graph,
    groups: Sequence[Group],
    choices: Sequence[Choice | None],
    outputs: Collection[str],
    marked: Collection[str],
    profile: int,
    hidden_share: float,
) -> tuple[EngineLayer, ...]:
    """All layers under one profile, in the order they run.

    Args:
        graph: The network.
        groups: Its fused groups, in order.
        choices: The tactic of each.
        outputs: Outputs of the network.
        marked: Tensors marked for debugging, which keep their names.
        profile: The profile's number; from 1 on it stands behind the names.
        hidden_share: Share of unfused tensors that are never shown.
    """
    suffix = f" [profile {profile}]" if profile else ""
    needed = _needed(graph, groups, {*outputs, *marked})
    names = _engine_names(graph, groups, needed, {*outputs, *marked})
    layouts = {
        name: choice.layout
        for group, choice in zip(groups, choices, strict=True)
        if choice is not None
        for i in group.nodes
        for name in graph.nodes[i].output
    }
    layers: list[EngineLayer] = []
    for place, (group, choice) in enumerate(zip(groups, choices, strict=True)):
        made = {name for i in group.nodes for name in graph.nodes[i].output}
        read = list(dict.fromkeys(n for i in group.nodes for n in reads(graph.nodes[i]) if n not in made))
        inputs = [names.get(n, n) for n in read if n not in graph.constants]
        wants = choice is not None and choice.layout == "channels_last"
        if wants and inputs and layouts.get(read[0], "linear") == "linear":
            layers.append(_reformat(f"Reformatting CopyNode for Input Tensor 0 to {group.name}{suffix}", inputs[0]))
            inputs[0] = layers[-1].outputs[0][1]
        wanted = [name for name in needed[place] if name]
        layers.append(
            EngineLayer(
                name=group.name + suffix,
                kind=group.kind,
                nodes=tuple(group.nodes),
                metadata=metadata_of(group, graph),
                inputs=tuple(inputs),
                outputs=tuple((name, names[name]) for name in wanted),
                choice=choice,
                stream=0,
                shown=tuple(n for n in wanted if random.Random(f"shown|{n}").random() >= hidden_share),
            )
        )
        if wants and any(layouts.get(n) == "channels_last" for n in wanted):
            layers.append(
                _reformat(f"Reformatting CopyNode for Output Tensor 0 to {group.name}{suffix}", names[wanted[0]])
            )
            layers[-1] = dataclasses.replace(
                layers[-1], inputs=(layers[-1].outputs[0][1],), outputs=(("", names[wanted[0]]),)
            )
    return tuple(layers)


def _reformat(name: str, tensor: str) -> EngineLayer:
    made = f"Reformatted {name.split('CopyNode for ')[1]}"
    return EngineLayer(name, "reformat", (), "", (tensor,), (("", made),), None, 0, ())


def _needed(graph: Graph, groups: Sequence[Group], kept: set[str]) -> list[list[str]]:
    """For each group the tensors that it makes and somebody outside reads."""
    owner = {i: place for place, group in enumerate(groups) for i in group.nodes}
    read_outside: set[str] = set(kept)
    producers = graph.producers()
    for i, node in enumerate(graph.nodes):
        read_outside |= {n for n in reads(node) if n in producers and owner[producers[n]] != owner[i]}
    return [
        [name for i in group.nodes for name in graph.nodes[i].output if name in read_outside]
        or [graph.nodes[group.nodes[-1]].output[0]]
        for group in groups
    ]


def _engine_names(
    graph: Graph, groups: Sequence[Group], needed: Sequence[Sequence[str]], kept: set[str]
) -> dict[str, str]:
    """What the engine calls each tensor: inside regions of the compiler not what the model calls it."""
    names: dict[str, str] = {}
    for group, tensors in zip(groups, needed, strict=True):
        for name in tensors:
            if name in kept or not group.myelin:
                names[name] = name
                continue
            rng = random.Random(f"name|{name}")
            region = group.name.rsplit("_myl", 1)[1]
            if rng.random() < 0.2:  # such names lead nowhere but through the inspector
                names[name] = f"__mye{rng.randrange(10**6)}_myl{region}"
            elif group.kind == "kgen" and rng.random() < 0.3:
                names[name] = f"{name}.1_{region.split('_')[1]}_myl{region.split('_')[0]}"
            else:
                names[name] = f"{name}_myl{region}"
    return names
