"""The attacks on entries, seals, notes and receipts. Numbers are those of the attacks in the project's design."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO

from sidecar.chain import lines, note
from sidecar.chain.entry import payload_commit
from sidecar.chain.head import Decided, Head
from sidecar.chain.ratchet import evolve
from sidecar.chain.stream import MAGIC, Kind, record, records
from sidecar.verify import Disclosure
from tests.conformance.chains import (
    OTHER,
    chain,
    disclosure,
    files,
    notary,
)
from tests.conformance.packing import Files, packed
from tests.conformance.published import (
    CASES,
    HERE,
    START,
    Due,
    Published,
    Row,
    at,
    bare,
    folder,
    ids,
    middle,
    of_agent,
    published,
    rows,
    seal_at,
    stream_name,
    to_end,
    two,
    with_case,
    with_rows,
)
from tests.notary import Notary
from tests.scribe import entry_tag, flip, signing_key

# --- the attacks on entries, seals and notes


def _rows(make: Callable[[list[Row]], list[Row]], base: Callable[[], Files] = middle) -> bytes:
    return packed(with_rows(base(), make(rows(base()))))


def _changed(seq: int, offset: int) -> Callable[[], bytes]:
    def make(there: list[Row]) -> list[Row]:
        where = at(there, seq)
        return [*there[:where], (there[where][0], flip(there[where][1], offset)), *there[where + 1 :]]

    return lambda: _rows(make)


for _what, _offset, _verdict in (
    ("magic", 0, "MALFORMED"), ("type", 8, "MALFORMED"), ("flags", 11, "MALFORMED"), ("epoch", 15, "TAMPERED"),
    ("seq", 23, "TAMPERED"), ("segment", 31, "TAMPERED"), ("chain", 32, "TAMPERED"), ("commit", 96, "TAMPERED"),
    ("wall", 143, "TAMPERED"), ("reference", 167, "MALFORMED"), ("agent-tag", 168, "TAMPERED"),
    ("tag", 184, "TAMPERED"),
    ("salt", 216, "TAMPERED"), ("payload", 260, "TAMPERED"),
):  # fmt: skip
    CASES[f"01-flip-{_what}"] = Published(_changed(13, _offset), Due(_verdict, HERE, 3, 13))
CASES["01-flip-prev"] = Published(_changed(13, 64), Due("TAMPERED", HERE, 3, 13))
CASES["01-flip-codec"] = Published(_changed(13, 248), Due("MALFORMED", HERE, 3, 13))


def _without(seq: int) -> Callable[[list[Row]], list[Row]]:
    return lambda there: [each for i, each in enumerate(there) if i != at(there, seq)]


@published("02-entry-deleted", "TAMPERED", HERE, 3, 11)
def _() -> bytes:
    return packed(with_case(with_rows(middle(), _without(11)(rows(middle()))), entries=7))


@published("02-entries-swapped", "TAMPERED", HERE, 3, 11)
def _() -> bytes:
    def make(there: list[Row]) -> list[Row]:
        a, b = at(there, 11), at(there, 12)
        there[a], there[b] = there[b], there[a]
        return there

    return _rows(make)


@published("02-entry-twice", "TAMPERED", HERE, 3, 12)
def _() -> bytes:
    def make(there: list[Row]) -> list[Row]:
        where = at(there, 11)
        return [*there[: where + 1], there[where], *there[where + 1 :]]

    return packed(with_case(with_rows(middle(), make(rows(middle()))), entries=9))


def _cut(segment: int) -> Files:
    """Everything after this segment's seal is gone, and the case says so."""
    there = rows(middle())
    kept = there[: seal_at(there, segment) + 1]
    entries = sum(kind in (5, 9) for kind, _ in kept)
    return with_case(with_rows(middle(), kept), last_segment=segment, entries=entries)


@published("03-sealed-tail-cut", "INCOMPLETE", HERE, 4, None)
def _() -> bytes:
    return packed(_cut(3))


@published("03-sealed-tail-cut-and-claimed-less", "INCOMPLETE", HERE, 4, None)  # its receipt is of the segment cut off
def _() -> bytes:
    return packed(with_case(_cut(3), through=None))


@published("03-sealed-tail-cut-with-its-receipts", "UNANCHORED")
def _() -> bytes:
    kept = {n: c for n, c in with_case(_cut(3), through=None).items() if "/receipts/" not in n}
    return packed(kept)


@published("14-empty-segment-dropped-from-the-context", "TAMPERED", HERE, 2, None)
def _() -> bytes:
    return _rows(lambda there: [e for i, e in enumerate(there) if i != seal_at(there, 2, Kind.CONTEXT_SEAL)])


