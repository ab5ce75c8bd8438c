"""Arguments of which a framework has made values with pydantic: what is judged is what the tool gets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic_core import PydanticSerializationError, ValidationError, to_json

from sidecar.errors import RequestError


def judged(given: Any, read: Callable[[bytes], Any]) -> tuple[bytes, Any]:
    """The arguments as JSON, and read from that by ``read``, as the framework reads a model's.

    RequestError for those that do not come back the same.
    """
    try:
        text = to_json(given)
        arguments = read(text)
        same = to_json(arguments) == text
    except (PydanticSerializationError, ValidationError) as error:
        raise RequestError("arguments", f"cannot be judged: {type(error).__name__}") from None
    if not same:
        raise RequestError("arguments", "cannot be judged: read back from JSON they are others")
    return text, arguments
