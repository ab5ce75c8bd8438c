"""A PEP that asks over AuthZEN, with its own certificate, at a sidecar with OPA; and what the scenarios expect."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from tests.authorities import Authority
from tests.enforce.gateway import Answered, Parts, issue
from tests.people import person, registry_text
from tests.ports import free_port
from tests.program import made

APP, PEP, LEAD = "todo-app", "todo-backend", "lead"
PEP_ID = "spiffe://a/todo-backend"
HOST = "sidecar.internal"
PEOPLE = (
    person(APP, "agent"),
    person(PEP, "executor", spiffe_ids=[{"id": PEP_ID}]),
    person(LEAD, "approver", "lead"),
)
EVALUATION, EVALUATIONS = "/access/v1/evaluation", "/access/v1/evaluations"


def context_of(place: Path, ca: Path, shown: str = "pep") -> ssl.SSLContext:
    """A client's TLS; ``shown``: which certificate of the place, or none."""
    context = ssl.create_default_context(cafile=str(ca))
    if shown:
        context.load_cert_chain(place / f"{shown}.crt", place / f"{shown}.key")
    return context


@dataclass(slots=True)
class Pep(Parts):
    """The sidecar, its OPA, and how they are asked."""

    policy: ClassVar[Path] = Path(__file__).with_name("authzen.rego")
    port: int
    tls: ssl.SSLContext

    def send(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = {}, tls: Any = None
    ) -> Answered:
        connection = Named("127.0.0.1", self.port, timeout=60, context=tls or self.tls)
        try:
            connection.request(method, path, body, dict(headers))
            response = connection.getresponse()
            return Answered(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def post(self, path: str, asked: object, **headers: str) -> Answered:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.send("POST", path, json.dumps(asked).encode(), {"content-type": "application/json", **given})

    def decision(self, asked: object) -> bool:
        answered = self.post(EVALUATION, asked)
        assert answered.status == 200, answered.body
        found: bool = answered.json()["decision"]
        return found

    def decisions(self, asked: object) -> list[bool]:
        answered = self.post(EVALUATIONS, asked)
        assert answered.status == 200, answered.body
        return [each["decision"] for each in answered.json()["evaluations"]]


class Named(http.client.HTTPSConnection):
    """HTTPS to this machine, at a server of another name."""

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        context: ssl.SSLContext = self._context  # type: ignore[attr-defined]  # the one it was given
        self.sock = context.wrap_socket(self.sock, server_hostname=HOST)


@contextlib.contextmanager
def pep(place: Path, timeout: float = 20.0, more: str = "") -> Iterator[Pep]:
    """All of it, running. ``timeout``: seconds that a policy may take; ``more``: settings of the door, in TOML."""
    authority, port = Authority("a"), free_port()
    (place / "registry.json").write_bytes(registry_text(*PEOPLE))
    ledger, _ = made(place)
    issue(place, "sidecar", authority, "spiffe://a/sidecar", dns=HOST)
    issue(place, "pep", authority, PEP_ID)
    issue(place, "other", authority, "spiffe://a/other")
    (place / "a.pem").write_bytes(authority.pem)
    (place / "sidecar.toml").write_text(
        f'data_dir = "{ledger}"\nlisten = "unix:{place}/s.sock"\nregistry = "{place}/registry.json"\nengine = "opa"\n'
        f'opa = "unix:{place}/opa.sock"\nevaluate_timeout = {timeout}\n'
        f'[doors.authzen]\ngateway = "{PEP}"\nagent = "{APP}"\nlisten = "127.0.0.1:{port}"\n{more}'
        f'url = "https://{HOST}:{port}"\ntls_cert_file = "{place}/sidecar.crt"\n'
        f'tls_key_file = "{place}/sidecar.key"\ntls_client_ca_file = "{place}/a.pem"\n'
    )
    it = Pep(place, ledger, port, context_of(place, place / "a.pem"))
    try:
        it.start_opa()
        it.start_sidecar()
        yield it
    finally:
        it.end()


def asking(subject: str, action: object, resource: object, **more: object) -> dict[str, Any]:
    """An evaluation; a subject or action by its id alone, a resource as ``type/id``."""
    named = {"name": action} if isinstance(action, str) else action
    if isinstance(resource, str):
        kind, _, identity = resource.partition("/")
        resource = {"type": kind, "id": identity}
    return {"subject": {"type": "user", "id": subject}, "action": named, "resource": resource, **more}


@dataclass(frozen=True, slots=True)
class Person:
    """One of the Todo scenario's people, and what the scenario says that they may: rick's todos, and their own."""

    pid: str
    email: str
    creates: bool
    updates: tuple[bool, bool]
    deletes: tuple[bool, bool]


def _pid(number: int) -> str:
    """The scenario's subject ids differ in one character."""
    return f"CiRmZD{'AEIMQ'[number]}2MTRkMy1jMzlhLTQ3ODEtYjdiZC04Yjk2ZjVhNTEwMGQSBWxvY2Fs"


RICK, MORTY, SUMMER, BETH, JERRY = TODO = (
    Person(_pid(0), "rick@the-citadel.com", True, (True, True), (True, True)),
    Person(_pid(1), "morty@the-citadel.com", True, (False, True), (False, True)),
    Person(_pid(2), "summer@the-smiths.com", True, (False, True), (False, True)),
    Person(_pid(3), "beth@the-smiths.com", False, (False, False), (False, False)),
    Person(_pid(4), "jerry@the-smiths.com", False, (False, False), (False, False)),
)


def todo(owner: Person, number: int = 1) -> dict[str, Any]:
    return {
        "type": "todo",
        "id": f"7240d0db-8ff0-41ec-98b2-34a096273b9{number}",
        "properties": {"ownerID": owner.email},
    }


def interop(who: Person) -> list[tuple[dict[str, Any], bool]]:
    """The scenario's single evaluations for one of them, with its decisions."""
    found = [
        (asking(who.pid, "can_read_user", f"user/{BETH.email}"), True),
        (asking(who.pid, "can_read_user", f"user/{who.email}"), True),
        (asking(who.pid, "can_read_todos", "todo/todo-1"), True),
        (asking(who.pid, "can_create_todo", "todo/todo-1"), who.creates),
    ]
    for action, expected in (("can_update_todo", who.updates), ("can_delete_todo", who.deletes)):
        found += [(asking(who.pid, action, todo(owner)), so) for owner, so in zip((RICK, who), expected, strict=True)]
    return found


def routed(who: Person) -> list[tuple[dict[str, Any], bool]]:
    """What an API gateway asks for one of them in its scenario, with that scenario's decisions."""
    routes = (
        ("GET", "/users/{userId}", True), ("GET", "/todos", True), ("POST", "/todos", who.creates),
        ("PUT", "/todos/{todoId}", who.creates), ("DELETE", "/todos/{todoId}", who.creates),
    )  # fmt: skip
    return [
        ({**asking("", method, f"route/{path}"), "subject": {"type": "identity", "id": who.pid}}, so)
        for method, path, so in routes
    ]


ACTIVE: dict[str, Any] = {"type": "record", "id": "record-1"}
ARCHIVED: dict[str, Any] = {"type": "record", "id": "record-2", "properties": {"status": "archived"}}
ADMIN: dict[str, Any] = {"type": "user", "id": "bob", "properties": {"role": "admin"}}

FIXTURE: dict[str, tuple[dict[str, Any], bool]] = {
    "1": (asking("alice", "read", ACTIVE), True),
    "2": (asking("alice", "write", ACTIVE), True),
    "3": (asking("bob", "read", ACTIVE), True),
    "4": (asking("bob", "write", ACTIVE), False),
    "5": (asking("alice", "write", ARCHIVED), False),
    "6": ({**asking("bob", "write", ARCHIVED), "subject": ADMIN}, True),
    "7": (asking("alice", {"name": "delete", "properties": {"soft": True}}, ACTIVE), True),
    "8": (asking("alice", {"name": "delete", "properties": {"soft": False}}, ACTIVE), False),
    "with a context": (
        asking("alice", "read", ACTIVE, context={"time": "2026-06-27T18:03-07:00", "ip": "192.0.2.1"}),
        True,
    ),
    "with more properties": (
        {
            "subject": {"type": "user", "id": "alice", "properties": {"department": "Sales", "role": "manager"}},
            "action": {"name": "read", "properties": {"method": "GET"}},
            "resource": {**ACTIVE, "properties": {"status": "active", "owner": "bob"}},
        },
        True,
    ),
    "with members that nobody knows": (
        asking("alice", "read", ACTIVE, foo="bar", futureField={"nested": True}, **{"": 1}),
        True,
    ),
}
"""The certification's rules and requests of the level Basic, by number or in words."""

_READ: dict[str, Any] = {"name": "read"}
_WRITE: dict[str, Any] = {"name": "write"}
_ALICE: dict[str, Any] = {"type": "user", "id": "alice"}
_BOB: dict[str, Any] = {"type": "user", "id": "bob"}

BATCHES: dict[str, tuple[dict[str, Any], list[bool]]] = {
    "resources": (
        {"subject": _ALICE, "action": _READ, "evaluations": [{"resource": ACTIVE}, {"resource": ARCHIVED}]},
        [True, True],
    ),
    "actions": (
        {"subject": _BOB, "resource": ACTIVE, "evaluations": [{"action": _READ}, {"action": _WRITE}]},
        [True, False],
    ),
    "properties of resources": (
        {
            "subject": _ALICE,
            "action": _WRITE,
            "evaluations": [{"resource": {**ACTIVE, "properties": {"status": "active"}}}, {"resource": ARCHIVED}],
        },
        [True, False],
    ),
    "properties of subjects": (
        {"action": _WRITE, "resource": ARCHIVED, "evaluations": [{"subject": _ALICE}, {"subject": ADMIN}]},
        [False, True],
    ),
    "no defaults": ({"evaluations": [FIXTURE["1"][0], FIXTURE["4"][0]]}, [True, False]),
    "whole entities are replaced": (
        {
            **asking("alice", "write", {**ACTIVE, "properties": {"status": "active"}}),
            "evaluations": [{}, {"resource": ARCHIVED}],
        },
        [True, False],
    ),
    "properties are not merged": (
        {"subject": ADMIN, "action": _WRITE, "resource": ARCHIVED, "evaluations": [{}, {"subject": _BOB}]},
        [True, False],
    ),
    "a context of its own": (
        {
            "subject": _ALICE,
            "action": _READ,
            "context": {"time": "2026-06-27T18:03-07:00"},
            "evaluations": [{"resource": ACTIVE}, {"resource": ACTIVE, "context": {"source": "its own"}}],
        },
        [True, True],
    ),
    "one is broken": (
        {
            "subject": _ALICE,
            "action": _READ,
            "options": {"evaluations_semantic": "execute_all"},
            "evaluations": [{"resource": ACTIVE}, {}],
        },
        [True, False],
    ),
}
"""The certification's requests of the level Batch."""