@published("14-empty-segment-dropped", "TAMPERED", HERE, 2, None)
def _() -> bytes:
    return _rows(lambda there: [e for i, e in enumerate(there) if i != seal_at(there, 2)], lambda: files(0, 4))


def _context(name: str, verdict: str, segment: int | None, make: Callable[[list[Row]], list[Row]]) -> None:
    CASES[f"context-{name}"] = Published(lambda: _rows(make), Due(verdict, HERE, segment, None))


def _swap(there: list[Row], kind: Kind, change: Callable[[bytes], bytes], nth: int = 0) -> list[Row]:
    where = [i for i, (k, _) in enumerate(there) if k is kind][nth]
    return [*there[:where], (kind, change(there[where][1])), *there[where + 1 :]]


_context("seal-signature-flipped", "TAMPERED", 1, lambda t: _swap(t, Kind.CONTEXT_SEAL, _resigned, 1))
_context("seal-not-a-note", "MALFORMED", 1, lambda t: _swap(t, Kind.CONTEXT_SEAL, lambda b: b"seal", 1))
_context("seals-swapped", "MALFORMED", 0, lambda t: [t[i] for i in _order(t)])
_context("epoch-note-of-another-epoch", "TAMPERED", 5, lambda t: _swap(t, Kind.EPOCH, lambda _: chain().notes[2]))
_context("epoch-note-wrongly-signed", "TAMPERED", 3, lambda t: _swap(t, Kind.EPOCH, _resigned))
_context("open-of-another-epoch", "TAMPERED", 3, lambda t: _swap(t, Kind.OPEN, lambda _: chain().openings[2]))
_context("open-missing", "MALFORMED", 3, lambda t: [e for e in t if e[0] is not Kind.OPEN])
_context("no-seals", "MALFORMED", 3, lambda t: [e for e in t if e[0] is not Kind.CONTEXT_SEAL])
_context("no-genesis", "MALFORMED", 3, lambda t: t[1:])
_context("seal-of-a-segment-file", "MALFORMED", 3, lambda t: [*t[:4], (Kind.SEAL_BEFORE, chain().seals[2]), *t[4:]])
_context("registry-that-is-none", "MALFORMED", 3, lambda t: _swap(t, Kind.REGISTRY_BEFORE, lambda _: b"{}"))
_context("three-registries", "MALFORMED", 3, lambda t: [*t[:3], t[3], t[3], *t[3:]])
_context("nothing-but-context", "MALFORMED", 3, lambda t: [e for e in t if e[0] in (1, 2, 3, 12, 10)])


def _order(there: list[Row]) -> list[int]:
    found = list(range(len(there)))
    a, b = seal_at(there, 0, Kind.CONTEXT_SEAL), seal_at(there, 1, Kind.CONTEXT_SEAL)
    found[a], found[b] = b, a
    return found


def _resigned(data: bytes) -> bytes:
    """The same note, signed under the same name by somebody else."""
    text = note.parse(data)
    return note.sign(text.text, text.signatures[0].name, signing_key("thief"))


@published("context-seal-before-an-epoch-altered", "TAMPERED", HERE, 5, None)
def _() -> bytes:
    def make(there: list[Row]) -> list[Row]:
        seal = note.parse(there[seal_at(there, 5, Kind.CONTEXT_SEAL)][1])
        text = f"{seal.text[: seal.text.rindex('time ')]}time 1\n"
        return _swap(there, Kind.CONTEXT_SEAL, lambda _: note.sign(text, seal.signatures[0].name, chain().identity))

    return _rows(make, lambda: files(6, 7))


@published("16-disclosed-keys-of-another-segment", "TAMPERED", HERE, 3, None)
def _() -> bytes:
    s = chain()
    mixed = Disclosure(s.chain_id, {3: s.keys[4], 4: s.keys[4]})
    return packed({**middle(), f"{folder()}/disclosure.json": mixed.encode()})


@published("16-entry-forged-with-a-disclosed-key", "TAMPERED", HERE, 3, 13)
def _() -> bytes:
    return _rows(_forged)


def _forged(there: list[Row]) -> list[Row]:
    """Entry 13 says something else, under a right commitment and a right tag: who has K_3 can do that."""
    where, key = at(there, 13), chain().keys[3].mac_key
    for _ in range(13 - START):
        key = evolve(key)
    body = there[where][1]
    salt, text = body[216:248], body[249:].replace(b"within_limit", b"beyond_limit")
    header = body[:96] + payload_commit(salt, text) + body[128:184]
    return [
        *there[:where],
        (Kind.ENTRY, header + entry_tag(key, header) + salt + body[248:249] + text),
        *there[where + 1 :],
    ]


