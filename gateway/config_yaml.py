"""YAML as people type it: a key that stands twice in one place is refused, because only the last one would count."""

from __future__ import annotations

from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Look before anchors are merged (`<<`): a key that replaces one of an anchor is meant to."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                line, known = key.start_mark.line + 1, (key.tag, key.value)
                if known in lines:
                    raise yaml.YAMLError(
                        f"line {line}: the key {key.value!r} stands in line {lines[known]} already; leave one of them."
                    )
                lines[known] = line
        return node


def load_yaml(text: str | bytes) -> Any:
    """The document in this text. Raises yaml.YAMLError for what is no YAML, and for a key that stands twice."""
    # ruff knows only that load() may run code; this loader is the safe one.
    return yaml.load(text, Loader=_Loader)  # noqa: S506
