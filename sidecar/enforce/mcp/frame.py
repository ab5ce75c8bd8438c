"""One JSON-RPC 2.0 message of the Model Context Protocol, read without being changed. No I/O.

What is judged must be what is forwarded, byte for byte, so a message is never written anew: it is read into values, and
beside each value stands where its text lies. Every reader on the way must understand the same: members that occur
twice, in any object, are refused; on the way to the server so is whatever RFC 7493 forbids, and any member
but those of the message's kind, because servers in other languages find a member in any case of its letters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NoReturn

from sidecar.chain import strictjson
from sidecar.errors import Malformed

Id = tuple[str, str | int | float]
"""An id as a key: its JSON type besides its value, for "1" is not 1."""

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602

_SPACE: Final = re.compile(r"[ \t]*")
_MOST_ID: Final = 256  # characters
_REQUEST: Final = frozenset({"jsonrpc", "id", "method", "params"})
_RESPONSE: Final = frozenset({"jsonrpc", "id", "result", "error"})


class BadFrame(Exception):
    """No message, or one that is not passed on. ``code`` is JSON-RPC's; ``id_text`` the id's JSON where it has one.

    The text quotes nothing of the message.
    """

    def __init__(self, cause: str, code: int = INVALID_REQUEST, id_text: str = "null") -> None:
        super().__init__(cause)
        self.code, self.id_text = code, id_text


@dataclass(frozen=True, slots=True)
class Member:
    """A member's value, and its text as it came."""

    value: Any
    text: str


@dataclass(frozen=True, slots=True)
class Frame:
    """A message. ``raw`` is one line without its end. ``id`` and ``id_text``: None and "null" in a notification."""

    raw: bytes
    kind: Literal["request", "notification", "response"]
    id: Id | None
    id_text: str
    method: str
    members: Mapping[str, Member]

    @property
    def params(self) -> dict[str, Any]:
        """The parameters; empty where there are none."""
        return self.members["params"].value if "params" in self.members else {}

    @property
    def params_text(self) -> str:
        """Their JSON as it came; `{}` where there are none."""
        return self.members["params"].text if "params" in self.members else "{}"


def one_line(raw: bytes) -> bytes:
    """A message without line ends: they can only be white space between tokens, and a server that reads lines might
    take what lies between two of them for a message of its own."""
    return raw.replace(b"\r", b" ").replace(b"\n", b" ") if b"\r" in raw or b"\n" in raw else raw


def read(raw: bytes, *, strict: bool) -> Frame:
    """The message in ``raw``. ``strict``: of a client; whatever RFC 7493 forbids is refused too.

    Raises BadFrame.
    """
    raw = one_line(raw)
    if strict:
        try:
            strictjson.parse(raw)
        except Malformed as error:
            raise BadFrame(str(error), PARSE_ERROR) from None
    try:
        text = raw.decode()
        start = _space(text, 0)
        if text[start : start + 1] == "[":
            raise BadFrame("a batch is not passed on: send each message by itself")
        found, end = _members(text, start)
    except (ValueError, RecursionError, Malformed):
        raise BadFrame("not a JSON-RPC message", PARSE_ERROR) from None
    if _space(text, end) != len(text):
        raise BadFrame("not a JSON-RPC message", PARSE_ERROR)
    return _frame(raw, found)


def members(text: str) -> dict[str, Member]:
    """The members of an object whose text is known to be right."""
    return _members(text, 0)[0]


def elements(text: str) -> list[str]:
    """The texts of the elements of an array whose text is known to be right."""
    found, at = [], _after(text, 0, "[")
    while text[at] != "]":
        end = _DECODER.raw_decode(text, at)[1]
        found.append(text[at:end])
        at = _space(text, end)
        at = _space(text, at + 1) if text[at] == "," else at
    return found


def replaced(whole: Mapping[str, Member], texts: Mapping[str, str]) -> str:
    """The text of an object of these members, some with another text."""
    parts = [f"{json.dumps(name)}:{texts.get(name, member.text)}" for name, member in whole.items()]
    return "{" + ",".join(parts) + "}"