@published("17-entry-of-another-chain", "TAMPERED", HERE, 3, 13)
def _() -> bytes:
    def make(there: list[Row]) -> list[Row]:
        twin = next(r.body for r in chain("case-two").records if r.kind is Kind.ENTRY and r.seq == 13)
        where = at(there, 13)
        return [*there[:where], (Kind.ENTRY, twin), *there[where + 1 :]]

    return _rows(make)


@published("19-tag-keys-of-another-segment", "TAMPERED", HERE, 3, 11)
def _() -> bytes:
    s = chain()
    wrong = Disclosure(s.chain_id, {3: type(s.keys[3])(s.keys[3].mac_key, s.keys[4].tag_key), 4: s.keys[4]})
    return packed({**of_agent(), f"{folder()}/disclosure.json": wrong.encode()})


@published("20-told-allow-recorded-deny", "TAMPERED", HERE, 3, 13)
def _() -> bytes:
    s = chain()
    value = s.payloads[13]
    told = Decided(value["decision_id"], "ALLOW", bytes.fromhex(value["request_digest"]))
    head = replace(Head.parse(note.parse(s.receipt(13)).text), decided=told)
    receipt = note.sign(head.text(), lines.segment_name(s.chain_id, 3), s.signing[3])
    return packed({**middle(), f"{folder()}/callers/1.receipt": receipt})


@published("20-callers-receipt-agrees", "OK")
def _() -> bytes:
    return packed({**middle(), f"{folder()}/callers/1.receipt": chain().receipt(13)})


@published("20-callers-receipt-of-a-withheld-entry", "OK")
def _() -> bytes:
    return packed({**of_agent(), f"{folder()}/callers/1.receipt": chain().receipt(11)})


@published("20-callers-receipt-before-the-window", "OK")
def _() -> bytes:
    return packed({**middle(), f"{folder()}/callers/1.receipt": chain().receipt(4)})


@published("04-callers-receipt-beyond-the-end", "INCOMPLETE", HERE, 8, chain().seq - 1)
def _() -> bytes:
    there = rows(to_end())
    kept = there[: seal_at(there, 7) + 1]
    entries = sum(kind in (5, 9) for kind, _ in kept)
    cut = with_case(with_rows(to_end(), kept), last_segment=7, entries=entries)
    return packed({**cut, f"{folder()}/callers/1.receipt": chain().receipt(chain().seq - 1)})


@published("04-callers-receipt-of-a-segment-that-was-opened-and-no-more", "MALFORMED", HERE, 3, 13)
def _() -> bytes:
    there = rows(files(0, 4))
    where = seal_at(there, 2) + 1
    cut = with_rows(files(0, 4), [*there[:where], (Kind.EPOCH, _resigned(chain().notes[0])), *there[where:]])
    return packed({**cut, f"{folder()}/callers/1.receipt": chain().receipt(13)})


@published("26-checkpoint-signed-by-another-log", "TAMPERED", HERE, 4, None)
def _() -> bytes:
    s, thief = chain(), Notary(signing_key("thief"), witnesses=2)
    thief.take(s)
    name = next(n for n in middle() if "/receipts/" in n)
    return packed({**middle(), name: thief.of_seal(s, 4)})


@published("27-two-checkpoints-nothing-joins", "INCOMPLETE", HERE, trust="trust-no-witness.json")
def _() -> bytes:
    s, log = chain(), notary(chain())
    log.witnesses = []
    early = Notary(witnesses=0)
    early.take(s)
    first = early.of_seal(s, 4, 9)
    late = early.of_seal(s, 4)
    kept = {n: c for n, c in middle().items() if "/receipts/" not in n}
    return packed({**kept, f"{folder()}/receipts/1": first, f"{folder()}/receipts/2": late})


@published("28-receipt-of-a-log-that-is-not-pinned", "TAMPERED", HERE, 4, None)
def _() -> bytes:
    s, log = chain(), Notary(origin="other.example/log", witnesses=2)
    log.take(s)
    name = next(n for n in middle() if "/receipts/" in n)
    return packed({**middle(), name: log.of_seal(s, 4)})


@published("28-witnesses-too-few", "UNANCHORED")
def _() -> bytes:
    s, log = chain(), notary(chain())
    name = next(n for n in middle() if "/receipts/" in n)
    text = note.parse(s.seals[4]).text
    return packed({**middle(), name: log.receipt(text, by=[0])})


