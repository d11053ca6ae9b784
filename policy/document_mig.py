"""What a policy file says about splitting GPUs into MIG devices: `gpu.mig`, a list of layouts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from policy.document_values import Wrong, read_bool, read_fields, read_items

if TYPE_CHECKING:
    from collections.abc import Mapping

_GPU = re.compile(r"[0-9]{1,2}|GPU-[0-9a-fA-F-]{4,36}")
_PROFILE = re.compile(r"[1-9]g\.[1-9][0-9]{0,2}gb(\+[a-z.]{1,12})?")
MOST_INSTANCES = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class MigLayout:
    """How some GPUs are to be split. profiles: how many of each, in order of their names; None: not at all."""

    gpus: tuple[str, ...]  # UUIDs, or indices as nvidia-smi shows them; at least one
    profiles: tuple[tuple[str, int], ...] | None


def read_mig(node: yaml.Node) -> tuple[MigLayout, ...]:
    """Every layout; no GPU stands in two. Raises: Wrong."""
    layouts = tuple(_layout(item) for item in read_items(node))
    named = [gpu for layout in layouts for gpu in layout.gpus]
    twice = next((gpu for gpu in named if named.count(gpu) > 1), None)
    if twice is not None:
        raise Wrong(f"GPU {twice} stands in two layouts; keep one of them")
    return layouts


def _layout(node: yaml.Node) -> MigLayout:
    found: Mapping[str, object] = read_fields(
        node, {"gpus": _read_gpus, "whole": read_bool, "profiles": _read_profiles}
    )
    gpus, profiles = found.get("gpus"), found.get("profiles")
    if not isinstance(gpus, tuple) or not gpus:
        raise Wrong("each layout needs gpus, like {gpus: [0], profiles: {3g.20gb: 2}}")
    if bool(found.get("whole")) == ("profiles" in found):
        raise Wrong("each layout needs either profiles, like {3g.20gb: 2}, or whole: true")
    return MigLayout(gpus=gpus, profiles=profiles if isinstance(profiles, tuple) else None)


def _read_gpus(node: yaml.Node) -> tuple[str, ...]:
    return tuple(_gpu(item) for item in read_items(node))


def _gpu(node: yaml.Node) -> str:
    text = str(node.value) if isinstance(node, yaml.ScalarNode) else ""
    if not _GPU.fullmatch(text):
        raise Wrong(
            "must be GPUs by UUID or by index, like [GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77] or [0, 1]"
        )
    return text


def _read_profiles(node: yaml.Node) -> tuple[tuple[str, int], ...]:
    if not isinstance(node, yaml.MappingNode):
        raise Wrong("must be a count for each profile, like {3g.20gb: 1, 1g.5gb: 4}")
    found: dict[str, int] = {}
    for key, value in node.value:
        name = str(key.value) if isinstance(key, yaml.ScalarNode) else ""
        count = str(value.value) if isinstance(value, yaml.ScalarNode) else ""
        if not _PROFILE.fullmatch(name):
            raise Wrong(f"{name[:40] or 'this'} is no MIG profile; write it as nvidia-smi does, like 1g.5gb")
        if not re.fullmatch(r"[0-9]", count) or int(count) > MOST_INSTANCES:
            raise Wrong(f"{name} needs a count from 0 to {MOST_INSTANCES}")
        if name in found:
            raise Wrong(f"{name} is written twice")
        found[name] = int(count)
    return tuple(sorted(found.items()))