def answered(id_text: str, result_text: str) -> bytes:
    """A response whose result is this text."""
    return f'{{"jsonrpc":"2.0","id":{id_text},"result":{result_text}}}'.encode()


def result(id_text: str, value: Any) -> bytes:
    """A response with a result."""
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (id_text.encode(), _json(value))


def error(id_text: str, code: int, message: str, data: Any = None) -> bytes:
    """A response with an error."""
    said = {"code": code, "message": message} | ({} if data is None else {"data": data})
    return b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (id_text.encode(), _json(said))


def request(own_id: str, method: str, params: Mapping[str, Any]) -> bytes:
    """A request of the gateway's own."""
    return _json({"jsonrpc": "2.0", "id": own_id, "method": method, "params": params})


def notification(method: str, params: Mapping[str, Any]) -> bytes:
    """A notification of the gateway's own."""
    return _json({"jsonrpc": "2.0", "method": method, "params": params})


def id_key(value: Any) -> Id | None:
    """An id as a key; None for what is none."""
    if isinstance(value, str) and len(value) <= _MOST_ID:
        return "string", value
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= strictjson.MAX_INTEGER:
        return "number", value
    return None


def check_case(params: Any) -> None:
    """BadFrame for two members of one object that are one to a reader which finds them in any case of letters."""
    pending = [params]
    while pending:
        item = pending.pop()
        if isinstance(item, dict) and len({name.casefold() for name in item}) != len(item):
            raise BadFrame("params: two members whose names differ in the case of letters alone", INVALID_PARAMS)
        inner = item.values() if isinstance(item, dict) else item
        pending.extend(each for each in inner if isinstance(each, dict | list))


def respelt(value: Any, *names: str) -> list[str]:
    """The members of an object that such a reader takes for one of these, though they are spelt in another way."""
    found = value if isinstance(value, dict) else {}
    folded = {name.casefold() for name in names}
    return [name for name in found if name not in names and name.casefold() in folded]


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def _frame(raw: bytes, found: dict[str, Member]) -> Frame:
    given = found.get("id")
    key = id_key(given.value) if given else None
    asks = "method" in found
    id_text = given.text if given and key and asks else "null"
    if (
        "jsonrpc" not in found
        or found["jsonrpc"].value != "2.0"
        or not found.keys() <= (_REQUEST if asks else _RESPONSE)
    ):
        raise BadFrame("not a JSON-RPC 2.0 message, or with members that are none of its own", INVALID_REQUEST, id_text)
    if given and key is None:
        raise BadFrame("its id is neither a text of at most 256 characters nor a number below 2^53")
    if not asks:
        if given is None or ("result" in found) == ("error" in found):
            raise BadFrame("a response needs an id, and a result or an error")
        return Frame(raw, "response", key, given.text, "", found)
    method = found["method"].value
    if not isinstance(method, str) or ("params" in found and not isinstance(found["params"].value, dict)):
        raise BadFrame("its method is no text or its params are no object", INVALID_REQUEST, id_text)
    return Frame(raw, "request" if given else "notification", key, id_text, method, found)


def _members(text: str, at: int) -> tuple[dict[str, Member], int]:
    """The members of the object that starts at ``at``, and where it ends. ValueError for anything else."""
    found: dict[str, Member] = {}
    at = _after(text, at, "{")
    if text[at : at + 1] == "}":
        return found, at + 1
    while True:
        name, at = _DECODER.raw_decode(text, at)
        if not isinstance(name, str) or name in found:
            raise ValueError
        at = _after(text, at, ":")
        value, end = _DECODER.raw_decode(text, at)
        found[name] = Member(value, text[at:end])
        at = _space(text, end)
        if text[at : at + 1] == "}":
            return found, at + 1
        at = _after(text, at, ",")


def _after(text: str, at: int, sign: str) -> int:
    at = _space(text, at)
    if text[at : at + 1] != sign:
        raise ValueError
    return _space(text, at + 1)


def _space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError
    return value


def _constant(_name: str) -> NoReturn:
    raise ValueError


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_constant)