@published("29-payload-missing", "INCOMPLETE", HERE, 3, 13)
def _() -> bytes:
    def make(there: list[Row]) -> list[Row]:
        where = at(there, 13)
        return [*there[:where], bare(there[where]), *there[where + 1 :]]

    return _rows(make)


@published("31-decision-of-the-agent-left-out", "INCOMPLETE", HERE, 4, 15)
def _() -> bytes:
    def make(there: list[Row]) -> list[Row]:
        where = at(there, 15)
        return [*there[:where], bare(there[where]), *there[where + 1 :]]

    return _rows(make, of_agent)


@published("31-outcome-of-the-agent-left-out", "INCOMPLETE", HERE, 3, 10)
def _() -> bytes:
    def make(there: list[Row]) -> list[Row]:
        where = at(there, 10)
        return [*there[:where], bare(there[where]), *there[where + 1 :]]

    return _rows(make, of_agent)


@published("31-no-tag-keys", "INCOMPLETE", HERE, 3, 11)
def _() -> bytes:
    return packed(of_agent(keys=False))


@published("31-tag-keys-of-one-segment-missing", "INCOMPLETE", HERE, 4, 14)
def _() -> bytes:
    return packed({**of_agent(), f"{folder()}/disclosure.json": disclosure(chain(), 3).encode()})


@published("31-bare-close", "INCOMPLETE", HERE, 4, 16)
def _() -> bytes:
    def make(there: list[Row]) -> list[Row]:
        where = at(there, 16)
        return [*there[:where], bare(there[where]), *there[where + 1 :]]

    return _rows(make, of_agent)


@published("31-said-to-be-of-another-agent", "INCOMPLETE", HERE, 3, 11)
def _() -> bytes:
    return packed(with_case(of_agent(), agents=[OTHER]))


@published("31-bare-entry-cut-short", "MALFORMED", HERE, 3, 11)
def _() -> bytes:
    def make(there: list[Row]) -> list[Row]:
        where = at(there, 11)
        return [*there[:where], (Kind.BARE, there[where][1][:215]), *there[where + 1 :]]

    return _rows(make, of_agent)


@published("31-bare-entry-altered", "TAMPERED", HERE, 3, 11)
def _() -> bytes:
    def make(there: list[Row]) -> list[Row]:
        where = at(there, 11)
        return [*there[:where], (Kind.BARE, flip(there[where][1], 100)), *there[where + 1 :]]

    return _rows(make, of_agent)


@published("33-record-past-the-end", "MALFORMED", HERE, 3, 11)
def _() -> bytes:
    whole = middle()[stream_name()]
    cut = whole.index(rows(middle())[at(rows(middle()), 11)][1]) - 4
    return packed({**middle(), stream_name(): whole[:cut] + b"\x00\x7f\xff\xff" + whole[cut + 4 :]})


@published("33-record-of-4-gib", "MALFORMED", HERE, 3, 11)
def _() -> bytes:
    whole = middle()[stream_name()]
    cut = whole.index(rows(middle())[at(rows(middle()), 11)][1]) - 4
    return packed({**middle(), stream_name(): whole[:cut] + b"\xff\xff\xff\xff" + whole[cut + 4 :]})


@published("33-unknown-record", "MALFORMED", HERE, 3, 11)
def _() -> bytes:
    whole = middle()[stream_name()]
    cut = whole.index(rows(middle())[at(rows(middle()), 11)][1]) - 5
    return packed({**middle(), stream_name(): whole[:cut] + b"\xee" + whole[cut + 1 :]})


@published("09-another-chain-of-the-same-identity", "TAMPERED", HERE, 0, 0, trust="trust-another-chain.json")
def _() -> bytes:
    return packed(middle())


@published("13-seal-wrongly-signed", "TAMPERED", HERE, 3, None)
def _() -> bytes:
    return _rows(lambda there: _swap(there, Kind.SEAL, _resigned))


@published("24-seal-with-two-signatures", "MALFORMED", HERE, 3, None)
def _() -> bytes:
    def twice(data: bytes) -> bytes:
        return data + data[data.rindex("\u2014".encode()) :]

    return _rows(lambda there: _swap(there, Kind.SEAL, twice))


@published("two-chains-second-one-bad", "TAMPERED", 1, 3, None, trust="trust-two.json")
def _() -> bytes:
    made, second = two(), ids()[1].hex()
    name = f"data/chains/{second}/stream.sdcseg"
    there = _swap(list(records(BytesIO(made[name]).read)), Kind.SEAL, _resigned)
    return packed({**made, name: MAGIC + b"".join(record(*each) for each in there)})
