"""YAML that people write, read with the line of everything: the part of YAML that is JSON with comments.

Mappings with text keys, sequences, and scalars by the rules of JSON: `yes` and `2026-11-23` are text. Anchors,
aliases, tags, merge keys and repeated keys are refused, so nothing can grow beyond the file, and nothing is built from
it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import yaml

MAX_BYTES: Final = 1 << 20
MAX_DEPTH: Final = 32
# libyaml's parser where the installed package has it: an order of magnitude faster
_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,15})?([eE][+-]?[0-9]{1,2})?", re.ASCII)
_WORDS: Final = {"": None, "~": None, "null": None, "true": True, "false": False}


class YamlRefused(Exception):
    """A file that is not such YAML; ``line`` counts from 1."""

    def __init__(self, line: int, cause: str) -> None:
        super().__init__(cause)
        self.line = line


@dataclass(frozen=True, slots=True)
class Lined:
    """A value and its line: a scalar, or a list or a dict of further `Lined`."""

    value: Any
    line: int

    def plain(self) -> Any:
        """The value as JSON has it, without lines."""
        if isinstance(self.value, dict):
            return {name: inner.plain() for name, inner in self.value.items()}
        return [inner.plain() for inner in self.value] if isinstance(self.value, list) else self.value


def read_yaml(raw: bytes) -> Lined:
    """The one document in ``raw``. Raises `YamlRefused`."""
    if len(raw) > MAX_BYTES:
        raise YamlRefused(1, f"is larger than {MAX_BYTES} bytes")
    try:
        text = raw.decode()
        _check_events(text)
        node = yaml.compose(text, Loader=_LOADER)
    except UnicodeDecodeError:
        raise YamlRefused(1, "is not UTF-8") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise YamlRefused(line, f"is not YAML: {error.problem or error.context}") from None
    except yaml.YAMLError:
        raise YamlRefused(1, "holds a character that YAML does not allow") from None
    if node is None:
        raise YamlRefused(1, "is empty")
    return _lined(node)


def _check_events(text: str) -> None:
    """Before anything is built, which recurses: the depth, and what could refer or stand for something else."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        line = _line(event)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise YamlRefused(line, "has an anchor or an alias; write the value out")
        if getattr(event, "tag", None) is not None:
            raise YamlRefused(line, "has a tag; write a plain value")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise YamlRefused(line, f"is nested more than {MAX_DEPTH} deep")


def _lined(node: yaml.Node) -> Lined:
    line = _line(node)
    if isinstance(node, yaml.MappingNode):
        return Lined(_mapping(node), line)
    if isinstance(node, yaml.SequenceNode):
        return Lined([_lined(inner) for inner in node.value], line)
    return Lined(_scalar(node), line)


def _line(part: Any) -> int:
    """Where a node or an event begins."""
    return int(part.start_mark.line) + 1


def _mapping(node: yaml.MappingNode) -> dict[str, Lined]:
    made: dict[str, Lined] = {}
    for key, value in node.value:
        line = _line(key)
        if not isinstance(key, yaml.ScalarNode) or key.value == "<<":
            raise YamlRefused(line, "has a key that is not text")
        if key.value in made:
            raise YamlRefused(line, f"has the key {key.value!r} twice")
        made[key.value] = _lined(value)
    return made


def _scalar(node: yaml.Node) -> str | int | float | bool | None:
    text = str(node.value)
    if getattr(node, "style", None):  # quoted, or a block of text
        return text
    if text in _WORDS:
        return _WORDS[text]
    found = _NUMBER.fullmatch(text)
    if found is None:
        return text
    return float(text) if found[2] or found[3] else int(text)
