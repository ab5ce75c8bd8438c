#!/usr/bin/env python3
"""verify.py: judge a Decision Sidecar evidence bundle, or one stream of a ledger, alone and offline.

    python verify.py verify BUNDLE|STREAM [--trust T] [--disclosure F] [--receipt F]... [--json]

One file; it needs Python 3.11 with the package `cryptography`. It shares no code with the product and was written from
the specifications LEDGER.md, LOG.md, SIGNING.md and EVIDENCE.md. "Rule 5" in a comment is LEDGER.md's, "LOG 3" one of
LOG.md's last section. It reads front to back, one record at a time, writes nothing and asks nobody. What it does not
check it says: above all tags by a custodian's key (use a disclosure), and the signature of a timestamp authority.
"""
import argparse, base64, datetime, hashlib, hmac, json, math, re, struct, sys, zlib
from collections import Counter, namedtuple
from contextlib import contextmanager
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

VERDICTS = "OK REDACTED PRUNED UNANCHORED INCOMPLETE CLOCK FORK TAMPERED MALFORMED".split()
OK, REDACTED, PRUNED, UNANCHORED, INCOMPLETE, CLOCK, FORK, TAMPERED, MALFORMED = range(9)
NONE, ZERO, SECOND, NOTE = 2**64 - 1, bytes(32), 10**9, 16_384
MAX_PAYLOAD, MAX_RECORD, MAX_FINDINGS, MAX_WAITING = 8 << 20, 8_454_144, 1_000, 10_000

class Flaw(Exception):
    """(verdict, reason): what is wrong with the thing at hand. Whoever knows its place reports it."""

def need(holds, reason, verdict=TAMPERED):
    if not holds: raise Flaw(verdict, reason)

def form(holds, reason):
    need(holds, reason, MALFORMED)

@contextmanager
def tampered(what):
    """Where any violation is TAMPERED."""
    try: yield
    except Flaw as flaw: raise Flaw(TAMPERED, f"{what}: {flaw.args[1]}") from None

class Report:
    """Findings: a thousand are kept, all are counted; the worst and the first bad one are never lost."""

    def __init__(self):
        self.kept, self.total, self.worst, self.first, self.by_chain = [], 0, OK, None, Counter()
        self.checked, self.not_checked, self.notes, self.chains, self.worth = [], [], [], [], Counter()

    @staticmethod
    def place(finding):
        """By chain, segment, seq, none of each last; at one place the worst first (EVIDENCE.md, "Verification")."""
        return [(x is None, x or type(x)()) if x is not None else (True,) for x in finding[1:4]] + [-finding[0]]

    def add(self, verdict, chain, segment, seq, reason):
        finding = (verdict, chain, segment, seq, reason)
        if len(self.kept) < MAX_FINDINGS or verdict > self.worst: self.kept.append(finding)
        self.total, self.worst = self.total + 1, max(self.worst, verdict)
        self.by_chain[chain] = max(self.by_chain[chain], verdict)
        if verdict > UNANCHORED and (self.first is None
                or self.place(finding) < self.place(self.first)): self.first = finding

    def findings(self):
        return sorted({*self.kept, *([self.first] if self.first else [])}, key=self.place)

# --- hashes, texts, strict JSON

def sha(*parts): return hashlib.sha256(b"".join(parts)).digest()
def mac(key, *parts): return hmac.digest(key, b"".join(parts), "sha256")
def u32(n): return n.to_bytes(4, "big")

def framed(*fields):
    """u32 length and bytes of each: what digests of messages are over (SIGNING.md, "Digests")."""
    return b"".join(u32(len(f)) + f for f in (f.encode() if isinstance(f, str) else f for f in fields))

HEX32, DECIMAL = re.compile(r"[0-9a-f]{64}\Z"), re.compile(r"(?:0|[1-9][0-9]{0,19})\Z")
SIGNED = re.compile(r"(?:0|-?[1-9][0-9]{0,19})\Z")
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z")
TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{9})Z\Z", re.ASCII)
VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?\Z")  # of a line, and of an id: printable, no space at either end
LAST_TWO = "".join(chr(plane << 16 | low) for plane in range(17) for low in (0xFFFE, 0xFFFF))
NONCHARACTER = re.compile(f"[\ud800-\udfff\ufdd0-\ufdef{LAST_TWO}]")

def unbase64(text):
    """RFC 4648 section 4, padded, canonical."""
    try: data = base64.b64decode(text.encode("ascii"), validate=True)
    except ValueError: raise Flaw(MALFORMED, "not base64") from None
    form(base64.b64encode(data).decode() == text, "base64 of another spelling")
    return data

def unhex(text):
    form(isinstance(text, str) and HEX32.match(text), "not hex of 32 bytes")
    return bytes.fromhex(text)

def number(text, top=NONE):
    form(DECIMAL.match(text) and int(text) <= top, f"not a decimal: {text[:40]!r}")
    return int(text)

def signed(text):
    form(SIGNED.match(text) and -(2**63) <= int(text) < 2**63, f"not a decimal: {text[:40]!r}")
    return int(text)

def time_ns(text):
    """Nanoseconds since 1970 of a `time`."""
    found = TIME.match(text)
    form(found, "not a time")
    try: moment = datetime.datetime.fromisoformat(found[1]) - datetime.datetime(1970, 1, 1)
    except ValueError: raise Flaw(MALFORMED, "no such time") from None
    return moment // datetime.timedelta(seconds=1) * SECOND + int(found[2])

def strict(data):
    """A JSON text as LEDGER.md's "Payload" wants it."""
    def once(pairs):
        form(len(dict(pairs)) == len(pairs), "a name twice in one object")
        return dict(pairs)
    def integer(text):
        form(len(text) < 20 and abs(int(text)) < 2**53, "an integer beyond 2^53 - 1")
        return int(text)
    def finite(text):
        form(math.isfinite(float(text)), "a number beyond a double")
        return float(text)
    def walk(value, depth):
        form(not isinstance(value, dict | list) or depth < 64, "nested deeper than 64")
        form(not isinstance(value, str) or not NONCHARACTER.search(value), "a surrogate or noncharacter")
        for each in [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value,
                list) else (): walk(each, depth + 1)
    try:
        text = data.decode()
        value = json.loads(text, object_pairs_hook=once, parse_int=integer, parse_float=finite, parse_constant=finite)
    except (ValueError, RecursionError) as error: raise Flaw(MALFORMED, f"not JSON: {str(error)[:80]}") from None
    if "\\u" in text or NONCHARACTER.search(text) or text.count("[") + text.count("{") > 64:
        form(not NONCHARACTER.search(text), "a noncharacter")
        walk(value, 0)
    return value

# --- shapes of JSON objects: "name:code ..."; "name?" may be missing; a leading ! allows no others
# Codes: a*: up to 10,000 of a; a+: at least one; a~: any number; a?: or null; a|b: one of these strings; else a shape
# or a name in CHECKS.

SHAPES = {
    # payloads, by type
    "GENESIS": "! type:s format:sidecar/v1 nonce:hex identity:hex mode:any|all custodians:custodian* authority:hex?"
    " log:s? retention:s",
    "OPEN": "! type:s epoch_note:hex seeds:share* software:s development:bool unconfirmed?:true accepted_loss?:hex",
    "DECISION": "decision_id:id time:time agent:principal registry:registry_name? request:request request_digest:hex"
    " effect:ALLOW|DENY"
    "|REQUIRE_APPROVAL enforced:bool"
    " cause:policy|engine_error|engine_timeout|engine_unavailable|policy_undefined|policy_misshaped"
    "|policy_not_active|policy_stale|unshipped reasons:reason* obligations:obligation* alternatives:judged* result:any"
    " policy:policy peer:s"
    " executor:known? delegators:delegator* approval:approval? terms:terms? permit:until? timings:timings"
    " impure_builtins?:s+"
    " receipt_check?:foreign",
    "OUTCOME": "decision_id:id decision_seq:natural agent:who by:principal status:executed|blocked|failed response:s?"
    " response_digest:hex0?"
    " arguments_digest:hex0? permit:s downstream_status:s256 started_ns:duration duration_ns:duration",
    "APPROVAL": "decision_id:id decision_seq:natural agent:who by:principal verdict:approve|reject action_digest:hex"
    " arguments_digest:hex"
    " policy:policy_name comment:s1024",
    "REJECTED": "call:s code:s field:s cause:s peer:s principal:s decision_id:s count:positive",
    "POLICY": "event:activated|resumed|observed|refused engine:s engine_version:s entrypoint:s revision:s"
    " bundle_digest:hex0"
    " from:policy_name? source:source commit:commit? signer:signer? gate:step* impure_builtins:s*",
    "TOMBSTONE": "! type:s subject:hex16 note:s body:s", "CLOCK": "step_ns:signed", "CLOSE": "reason:shutdown",
    "REGISTRY": "event:activated|resumed|refused digest:hex0 revision:s source:file_source from:hex? cause:s"
    " registry:s",
    # what stands in them
    "custodian": "! name:s kem:hpke|rsa-oaep spki:base64", "share": "! commit:hex sealed:base64",
    "registry_name": "revision:s digest:hex",
    "resource": "type:s id:s", "option": "action:s resource:resource arguments:json0",
    "given": "text:s key:base64 signature:base64",
    "request": "action:s resource:resource arguments:json0 context:json0 purpose:s alternatives:option* trace_parent:s"
    " idempotency_key:s"
    " last_receipt:base64 executor:s delegations:given* approval_of:s",
    "reason": "code:s message:s", "obligation": "kind:s parameters:object",
    "judged": "effect:ALLOW|DENY|REQUIRE_APPROVAL reasons:reason*",
    "policy": "engine:s engine_version:s entrypoint:s revision:s bundle_digest:s",
    "policy_name": "revision:s bundle_digest:s",
    "known": "id:s roles:s* attributes:object", "delegator": "id:s kind:s roles:s* attributes:object",
    "until": "not_after:signed",
    "approval": "decision_id:id decision_seq:natural approvals:approved*", "approved": "seq:natural time:time by:known",
    "terms": "count:positive roles:s* expires:time", "timings": "evaluate_ns:signed",
    "who": "id:s proof:asserted|mtls|signature|signature+mtls|gateway",
    "asserted": "id:s roles:s* attributes:object",
    "mtls": "id:s roles:s* attributes:object certificate:hex spiffe_id:s",
    "signature": "id:s roles:s* attributes:object statement:s signature:base64 key:base64",
    "signature+mtls": "id:s roles:s* attributes:object statement:s signature:base64 key:base64 certificate:hex"
    " spiffe_id:s",
    "gateway": "id:s roles:s* attributes:object gateway:s gateway_proof:socket|mtls certificate:hex0 spiffe_id:s",
    "source": "kind:git|directory|bundle|starter|opa place:s",
    "file_source": "kind:git|directory|bundle|starter|opa|file place:s",
    "commit": "id:s author:s committer:s authored:s committed:s subject:s", "signer": "principal:s key:s",
    "step": "step:s outcome:ended note:s findings:remark*", "remark": "file:s line:natural message:s",
    # SIGNING.md: the registry, delegations
    "registry": "! format:sidecar/v1/registry principals:person~",
    "person": "! id:name kind:agent|executor|approver|user owner:s1024 purpose:s1024 status:active|suspended|revoked"
    " keys:person_key*"
    " spiffe_ids:spiffe* roles:s256* attributes:object",
    "person_key": "! spki:spki not_before?:time not_after?:time status:active|revoked",
    "spiffe": "! id:spiffe_id not_before?:time not_after?:time",
    "delegation": "! format:sidecar/v1/delegation from:name to:name key:hex audience:audience actions:pattern+"
    " resources:pattern+"
    " not_before:time not_after:time further:int parent:hex?",
    # LOG.md, LEDGER.md, EVIDENCE.md: files
    "trust": "! format:sidecar/v1/trust chains:pinned+ policy?:s? tsa_roots?:base64* custodians?:hex* principals?:pin~",
    "pinned": "! chain:hex identity:hex", "pin": "! id:s keys:hex*",
    "keys": "! segment:natural mac_key:hex tag_key:hex",
    "timestamp": "! format:sidecar/v1/timestamp checkpoint:s nonce:decimal response:base64",
    "disclosure": "! format:sidecar/v1/disclosure chain:hex segments:keys~",
    "case": "! format:sidecar/v1/evidence case:s200 from:time to:time agents:s+? profile:full|external exporter:s"
    " exported:time"
    " source:from chains:claim+ statements:said~",
    "prune": "! format:sidecar/v1/prune chain:hex reason:told segments:run+",
    "run": "! first:natural last:natural seal:hex",
    "accept-loss": "! format:sidecar/v1/accept-loss chain:hex reason:told kept:spot lost:spot",
    "spot": "! segment:natural seq:natural leaf:hex",
    "personal": "! subject:hex16 fields:field+ sealed:base64", "field": "! in:s pointer:s at:natural? commit:hex",
    "erase": "! format:sidecar/v1/erase chain:hex reason:told subject:hex16",
    "openings": "! format:sidecar/v1/openings chains:opened~", "opened": "! chain:hex complete:bool entries:opening~",
    "opening": "! seq:natural opening:base64",
    "from": "! kind:ledger|collector place:s", "said": "! chain:hex? kind:s text:s",
    "claim": "! chain:hex first_segment:natural last_segment:natural entries:natural through:time?",
}
MEMBERS = {name: [pair.split(":", 1) for pair in text.lstrip("! ").split()] for name, text in SHAPES.items()}

def integral(value): return isinstance(value, int) and not isinstance(value, bool)
def short(limit): return lambda value: isinstance(value, str) and len(value) <= limit

def reads(read):
    """A check that a string can be read so."""
    def check(value):
        try: return isinstance(value, str) and read(value) is not False
        except Flaw: return False
    return check

CHECKS = {
    "any": lambda v: True, "s": lambda v: isinstance(v, str), "s200": short(200), "s256": short(256),
    "s1024": short(1024),
    "bool": lambda v: isinstance(v, bool), "true": lambda v: v is True, "object": lambda v: isinstance(v, dict),
    "int": integral,
    "positive": lambda v: integral(v) and v >= 1, "natural": lambda v: integral(v) and v >= 0, "hex": reads(unhex),
    "hex16": lambda v: isinstance(v, str) and bool(re.fullmatch("[0-9a-f]{32}", v)),
    "hex0": reads(lambda t: not t or unhex(t)), "base64": reads(unbase64), "time": reads(time_ns),
    "id": reads(lambda t: bool(UUID.match(t))),
    "decimal": reads(number), "duration": reads(lambda t: not t or 0 < number(t) < 10**19), "signed": reads(signed),
    "json0": reads(lambda t: not t or isinstance(strict(t.encode()), dict)),
    "ended": lambda v: v in ("passed", "failed", "not run"),
    "principal": lambda v: fits(v, "who") and fits(v, v["proof"]), "name": reads(lambda t: len(t) <= 256
    and bool(VALUE.match(t))),
    "spki": reads(lambda t: check_key(unbase64(t))), "spiffe_id": reads(lambda t: t.startswith("spiffe://")),
    "told": lambda v: isinstance(v, str) and 1 <= len(v) <= 1024 and not re.search(r"[\0-\x1f\x7f-\x9f]", v),
    "audience": reads(lambda t: t == "*" or unhex(t)), "pattern": reads(lambda t: bool(t) and "*" not in t[:-1]),
}

def fits(value, code):
    if code in CHECKS: return CHECKS[code](value)
    if code in SHAPES:
        names = {name.rstrip("?"): (name[-1] != "?", code) for name, code in MEMBERS[code]}
        return (isinstance(value, dict) and all(fits(value[n], c) if n in value else not due
                for n, (due, c) in names.items())
                and (SHAPES[code][:1] != "!" or value.keys() <= names.keys()))
    if code[-1] == "?": return value is None or fits(value, code[:-1])
    if code[-1] in "*+~":
        good = isinstance(value, list) and (code[-1] == "~" or len(value) <= 10_000) and (code[-1] != "+" or value)
        return bool(good) and all(fits(each, code[:-1]) for each in value)
    return isinstance(value, str) and value in code.split("|")

def read_json(data, shape):
    value = strict(data)
    form(fits(value, shape), f"not of the form of a {shape}")
    return value

# --- notes: lines `name value`, signed (C2SP signed-note). h: hex, n: decimal, i: signed, s: text; -: or none

LINES = {
    "epoch": "chain:h epoch:e segment:n seq:n leaf:h seal:h recovered:n- custodians:h seeds:h seed_commit:h key:h"
    " config:h log:s"
    " alg:sha256,hmac-sha256,ed25519 time:n",
    "head": "chain:h epoch:e segment:n seq:n leaf:h time:i decision:u- effect:ALLOW|DENY|REQUIRE_APPROVAL- request:h-",
    "seal": "chain:h epoch:e segment:n first:n count:n root:h last:h prev:h wall_first:i- wall_last:i- mono_first:n-"
    " mono_last:n- mac_key:h-"
    " tag_key:h- next:h- policy:h registry:h head:h- reason:count|time|close|crash time:n",
    "roll-call": "log:s time:n chains:n root:h",
    "permit": "chain:h decision:s seq:n agent:s executor:s target:h arguments:h not_after:n",
    "authority": "chain:h act:prune|erase|accept-loss|custodians|successor|identity body:h time:n",
    "statement": "kind:s audience:h epoch:e by:s key:h digest:h time:n nonce:s",
}

def read_value(code, text):
    if code[-1] == "-": return None if text == "-" else read_value(code[:-1], text)
    if code in "hnei": return {"h": unhex, "n": number, "i": signed, "e": lambda t: number(t, 2**32 - 1)}[code](text)
    form(VALUE.match(text) and (code == "s" or (UUID.match(text) if code == "u" else text in code.split("|"))),
            f"no value: {text[:60]!r}")
    return text

def read_lines(text, kind):
    names = [pair.split(":") for pair in LINES[kind].split()]
    rows = text.split("\n")
    form(rows[0] == f"sidecar/v1/{kind}" and len(rows) == len(names) + 2 and not rows[-1], f"not the lines of a {kind}")
    rows = [row.partition(" ") for row in rows[1:-1]]
    form([row[0] for row in rows] == [name for name, _ in names], f"not the lines of a {kind}")
    return {name: read_value(code, row[2]) for (name, code), row in zip(names, rows)}

def read_note(data, limit=NOTE):
    """Text and signatures, each (key name, key hash, signature)."""
    try: text, found, rows = data.decode().rpartition("\n\n")
    except UnicodeDecodeError: raise Flaw(MALFORMED, "a note that is not UTF-8") from None
    form(len(data) <= limit and found and text and rows[-1:] == "\n" and not re.search(r"[\0-\x09\x0b-\x1f]", text),
            "not a signed note")
    signatures = []
    for row in rows[:-1].split("\n"):
        dash, name, word = (row.split(" ") + ["", ""])[:3] if row.count(" ") == 2 else ("", "", "")
        form(dash == "\N{EM DASH}" and name and not re.search(r"[\s+]", name), "not a signature line")
        raw = unbase64(word)
        form(len(raw) > 4, "a signature line cut short")
        signatures.append((name, raw[:4], raw[4:]))
    form(len(signatures) <= 16, "too many signature lines")
    return text + "\n", signatures

def read_one(data, kind):
    """A note of ours, which has exactly one signature: text, its lines, that signature."""
    text, signatures = read_note(data)
    form(len(signatures) == 1, "not exactly one signature line")
    v = read_lines(text, kind)
    if kind == "head":
        form(len({v[name] is None for name in ("decision", "effect", "request")}) == 1,
                "a head that names half a decision")
    if kind == "seal":
        crash, empty = v["reason"] == "crash", v["count"] == 0
        form(all((v[n] is None) == empty for n in ("wall_first", "wall_last", "mono_first", "mono_last")),
                "its clocks and its count")
        form((v["mac_key"] is None) == (v["tag_key"] is None) == crash and (v["head"] is None or crash),
                "its keys, head and reason")
        form((v["next"] is None) == (crash or v["reason"] == "close"), "its next key and its reason")
    form(len(signatures[0][2]) == 64, "an Ed25519 signature has 64 bytes")
    return text, v, signatures[0]

def key_hash(name, kind, key): return sha(name.encode(), b"\n", bytes([kind]), key)[:4]

def ed25519(key, signature, message):
    try: Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError): return False
    return True

def check_signer(text, signature, name, key):
    """By this name, else MALFORMED; by this key, if it is known, else TAMPERED."""
    form(signature[0] == name, f"signed as {signature[0][:100]!r}, not as {name!r}")
    need(key is None or signature[1] == key_hash(name, 1, key) and ed25519(key, signature[2], text.encode()),
            "its signature is wrong")

# --- SIGNING.md: keys, digests, registries, delegations

ED25519 = bytes.fromhex("302a300506032b6570032100")
P256 = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
P, ORDER = 2**255 - 19, 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
SMALL = {0, 1, P - 1, *(int.from_bytes(bytes.fromhex(y), "little") for y in (  # y of the points of order 8 and less
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"))}

def check_key(spki):
    if len(spki) == 44 and spki.startswith(ED25519):
        y = int.from_bytes(spki[12:], "little") % 2**255
        return form(y < P and y not in SMALL, "a key whose signatures bind nobody")
    form(len(spki) == 91 and spki.startswith(P256), "not the SubjectPublicKeyInfo of an Ed25519 or P-256 key")
    try: ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), spki[26:])
    except ValueError: raise Flaw(MALFORMED, "not a point of the curve") from None

def signed_by(spki, signature, message):
    check_key(spki)
    if len(spki) == 44: return len(signature) == 64 and ed25519(spki[12:], signature, message)
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    if len(signature) != 64 or not (0 < r < ORDER and 0 < s < ORDER): return False
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), spki[26:])
    try: key.verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature: return False
    return True

def key_id(text): return sha(unbase64(text)).hex()

def target(o): return [o["action"], o["resource"]["type"], o["resource"]["id"]]

def request_digest(agent, r):
    """LEDGER.md, "Request digest"."""
    parts = [agent, *target(r), r["arguments"], r["context"], r["purpose"], r["trace_parent"], r["idempotency_key"],
            unbase64(r["last_receipt"])]
    parts += [u32(len(r["alternatives"])), *(part for o in r["alternatives"] for part in (*target(o), o["arguments"]))]
    parts += [r["executor"], r["approval_of"], u32(len(r["delegations"]))]
    parts += [part for d in r["delegations"] for part in (d["text"], unbase64(d["key"]), unbase64(d["signature"]))]
    return sha(b"sidecar/v1/request\0", framed(*parts))

def action_digest(agent, r):
    parts = [agent, *target(r), r["arguments"], r["context"], r["purpose"], r["executor"], u32(len(r["delegations"]))]
    return sha(b"sidecar/v1/action\0", framed(*parts, *(d["text"] for d in r["delegations"])))

def arguments_digest(r): return sha(b"sidecar/v1/arguments\0", (r["arguments"] or "{}").encode())

def outcome_digest(v):
    response, done = (bytes.fromhex(v[name] or "") for name in ("response_digest", "arguments_digest"))
    return sha(b"sidecar/v1/outcome\0", framed(v["by"]["id"], v["decision_id"], v["status"], v["response"] or "",
            response, v["permit"], done,
                                              v["downstream_status"], v["started_ns"] or "0", v["duration_ns"] or "0"))

def approval_digest(v):
    digests = bytes.fromhex(v["action_digest"]), bytes.fromhex(v["arguments_digest"])
    return sha(b"sidecar/v1/approval\0", framed(v["by"]["id"], v["decision_id"], v["verdict"], *digests,
            v["policy"]["bundle_digest"],
                                               v["policy"]["revision"], v["comment"]))

def read_registry(data):
    """Its principals by id, each with `by_key`: its keys by their ids."""
    form(len(data) <= 4_000_000, "a registry too long")
    people = read_json(data, "registry")["principals"]
    for p in people:
        form(max(len(p["keys"]), len(p["spiffe_ids"])) <= 16 and len(p["roles"]) <= 64, "too many keys, ids or roles")
        p["by_key"] = {key_id(key["spki"]): key for key in p["keys"]}
    for ids in ([key_id(k["spki"]) for p in people for k in p["keys"]], [s["id"] for p in people
            for s in p["spiffe_ids"]], [p["id"] for p in people]):
        form(len(people) <= 20_000 and len(set(ids)) == len(ids), "too many principals, or two with one id or key")
    return {p["id"]: p for p in people}

def valid_at(what, ns):
    return time_ns(what.get("not_before") or "0001-01-01T00:00:00.000000000Z") <= ns < time_ns(what.get("not_after")
            or "9999-12-31T23:59:59.999999999Z")

def same(known, said):
    """Roles and attributes as the registry has them, empty where it has not that principal. As JSON: true is not 1."""
    known = known or {"roles": [], "attributes": {}}
    return all(json.dumps(known[n], sort_keys=True) == json.dumps(said[n], sort_keys=True)
            for n in ("roles", "attributes"))

def is_active(known, kind): return known is not None and (known["kind"], known["status"]) == (kind, "active")

def may_approve(known, roles): return is_active(known, "approver") and (not roles
        or bool(set(roles) & set(known["roles"])))

def covers(patterns, text): return any(text.startswith(p[:-1]) if p.endswith("*") else p == text for p in patterns)

def check_delegations(h, v, registry):
    """Rule 11: a chain of leave, each signed by its giver and for all that is asked, the last to the agent."""
    asked, ns, agent = v["request"], time_ns(v["time"]), v["agent"]["id"]
    need(len(asked["delegations"]) <= 8 and len(asked["delegations"]) == len(v["delegators"]),
            "not one delegator for each")
    given, before = [read_json(raw["text"].encode(), "delegation") for raw in asked["delegations"]], None
    for i, (raw, d, who) in enumerate(zip(asked["delegations"], given, v["delegators"])):
        text, spki = raw["text"].encode(), unbase64(raw["key"])
        need(len(text) <= 8192 and 0 <= d["further"] <= 7 and max(len(d["actions"]), len(d["resources"])) <= 64,
                "beyond its bounds")
        need(d["key"] == sha(spki).hex() and signed_by(spki, unbase64(raw["signature"]), b"sidecar/v1/delegation\0"
                + text), "wrongly signed")
        need(d["audience"] in ("*", h.chain.hex()) and valid_at(d, ns), "for another chain or time")
        need(d["to"] == (given[i + 1]["from"] if i + 1 < len(given) else agent) and who["id"] == d["from"],
                "from or to somebody else")
        need(d["parent"] == (before
                and sha(b"sidecar/v1/delegation\0", asked["delegations"][i - 1]["text"].encode()).hex()),
                "of another parent")
        if before:
            need(d["further"] < before["further"] and before["audience"] in ("*", d["audience"]),
                    "goes further than what was given")
            need(time_ns(before["not_before"]) <= time_ns(d["not_before"])
                    and time_ns(d["not_after"]) <= time_ns(before["not_after"]), "longer")
            need(all(covers(before[what], p) for what in ("actions", "resources") for p in d[what]),
                    "of more than what was given")
        for o in (asked, *asked["alternatives"]):
            kind, name = o["resource"]["type"], o["resource"]["id"]
            need(covers(d["actions"], o["action"]), "not for this action")
            need(covers([p for p in d["resources"] if ":" not in kind or p == "*"], f"{kind}:{name}"),
                    "not for this resource")
        if registry is not None:
            giver = registry.get(who["id"])
            need(is_active(giver, who["kind"]) and same(giver, who), "its giver is not as the registry has it")
            key = giver["by_key"].get(d["key"])
            need(key and key["status"] == "active" and valid_at(key, ns), "by a key that is not its giver's")
        before = d
    need(not given or registry is None or registry.get(agent, {}).get("status") == "active",
            "to an agent that is not active")

# --- entries (LEDGER.md, "Entry") and the framing of streams

TYPES = "? GENESIS OPEN DECISION OUTCOME APPROVAL REJECTED POLICY TOMBSTONE CLOCK CLOSE REGISTRY".split()
LAYOUT = struct.Struct(">8sBBHIQQ32s32s32sIIqQIIQ16s")
Header = namedtuple("Header",
        "magic type alg flags epoch seq segment chain prev commit length fields wall mono error zero ref tag")
LIMITS = {2: NOTE, 4: NOTE, 6: NOTE, 7: NOTE, 8: MAX_PAYLOAD, 10: NOTE, 12: 4_000_000}

def read_header(body): return Header._make(LAYOUT.unpack(body[:184]))

def check_header(h):
    form(h.magic == b"SDCREC\0\1" and h.alg == 1 and not (h.flags or h.zero) and 0 < h.type < len(TYPES),
            "a malformed header")
    form(2 <= h.length <= MAX_PAYLOAD and (h.ref == NONE or h.ref < h.seq), "a length or reference out of bounds")
    form(h.fields <= (4_096 if h.type in (3, 4, 5) else 0) and (h.type != 8 or h.ref == 0), "a malformed header")
    form(h.type in (3, 8) or (h.ref != NONE) == (h.type in (4, 5)), "a reference that its type does not have")

def stored_payload(h, body):
    salt, codec, stored = body[216:248], body[248], body[249:]
    form(codec in (0, 1), "an unknown codec")
    if codec:
        inflate, limit = zlib.decompressobj(), max(h.length, 65_536)
        try: payload = inflate.decompress(stored, limit + 1)
        except zlib.error: raise Flaw(MALFORMED, "a damaged compressed payload") from None
        form(len(payload) <= limit and inflate.eof and not inflate.unused_data and len(stored) < len(payload),
                "not one compressed payload")
        stored = payload
    need(len(stored) == h.length and sha(b"sidecar/v1/payload\0", salt, stored) == h.commit,
            "not the payload that was committed to")
    return stored

def read_payload(name, data):
    v = strict(data)
    form(isinstance(v, dict) and v.get("type") == name and fits(v, name), f"not the payload of a {name}")
    if name == "POLICY": form(bool(v["bundle_digest"]) == (v["event"] in ("activated", "resumed")),
            "bundle_digest and event")
    if name == "REGISTRY": form(bool(v["digest"]) == bool(v["registry"]) == (v["event"] != "refused"),
            "digest, registry and event")
    if name == "GENESIS": form(len(v["custodians"]) <= 16 and len({c["spki"] for c in v["custodians"]})
            == len(v["custodians"]), "custodians")
    if name == "OPEN": form(not ("unconfirmed" in v and "accepted_loss" in v), "unconfirmed, and a loss accepted")
    return v

def read_grant(data, body):
    """An authority note with its body as `does`; nothing is verified. Its signature is None if it has not just one."""
    text, signatures = read_note(data)
    v = read_lines(text, "authority")
    form(sha(body) == v["body"], "an authority note with another body")
    if v["act"] in ("prune", "accept-loss", "erase"):
        does = v["does"] = read_json(body, v["act"])
        form(does["chain"] == v["chain"].hex(), "a body of another chain")
        runs, spots = does.get("segments", []), [(does[n]["segment"], does[n]["seq"]) for n in ("kept", "lost")
                if n in does]
        form(len(runs) <= 256 and all(r["first"] <= r["last"] for r in runs)
                and all(a["last"] < b["first"] for a, b in zip(runs, runs[1:])), "segments that do not rise")
        form(not spots or (spots[0][1] >= 1 and spots[0] < spots[1] and spots[0][1] <= spots[1][1]),
                "a loss of nothing")
    one = len(signatures) == 1 and len(signatures[0][2]) == 64
    return text, v, signatures[0] if one else None

class Tree:
    """RFC 6962 tree hash of leaves that come one by one: the roots of its full subtrees."""
    def __init__(self): self.parts = []
    def add(self, node, size=1):
        while self.parts and self.parts[-1][0] == size: node, size = sha(b"\1", self.parts.pop()[1], node), size * 2
        self.parts.append((size, node))
    def root(self):
        node = self.parts[-1][1] if self.parts else sha()
        for _, left in reversed(self.parts[:-1]): node = sha(b"\1", left, node)
        return node

class Records:
    """kind u8, length u32, body; one is looked ahead. A flaw comes in its turn, not when it is looked ahead at."""
    def __init__(self, read):
        self.read, self.ahead, self.flaw, self.kept = read, None, None, []
        form(self.take(8) == b"SDCSEG\0\1", "not a stream of this format")
        self.next()
    def take(self, size):
        parts = []
        while size and (part := self.read(size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)
    def record(self):
        head = self.take(5)
        if not head: return None
        kind, length = head[0], int.from_bytes(head[1:], "big")
        form(len(head) == 5 and 1 <= kind <= 12 and length <= LIMITS.get(kind, MAX_RECORD),
                "no record: cut short, unknown or too long")
        body = self.take(length)
        form(len(body) == length, "a record cut short")
        return kind, body
    def next(self):
        now, self.ahead = self.ahead, None
        if self.kept: self.ahead = self.kept.pop(0)
        elif self.flaw and now is None: raise self.flaw
        elif not self.flaw:
            try: self.ahead = self.record()
            except Flaw as flaw: self.flaw = flaw
        return now
    def again(self, rows):
        """These come once more; the last is the one that was looked ahead at."""
        self.ahead, *self.kept = rows

def decided(decision, effect, request):
    """What a head says of a decision, as one hash; zeros where it says nothing."""
    return sha(framed(decision, effect, request)) if decision else ZERO

def agent_tag(key, seq, agent): return mac(key, b"sidecar/v1/agent\0", seq.to_bytes(8, "big"), agent.encode())[:16]

class Segment:
    """What is computed of the segment that is being read."""
    def __init__(self, first, keys):
        self.first, self.count, self.tree, self.start, self.last = first, 0, Tree(), None, None
        self.headed, self.head, self.head_seq = False, None, -1  # whether a head was read; its hash, if it is believed
        self.rows = bytearray()  # for each entry leaf, wall_ns and what a head may say of it: 72 bytes
        # Disclosed keys, the next entry's, and what they say; which counts once the seal is found to commit to them.
        self.keys, self.key, self.later, self.bare = keys, keys and keys[0], [], None

ITEM = "(?:0|[1-9][0-9]*)"
PERSONAL = {  # where a sealed field may be: within a text, or in place of a value
    "DECISION": (rf"/request/(?:arguments|context|alternatives/{ITEM}/arguments)\Z",
    rf"/request/(?:purpose|idempotency_key)\Z"
                 rf"|(?:/alternatives/{ITEM})?/reasons/{ITEM}/message\Z|/result(?:/.*)?\Z"
                 rf"|/obligations/{ITEM}/parameters/.*\Z"),
    "OUTCOME": (r"/response\Z", r"/(?:by/statement|permit|arguments_digest|response_digest|downstream_status)\Z"),
    "APPROVAL": (r"(?!)", r"/(?:by/statement|action_digest|arguments_digest|comment)\Z"),
}

def find(value, pointer):
    """The object or array, and the name or index in it, that a JSON pointer leads to."""
    *way, last = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]] or [""]
    for part in [*way, last]:
        place = value
        if isinstance(place, list):
            form(re.fullmatch(ITEM, part) and int(part) < len(place), "a pointer that leads nowhere")
            part = int(part)
        form(isinstance(place, list) or (isinstance(place, dict) and part in place), "a pointer that leads nowhere")
        value = place[part]
    return place, part

class Ended(Exception):
    """The judgement of a stream ends; why is said already."""

class Stream:
    """LEDGER.md's rules on one stream. `add` takes (verdict, segment, seq, reason); `held`: what is held against it."""

    def __init__(self, read, add, held):
        self.add, self.held, self.trust, self.report = add, held, held.trust or {}, held.report
        self.chain = self.identity = self.genesis = self.key = self.note = self.first_note = None  # None: not known
        self.epoch, self.segment, self.seq, self.first_segment, self.reason, self.sealed = -1, 0, 0, 0, "close", None
        self.leaf = self.seal = self.policy = self.registry = ZERO  # of what was before: leaf, seal's hash, commitments
        self.done = self.kept_end = self.open = self.file = self.context = self.broken = self.fresh = False
        self.now, self.due, self.suspect, self.last = Segment(0, None), [], None, (0, 0)
        self.base = self.mono = self.wall = self.back = None
        self.registries, self.registries_known, self.waiting, self.known_from, self.bare = [], True, {}, 0, bytearray()
        self.attached, self.entries, self.segments, self.tags, self.unsigned, self.crashed = {}, 0, 0, 0, 0, 0
        self.grants, self.grants_size, self.acts, self.runs, self.losses = {}, 0, {}, [], []
        self.seals, self.groups, self.decided = {}, {}, {}
        self.forgotten = -1
        self.openings, self.complete, self.unopened, self.erased, self.personal = {}, False, {}, set(), 0
        self.unsaid, self.opened_at, self.bares, self.reached = Counter(), None, 0, -1
        try:
            self.records = Records(read)
            self.start()
            while record := self.records.next(): self.take(*record)
        except Ended: self.broken = True
        except Flaw as flaw:
            self.broken = True
            self.add(flaw.args[0], self.segment, self.seq if flaw.args[0] == MALFORMED else None, flaw.args[1])
        self.end()

    @contextmanager
    def at(self, segment, seq):
        """A flaw found in this block is reported there, and reading goes on."""
        try: yield
        except Flaw as flaw: self.add(flaw.args[0], segment, seq, flaw.args[1])

    def name(self, segment=None):
        return f"sidecar.v1/{(self.chain or ZERO).hex()}/" + ("identity" if segment is None else f"segment/{segment}")

    def take(self, kind, body):
        """One record. What cannot stand where it stands is MALFORMED and set aside, but for an entry after a head."""
        form(not self.done, "a record after the seal of a segment file")
        form(kind not in (8, 11), "an attachment or authority note that stands elsewhere")
        if kind in (6, 7) and (not self.open or (kind == 6 and self.now.headed)):
            self.add(MALFORMED, self.segment, None, "a second head, or a head or seal where no segment is open")
        elif kind not in (2, 5, 6, 7, 9): self.add(MALFORMED, self.segment, self.seq,
                f"a record of kind {kind} where none can be")
        else: {2: self.take_epoch, 6: self.take_head, 7: self.take_seal}.get(kind,
                lambda body: self.take_entry(kind, body))(body)

    # rule 9, and what a stream may start with

    def start(self):
        record = self.records.ahead
        if self.held.claim and self.held.claim["first_segment"]: self.window(self.held.claim["first_segment"])
        elif record and record[0] == 1 and not self.held.claim:
            early = []
            while (record := self.records.ahead) and record[0] in (1, 2, 3,
                    12) and len(early) < 5: early.append(self.records.next())
            self.kept_end = bool(record and record[0] == 10)
            self.records.again([*early, record])
            if self.kept_end: self.window(0)
            else: self.segment_file()
        while (record := self.records.ahead) and record[0] == 8:
            name = sha(record[1])
            form(not self.attached or name > next(reversed(self.attached)), "attachments out of order")
            self.attached[name] = False
            self.records.next()
        while (record := self.records.ahead) and record[0] == 11:
            name, self.grants_size = sha(record[1]), self.grants_size + len(record[1])
            form((not self.grants or name > next(reversed(self.grants))) and len(self.grants) < 4096
                    and self.grants_size <= 16 << 20, "authority notes out of order")
            self.grants[name] = record[1]
            self.records.next()
        if self.chain: self.read_grants()

    def context_record(self, kind):
        record = self.records.ahead
        if record is None and not self.records.flaw and self.file: raise Flaw(INCOMPLETE,
                "the segment file ends before its seal")
        form(record and record[0] == kind, "context that is missing or out of order")
        return self.records.next()[1]

    def segment_file(self):
        self.file, self.context, self.registries_known = True, True, False
        genesis, epoch = self.context_record(1), self.context_record(2)
        opening = self.context_record(3) if self.records.ahead and self.records.ahead[0] == 3 else None
        before = self.context_record(4)
        if flaw := self.learn(genesis): raise flaw
        with self.at(0, 0): self.check_trust()
        text, v, signature = read_one(before, "seal")
        form(signature[0] == self.name(None if v["reason"] == "crash" else v["segment"]),
                "the seal before is signed under another name")
        self.epoch, self.segment, self.seq = int(v["epoch"]), v["segment"] + 1, v["first"] + v["count"]
        self.first_segment, self.known_from, self.reason, self.leaf = self.segment, self.seq, v["reason"], v["last"]
        self.seal, self.policy, self.registry, self.key = sha(b"sidecar/v1/seal\0",
                text.encode()), v["policy"], v["registry"], v["next"]
        self.last = v["segment"], self.seq - 1
        form((opening is None) == (v["next"] is None), "context that is missing, or that the segment holds itself")
        with self.at(self.segment, None):
            check_signer(text, signature, signature[0], self.identity if v["reason"] == "crash" else None)
            need(v["chain"] == self.chain, "the seal before is of another chain")
        if opening is None: return self.take_epoch(epoch)
        with self.at(self.segment, self.seq):
            self.check_epoch(*read_one(epoch, "epoch"), {})
            need(not self.note or (self.note["epoch"] == self.epoch and self.note["segment"] <= v["segment"]),
                    "the epoch note is not that of the seal")
        opening = read_payload("OPEN", opening)
        with self.at(self.segment, self.seq): self.check_open(opening)
        self.open, self.key, self.now = True, v["next"], Segment(self.seq, self.held.keys.get(self.segment))

    def window(self, claimed):
        """EVIDENCE.md, "Stream": the context of a window. A violation in it ends the judgement of the stream."""
        self.context, self.registries_known, place, opening, before, count = True, False, claimed, None, None, 0
        def ends(flaw):
            self.add(flaw.args[0], place, None, flaw.args[1])
            raise Ended
        try:
            if flaw := self.learn(self.context_record(1)): raise flaw
            with self.at(0, 0): self.check_trust()
            found = read_one(self.context_record(2), "epoch")
            self.epoch = found[1]["epoch"]
            self.check_epoch(*found, {})
            note = found[1]
            self.segment, self.seq, self.leaf, self.seal = (note[n] for n in ("segment", "seq", "leaf", "seal"))
            if self.records.ahead and self.records.ahead[0] == 3: opening = self.context_record(3)
            while self.records.ahead and self.records.ahead[0] == 12:
                body, count = self.records.next()[1], count + 1
                form(count <= 2, "more than two context registries")
                self.registries.append((sha(body).hex(), read_registry(body)))
            while self.records.ahead and self.records.ahead[0] == 10:
                of_before = before is None and note["segment"] > 0
                place = self.segment - of_before
                text, v, signature = read_one(self.records.next()[1], "seal")
                hashed = sha(b"sidecar/v1/seal\0", text.encode())
                if of_before:
                    crash, ends_epoch = v["reason"] == "crash", v["reason"] in ("close", "crash")
                    need(hashed == note["seal"] and v["chain"] == self.chain and v["segment"] == place and v["epoch"]
                            == note["epoch"] - 1, "another seal")
                    need(v["first"] + v["count"] == note["seq"] and v["last"] == note["leaf"] and ends_epoch,
                            "not what the epoch note continues")
                    need(note["recovered"] == (place if crash else None), "what was recovered did not crash")
                else:
                    check_signer(text, signature, self.name(place), self.key)
                    due = [self.chain, place, note["epoch"], self.seq, self.seal]
                    need([v[n] for n in ("chain", "segment", "epoch", "first", "prev")] == due and v["next"],
                            "does not continue what was before")
                    need(v["count"] or (v["root"], v["last"]) == (sha(), self.leaf), "an empty segment with entries")
                    self.segment, self.seq, self.leaf = place + 1, v["first"] + v["count"], v["last"]
                    self.seal, self.key = hashed, v["next"]
                self.policy, self.registry, before = v["policy"], v["registry"], v
                if v["count"]: self.wall, self.mono = v["wall_last"], None if of_before else v["mono_last"]
                self.held.before(self, v)
            place = claimed
            form(before and self.records.ahead and self.records.ahead[0] not in (1, 2, 3, 4, 10, 12),
                    "the context is not whole, or out of order")
            form((opening is None) == (self.segment == note["segment"]),
                    "OPEN is missing from the context, or should not be in it")
            if opening is not None: self.check_open(read_payload("OPEN", opening))
        except Flaw as flaw: ends(flaw)
        self.first_segment, self.known_from, self.opened_at = self.segment, self.seq, before["time"]
        self.last = self.segment - 1, self.seq - 1
        if self.kept_end: self.add(INCOMPLETE, 0, 0, f"the ledger keeps its end only, from segment {self.segment} on")
        self.due, self.fresh, self.open = ["OPEN"] if opening is None else [], opening is None, True
        self.now, self.sealed = Segment(self.seq, self.held.keys.get(self.segment)), None

    # rule 3: epochs

    def learn(self, payload):
        """Chain, identity key and custodians, from the GENESIS payload."""
        self.chain = sha(b"sidecar/v1/chain\0", payload)
        try: self.genesis = read_payload("GENESIS", payload)
        except Flaw as flaw: return flaw
        self.identity = unhex(self.genesis["identity"])

    def check_trust(self):
        found, self.complete = self.held.openings.get(self.chain.hex(), ({}, False))
        self.openings = dict(found)
        pinned = {each["chain"]: each["identity"] for each in self.trust.get("chains", ())}
        found = pinned.get(self.chain.hex())
        need(not pinned or found and self.identity in (None, unhex(found)),
                "not a chain and identity key of the trust file")
        known, custodians = self.trust.get("custodians"), self.genesis["custodians"] if self.genesis else ()
        need(not known or all(key_id(c["spki"]) in known for c in custodians),
                "a custodian that the trust file does not know")

    def take_epoch(self, body):
        found, self.note = None, None
        try: found = read_one(body, "epoch")
        except Flaw as flaw: self.add(flaw.args[0], self.segment, self.seq, flaw.args[1])
        before = {"epoch": self.epoch + 1, "segment": self.segment, "seq": self.seq, "leaf": self.leaf,
                "seal": self.seal,
                  "recovered": self.segment - 1 if self.reason == "crash" else "-" if self.reason else None}
        if self.open:
            before = {}
            seq = self.seq if found and found[1]["seq"] > self.seq else None
            self.add(TAMPERED, self.segment, seq, "an epoch note, and no seal ends the epoch before")
            if self.now.count or self.now.headed: self.end_segment(None, False)
            self.segment, self.seal = self.segment + 1, None
        self.epoch, self.key, self.note_hash, first = self.epoch + 1, None, b"", self.epoch < 0
        with self.at(self.segment, self.seq):
            if first: self.first_note = found  # its key is in GENESIS, the entry that follows
            elif found: self.check_epoch(*found, before)
        if v := self.note:
            if v["seq"] != self.seq: self.gap(v["seq"])
            self.epoch, self.segment, self.leaf, self.seal = (v[n] for n in ("epoch", "segment", "leaf", "seal"))
        self.due = ["GENESIS", "OPEN"] if self.seq == 0 else ["OPEN"]
        self.base, self.mono, self.fresh, self.open = None, None, True, True
        self.now = Segment(self.seq, self.held.keys.get(self.segment))

    def check_epoch(self, text, v, signature, before):
        """`before`: what its lines must say to continue what was before; None: not known."""
        check_signer(text, signature, self.name(), self.identity)
        self.unsigned += self.identity is None
        if self.identity is None: return
        self.note, self.note_hash, self.key = v, sha(b"sidecar/v1/epoch\0", text.encode()), v["key"]
        self.held.saw(self, "epoch", v["epoch"], self.note_hash)
        need(v["chain"] == self.chain, "the epoch note is of another chain")
        if self.genesis:
            each = [bytes([1 if c["kem"] == "hpke" else 2]) + sha(unbase64(c["spki"]))
                    for c in self.genesis["custodians"]]
            mode = 1 if self.genesis["mode"] == "any" else 2
            need(v["custodians"] == sha(b"sidecar/v1/custodians\0", bytes([mode, len(each)]), *each),
                    "its custodians are not those of GENESIS")
            need(v["log"] == (self.genesis["log"] or "-"), "its log is not that of GENESIS")
        for name, value in before.items():
            need(value is None or ("-" if v[name] is None else v[name]) == value,
                    f"its line {name} does not continue what was before")

    def check_open(self, v):
        if not self.note or not self.genesis: return
        seeds = [unhex(s["commit"]) + framed(unbase64(s["sealed"])) for s in v["seeds"]]
        need(v["epoch_note"] == self.note_hash.hex() and len(seeds) == len(self.genesis["custodians"]),
                "OPEN is of another epoch note")
        need(sha(b"sidecar/v1/seeds\0", u32(len(seeds)), *seeds) == self.note["seeds"],
                "its seeds are not those of the epoch note")

    # rules 1 and 2: entries, links and blame

    def take_entry(self, kind, body):
        self.entries += 1
        if len(body) < 249 if kind == 5 else len(body) != 216:
            self.add(MALFORMED, self.segment, self.seq, "an entry cut short")
            return self.gap(self.seq + 1)
        h, leaf = read_header(body), sha(b"\0", body[:216])
        if self.now.headed: self.add(MALFORMED, self.segment, self.seq, "an entry after the head")
        self.now.headed = False
        if not self.open:
            self.add(MALFORMED if self.epoch < 0 else TAMPERED, self.segment, self.seq,
                    "an entry where an epoch note is due")
            self.open, self.key, self.epoch, self.note, self.now = True, None, self.epoch + 1, None, Segment(self.seq,
                    None)
        if self.chain is None:
            self.chain = h.chain
            try: self.learn(stored_payload(h, body)) if kind == 5 else None
            except Flaw: pass
        if not self.in_place(h): return
        if self.seq == 0:
            with self.at(0, 0): self.check_trust()
            self.read_grants()
            with self.at(self.segment, 0):
                if self.first_note: self.check_epoch(*self.first_note, {"epoch": 0, "segment": 0, "seq": 0,
                        "leaf": ZERO, "seal": ZERO, "recovered": "-"})
        now, here, name, v, said = self.now, (self.segment, self.seq), "", {}, ZERO if kind == 5 else b"\xff" * 32
        self.link(None if self.leaf is None else h.prev == self.leaf, here)
        with self.at(*here): self.clock(h, here)
        with self.at(*here):
            due = self.due.pop(0) if self.due else None
            check_header(h)
            name = TYPES[h.type]
            with self.at(*here):
                need(name == due or (due is None and name not in ("GENESIS", "OPEN")),
                        f"a {name} where it does not belong")
                need(now.last is None or now.last.type != 10, "an entry after CLOSE")
            if kind == 9: self.take_bare(h, now)
            else:
                v = self.put_back(h, name, read_payload(name, stored_payload(h, body)))
                if name == "DECISION": said = decided(v["decision_id"], v["effect"], v["request_digest"])
                self.judge(h, name, v)
        if now.key is not None:
            if mac(now.key, b"sidecar/v1/entry\0", body[:184]) != body[184:216]: now.later.append((TAMPERED, self.seq,
                    "its tag is wrong"))
            now.key = mac(now.key, b"sidecar/v1/evolve\0")
        if now.keys and v and name in ("DECISION", "OUTCOME", "APPROVAL") and any(h.tag):
            if h.tag != agent_tag(now.keys[1], h.seq, v["agent"]["id"]): now.later.append((TAMPERED, self.seq,
                    "an agent tag of another"))
        if h.type == 7: self.policy = h.commit
        if h.type == 11: self.registry = h.commit
        self.held.saw_entry(self, h, leaf, said, v)
        self.reached = max(self.reached, self.segment)
        now.start, now.last, now.count = now.start or h, h, now.count + 1
        now.tree.add(leaf)
        now.rows += leaf + h.wall.to_bytes(8, "big", signed=True) + said
        self.leaf, self.seq, self.last = leaf, self.seq + 1, here

    def next_seq(self):
        record = self.records.ahead
        return read_header(record[1]).seq if record and record[0] in (5, 9) and len(record[1]) >= 184 else None

    def next_segment(self):
        record = self.records.ahead
        if record and record[0] in (5, 9): return read_header(record[1]).segment if len(record[1]) >= 184 else None
        try: return read_one(record[1], {6: "head", 7: "seal"}[record[0]])[1]["segment"] if record and record[0] in (6,
                7) else None
        except Flaw: return None

    def in_place(self, h):
        """Whether it is judged where it stands: it is due, was edited in its place, or others are missing before it."""
        if (h.chain, h.epoch, h.segment, h.seq) == (self.chain, self.epoch, self.segment, self.seq): return True
        record, following = self.records.ahead, self.next_seq()
        ends = record is None or record[0] not in (5, 9)
        later = h.segment > self.segment and h.seq >= self.seq and h.chain == self.chain
        if later and self.next_segment() == h.segment:
            self.missing(h.segment, h.seq, h.seq > self.seq)
            self.epoch, self.now = h.epoch, Segment(self.seq, None)
        elif following == self.seq + 1 or (ends and self.leaf is not None and h.prev == self.leaf):
            self.add(TAMPERED, self.segment, self.seq, "its header names another place or chain")
        elif h.seq > self.seq:
            self.add(TAMPERED, self.segment, self.seq, f"the entries up to {h.seq} are missing")
            self.gap(h.seq)
        else:
            self.add(TAMPERED, self.segment, self.seq, f"entry {h.seq} stands here")
            return False
        return True

    def missing(self, segment, seq, entries):
        self.add(TAMPERED, self.segment, self.seq if entries else None,
                f"before segment {segment}, entry {seq} something is missing")
        if self.now.count or self.now.headed: self.end_segment(None, False)
        self.segment, self.key, self.open, self.seal, self.policy, self.registry = segment, None, True, None, None, None
        self.gap(seq)

    def gap(self, seq):
        self.link(None)
        self.leaf, self.seq, self.known_from, self.now.key, self.bare = None, seq, seq, None, bytearray()
        self.waiting.clear()
        self.decided.clear()

    def link(self, holds, this=None):
        """Whether what comes now (an entry; without `this` a head or seal) follows the entry before. If not, that one
        is condemned, unless the next does not follow this one either."""
        if self.suspect:
            self.add(TAMPERED, *self.suspect[holds is False], "what comes after it follows another entry")
            self.suspect = None
        elif holds is False and this: self.suspect = self.last, this
        elif holds is False: self.add(TAMPERED, *self.last, "another entry was signed in its place")

    def clock(self, h, here):
        """Rule 6."""
        off, mono, base, marked = h.wall - h.mono, self.mono, self.base, h.type == 9
        if self.back and not marked: self.add(CLOCK, *self.back, "the wall clock is behind the end of the epoch before")
        self.back = here if self.fresh and self.wall is not None and h.wall < self.wall - SECOND else None
        self.mono, self.wall = h.mono, h.wall
        jumped = not self.fresh and base is not None and abs(off - base) > SECOND
        self.base, self.fresh = off if self.fresh or marked or jumped else base, False
        need(mono is None or h.mono > mono, "the boot-time clock does not rise")
        need(marked or not jumped, "the wall clock stepped, and no CLOCK entry says so", CLOCK)
        if marked: self.held.note(f"segment {here[0]}, entry {here[1]}: the wall clock stepped, and is on record")

    def take_bare(self, h, now):
        """EVIDENCE.md, "Bare entry"."""
        self.bares += 1
        if h.type == 11: self.registries, self.registries_known = [], False
        if h.ref in self.waiting: self.waiting[h.ref] = None
        if h.ref in self.decided: self.decided[h.ref] = None
        if h.seq == self.seq: self.bare.extend(bytes(max(0, h.seq - self.known_from - len(self.bare))) + b"\1")
        covering = tuple(i for i, (run, _) in enumerate(self.runs) if run["first"] <= self.segment <= run["last"]
                and h.type in (3, 4, 5, 6))
        need(covering or (self.held.agents and h.type in (3, 4, 5, 6, 11)),
                "its payload is not here, and nothing allows that", INCOMPLETE)
        if covering:
            group = self.groups.setdefault(covering, [(self.segment, self.seq), 0])
            group[1] = self.segment
            return
        if any(h.tag):
            now.bare = self.seq if now.bare is None else now.bare
            if now.keys and any(h.tag == agent_tag(now.keys[1], h.seq, agent) for agent in self.held.agents):
                now.later.append((INCOMPLETE, self.seq, "an entry of an agent of this case was left out"))

    # rules 4 and 5: heads and seals

    def take_head(self, body):
        now, seq = self.now, None
        now.headed = True
        with self.at(self.segment, self.seq - 1 if now.count else None):
            text, v, signature = read_one(body, "head")
            check_signer(text, signature, self.name(self.segment), self.key)
            self.unsigned += self.key is None
            now.head, seq, self.reached = sha(b"sidecar/v1/head\0", text.encode()), v["seq"], max(self.reached,
                    self.segment)
        if seq is None: return
        if (v["chain"], v["epoch"], v["segment"]) != (self.chain, self.epoch, self.segment) or seq < now.first:
            return self.add(TAMPERED, self.segment, None, "the head is of another place")
        with self.at(self.segment, seq):
            now.head_seq = seq
            need(seq < self.seq, "it was signed further than the entries that are here", INCOMPLETE)
            row = now.rows[72 * (seq - self.seq):][:72]
            if seq == self.seq - 1: self.link(v["leaf"] == row[:32])
            need(v["leaf"] == row[:32] and v["time"] == int.from_bytes(row[32:40], "big", signed=True),
                    "the head is of another entry")
            said = v["decision"] and decided(v["decision"], v["effect"], v["request"].hex())
            need(not said or bytes(row[40:]) in (said, b"\xff" * 32), "the head says another decision")

    def take_seal(self, body):
        v, trusted, right = None, False, False
        with self.at(self.segment, None):
            text, found, signature = read_one(body, "seal")
            crash = found["reason"] == "crash"
            later = found["segment"] > self.segment and signature[0] == self.name(None if crash else found["segment"])
            form(later or signature[0] == self.name(None if crash else self.segment),
                    f"signed as {signature[0][:100]!r}")
            v = found
            if later and not (crash and self.identity and not ed25519(self.identity, signature[2], text.encode())):
                self.missing(v["segment"], v["first"], v["first"] > self.seq)
                self.now = Segment(v["first"], None)
            key = self.identity if crash else self.key
            self.unsigned += key is None
            check_signer(text, signature, signature[0], key)
            trusted, right = key is not None, True
            if self.due and not (crash and not self.now.count): self.add(TAMPERED, self.segment, self.seq,
                    f"{self.due[0]} is missing")
            if not crash and (self.now.last is not None and self.now.last.type == 10) != (v["reason"] == "close"):
                self.add(TAMPERED, self.segment, self.seq - 1 if self.now.count else None,
                        "CLOSE and the seal's reason do not go together")
            self.check_seal(v, self.now, crash)
        self.due = []
        self.end_segment(v, trusted)
        self.seal = self.key = None
        if right: self.seal, self.key = sha(b"sidecar/v1/seal\0", text.encode()), v["next"]
        if trusted:
            self.sealed = self.segment, v["time"], v["first"] + v["count"], self.seal
            self.held.before(self, v)
            if any(run["last"] == self.segment for run, _ in self.runs): self.seals[self.segment] = self.seal, v["time"]
            self.held.saw(self, "seal", self.segment, self.seal)
            self.leaf, self.seq = v["last"], v["first"] + v["count"]
            self.policy, self.registry = v["policy"], v["registry"]
        self.reason, self.segment, self.done = v and v["reason"], self.segment + 1, self.file
        self.open, self.now = self.reason in ("count", "time", None), Segment(self.seq,
                self.held.keys.get(self.segment))

    def check_seal(self, v, now, crash):
        start, last = now.start, now.last
        computed = {"chain": self.chain, "epoch": self.epoch, "segment": self.segment, "first": now.first,
                "count": now.count,
                    "root": now.tree.root(), "wall_first": start and start.wall, "wall_last": last and last.wall,
                    "mono_first": start and start.mono, "mono_last": last and last.mono, "head": now.head}
        before = {"prev": self.seal, "policy": self.policy, "registry": self.registry, "last": self.leaf
                if not now.count else None}
        for name, value in [*computed.items(), *((n, x) for n, x in before.items() if x is not None)]:
            need(v[name] == value, f"its line {name} is not what was computed")
        need(not crash or not now.count or now.head_seq == self.seq - 1, "its head is not of its last entry")

    def end_segment(self, v, trusted):
        now, self.segments = self.now, self.segments + 1
        self.reached = max(self.reached, self.segment)
        crash = bool(v) and v["reason"] == "crash"
        self.crashed += crash
        if trusted and now.count and v["first"] + v["count"] == self.seq: self.link(self.leaf in (None, v["last"]))
        self.settle(v if trusted else None)
        self.held.saw_segment(self)

    def settle(self, v):
        """Rule 7: a disclosed key counts where a well-signed seal commits to it."""
        now, commits = self.now, bool(v and v["mac_key"])
        good = bool(now.keys) and commits and (sha(b"sidecar/v1/key\0", now.keys[0]),
                sha(b"sidecar/v1/tag-key\0", now.keys[1])) == (v["mac_key"], v["tag_key"])
        if now.keys and commits and not good: self.add(TAMPERED, self.segment, None,
                "the disclosed keys are not those that its seal commits to")
        elif now.keys and not commits:
            self.held.unchecked(f"tags under the disclosed keys of segment {self.segment}: no seal commits to them")
        self.tags += now.count if good else 0
        for verdict, seq, reason in now.later if good else (): self.add(verdict, self.segment, seq, reason)
        if now.bare is not None and not good: self.add(INCOMPLETE, self.segment, now.bare,
                "no tag key shows whose the withheld entries are")

    # rule 14: personal fields

    def put_back(self, h, name, v):
        """The payload as it was recorded, where its opening is here; else `sealed` in it says what is not known."""
        opening, personal = self.openings.pop(h.seq, None), v.get("personal") if name in PERSONAL else None
        v["sealed"] = set()
        if personal is None and not h.fields:
            need(opening is None, "an opening of an entry that has no sealed fields")
            return v
        form(personal is None or fits(personal, "personal"), "sealed fields that are not in order")
        fields = personal["fields"] if personal else []
        need(len(fields) == h.fields, "another number of sealed fields than the header says")
        order = [(f["in"], -1 if f["at"] is None else f["at"]) for f in fields]
        form(all(a < b for a, b in zip(order, order[1:])), "sealed fields out of order")
        form(name != "DECISION" or ("/request/idempotency_key", -1) in order, "its idempotency key is not sealed")
        for f in fields:
            place, key = find(v, f["in"])
            form(re.match(PERSONAL[name][f["at"] is None], f["in"], re.DOTALL) and isinstance(place[key], str),
                    "no place of a field")
            text = place[key].encode()
            if f["at"] is None: form(not text and not f["pointer"], "a field where a value is")
            else: form(text[f["at"]:f["at"] + 2] == b'""', "a field that is not in its text")
        self.personal += 1
        if opening is None:
            if len(self.unopened) < 100_000: self.unopened.setdefault(personal["subject"], (self.segment, self.seq))
            v["sealed"] = {f["in"] for f in fields}
            return v
        values, at, commits = [], 0, []
        for index in range(len(fields)):
            size = int.from_bytes(opening[at + 32:at + 36], "big")
            salt, value, at = opening[at:at + 32], opening[at + 36:at + 36 + size], at + 36 + size
            need(at <= len(opening), "an opening cut short")
            numbers = h.seq.to_bytes(8, "big") + u32(index)
            commits.append(sha(b"sidecar/v1/field\0", self.chain, numbers, salt, value).hex())
            values.append(value)
        need(at == len(opening) and commits == [f["commit"] for f in fields], "an opening of something else")
        for f, value in reversed(list(zip(fields, values))):
            place, key = find(v, f["in"])
            parsed = strict(value)
            text = place[key].encode()
            place[key] = parsed if f["at"] is None else (text[:f["at"]] + value + text[f["at"] + 2:]).decode()
        form(fits(v, name), "what was put back is not of its form")
        if name == "DECISION": need(request_digest(v["agent"]["id"], v["request"]).hex() == v["request_digest"],
                "not the request of its digest")
        return v

    def judge_tombstone(self, v):
        text, note, signature = read_grant(v["note"].encode(), v["body"].encode())
        key = self.genesis and self.genesis["authority"]
        need(key and note["act"] == "erase" and note["chain"] == self.chain and note["does"]["subject"] == v["subject"],
             "a TOMBSTONE without the authority's leave", INCOMPLETE)
        good = signature and signature[:2] == (f"sidecar.v1/{self.chain.hex()}/authority",
                key_hash(signature[0], 1, unhex(key)))
        need(good and ed25519(unhex(key), signature[2], text.encode()), "a TOMBSTONE that the authority did not sign",
                INCOMPLETE)
        need(self.genesis["retention"] != "sec-17a-4", "erased, against the retention profile", INCOMPLETE)
        self.erased.add(v["subject"])
        raise Flaw(REDACTED, "a person's fields were erased, as the authority allowed")

    def check_opened(self):
        for subject, place in self.unopened.items():
            if self.complete and subject not in self.erased: self.add(INCOMPLETE, *place,
                    "sealed, no opening, and nobody allowed its erasure")
        if self.unopened: self.held.unchecked("the values of sealed personal fields, and what needs them")
        if self.openings: self.held.unchecked(f"{len(self.openings)} openings of entries that are not here")

    # rule 13: what the authority allowed

    def read_grants(self):
        key = self.genesis and self.genesis["authority"]
        if not self.genesis: return
        for record in self.grants.values():
            with self.at(None, None):
                size = 4 + int.from_bytes(record[:4], "big")
                form(4 < size <= min(len(record), 4 + NOTE) and len(record) - size <= 65_536,
                        "an authority note cut short or too long")
                text, v, signature = read_grant(record[4:size], record[size:])
                need(key, "an authority note, and GENESIS names no authority", INCOMPLETE)
                need(v["chain"] == self.chain, "an authority note of another chain", INCOMPLETE)
                form(signature is not None and signature[0] == f"sidecar.v1/{self.chain.hex()}/authority",
                        "an authority note signed under another name")
                good = signature[1] == key_hash(signature[0], 1, unhex(key)) and ed25519(unhex(key), signature[2],
                        text.encode())
                need(good, "an authority note that its authority did not sign", INCOMPLETE)
                self.acts[sha(b"sidecar/v1/authority\0", text.encode()).hex()] = v
                if v["act"] == "prune": self.runs += [(run, v) for run in v["does"]["segments"]]
                elif v["act"] == "accept-loss": self.losses.append((v["does"]["kept"], v["does"]["lost"], v["time"]))
                elif v["act"] == "erase":
                    need(self.genesis["retention"] != "sec-17a-4", "erased, against the retention profile", INCOMPLETE)
                    self.erased.add(v["does"]["subject"])
                    self.add(REDACTED, None, None, f"a person's fields were erased, with leave: {v['does']['reason']}")
                else: self.held.unchecked(f"an authority note {v['act']}: what it allows is not known here")

    def check_pruned(self):
        days = {"default": 0, "eu-ai-act": 184, "hipaa": 2192,
                "sec-17a-4": 2192}.get(self.genesis["retention"]) if self.genesis else None
        for covering, (first, last) in self.groups.items():
            with self.at(*first):
                runs = [self.runs[i] for i in covering]
                found = [run["seal"] == self.seals[run["last"]][0].hex() for run, _ in runs
                        if run["last"] in self.seals]
                need(any(found) or len(found) < len(runs), "pruned, and the authority's note is of another history",
                        INCOMPLETE)
                late = [run["last"] not in self.seals or days is None or v["time"] >= self.seals[run["last"]][1]
                        + days * 86_400 * SECOND for run, v in runs]
                need(any(late), "pruned before the chain's retention profile allows it", INCOMPLETE)
                pinned = bool(self.trust.get("policy"))
                need(not pinned or (self.held.anchored is not None and self.held.anchored >= last),
                        "pruned, and no receipt covers it", INCOMPLETE)
                if not any(found) or days is None or not pinned:
                    self.held.unchecked("that what was pruned was receipted, old enough and of this history")
                self.add(PRUNED, *first,
                        f"payloads up to segment {last} were pruned, with leave: {runs[0][1]['does']['reason']}")

    def check_loss(self, named):
        act, note = self.acts.get(named), self.note
        need(act and act["act"] == "accept-loss", "the note that accepts a loss is not here", INCOMPLETE)
        kept = act["does"]["kept"]
        goes_on = not note or (note["seq"], note["leaf"].hex(), note["segment"]) == (kept["seq"], kept["leaf"],
                kept["segment"] + (note["recovered"] is not None))
        need(goes_on, "the loss was accepted for another place")
        place = (note["segment"], note["seq"]) if note else (self.segment, self.seq)
        self.add(INCOMPLETE, *place,
                f"what the collector had was lost, and the authority accepted it: {act['does']['reason']}")

    def lost(self, segment): return any(kept["segment"] <= segment <= lost["segment"] for kept, lost, _ in self.losses)

    # rules 9 to 11: what payloads say

    def judge(self, h, name, v):
        proved = name in ("DECISION", "OUTCOME", "APPROVAL") and v["agent"]["proof"] != "asserted"
        if name == "DECISION": need(h.ref == (v["approval"]["decision_seq"] if v["approval"] else NONE),
                "its reference is not its approval's")
        if name in ("OUTCOME", "APPROVAL"): need(h.ref == v["decision_seq"], "its reference is not its decision_seq")
        need(any(h.tag) == proved, "an agent tag that does not go with how its agent was proved")
        digest = v["bundle_digest"] if name == "POLICY" else v["policy"]["bundle_digest"] if name == "DECISION" else ""
        if HEX32.match(digest) and bytes.fromhex(digest) in self.attached: self.attached[bytes.fromhex(digest)] = True
        elif name == "POLICY" and digest and self.file: self.unsaid["bundles of policies that are not in the file"] += 1
        elif name == "POLICY" and digest: raise Flaw(INCOMPLETE, "its bundle is not here")
        if name == "TOMBSTONE": self.judge_tombstone(v)
        if name == "OPEN":
            self.check_open(v)
            if "accepted_loss" in v: self.check_loss(v["accepted_loss"])
        if name == "REGISTRY" and v["registry"]:
            need(sha(v["registry"].encode()).hex() == v["digest"], "the registry is not the one of its digest")
            self.registries = [*self.registries, (v["digest"], read_registry(v["registry"].encode()))][-2:]
            self.registries_known = self.registries_known or len(self.registries) == 2
        if name == "DECISION": self.judge_decision(h, v)
        if name == "OUTCOME": self.judge_outcome(h, v)
        if name == "APPROVAL": self.judge_approval(h, v)

    def check_statement(self, h, who, kind, digest):
        with tampered("what was signed"):
            lines, spki = read_lines(who["statement"], "statement"), unbase64(who["key"])
            need(signed_by(spki, unbase64(who["signature"]), who["statement"].encode()),
                    "its principal's signature is wrong")
        said = (lines["kind"], lines["audience"], lines["epoch"], lines["by"], lines["key"], lines["digest"])
        need(said == (kind, h.chain, h.epoch, who["id"], sha(spki), digest), "what was signed says something else")
        return lines["time"]

    def check_known(self, who, registry):
        known = registry.get(who["id"])
        need(same(known, who), "its principal has not these roles and attributes")
        key = known and known["by_key"].get(key_id(who["key"])) if "signature" in who["proof"] else {"status": "active"}
        need(key and key["status"] == "active", "signed by a key that is not that principal's")
        need(who["proof"] != "gateway" or is_active(registry.get(who["gateway"]), "executor"), "named by no gateway")
        need(not who.get("spiffe_id") or known and who["spiffe_id"] in [s["id"] for s in known["spiffe_ids"]],
                "a SPIFFE id of somebody else")

    def judge_by(self, h, v, kind, digest):
        """Who reports or approves, by one of the last two registries; the time of what was signed."""
        who, flaw = v["by"], None
        sealed = "/by/statement" in v["sealed"]
        ns = self.check_statement(h, who, kind, digest) if "signature" in who["proof"] and not sealed else None
        if "signature" in who["proof"]: flaw = Flaw(TAMPERED, "signed, and no registry says whose key it is")
        for _, registry in reversed(self.registries):
            try: return self.check_known(who, registry) or ns
            except Flaw as found: flaw = found
        if flaw and self.registries_known: raise flaw
        if flaw: self.unsaid["whose keys signed: the registry is not in what was read"] += 1
        return ns

    def judge_decision(self, h, v):
        agent, asked, registry = v["agent"], v["request"], {}
        transit = {"asserted": "asserted", "mtls": "authenticated_in_transit", "gateway": "vouched"}
        worth = transit.get(agent["proof"], "signed")
        need(v["registry"] or worth != "vouched", "named by a gateway, without a registry")
        if v["registry"]:
            registry = dict(self.registries).get(v["registry"]["digest"])
            need(registry is not None or not self.registries_known, "it names a registry that is none of the last two")
            if registry is None: self.unsaid["whose keys signed: the registry is not in what was read"] += 1
        if worth == "signed":
            digest = unhex(v["request_digest"]) if v["sealed"] else request_digest(agent["id"], asked)
            self.check_statement(h, agent, "request", digest)
            need(v["registry"], "signed, and no registry says whose key it is")
            if any(pin["id"] == agent["id"] and key_id(agent["key"]) in pin["keys"]
                    for pin in self.trust.get("principals", ())): worth = "non_repudiable"
        if not (v["sealed"] and "signature" in agent["proof"]): self.report.worth[worth] += 1
        if v["registry"] and registry is not None: self.check_known(agent, registry)
        executor = v["executor"]
        need((executor["id"] if executor else "") == asked["executor"], "its executor is not the request's")
        if executor and registry is not None:
            known = registry.get(executor["id"])
            need(is_active(known, "executor") and same(known, executor),
                    "its executor is none, or has not these roles and attributes")
        need((v["permit"] is not None) == (bool(executor) and v["effect"] == "ALLOW"),
                "a permit that must not be, or none")
        need((v["terms"] is not None) == (v["effect"] == "REQUIRE_APPROVAL"), "terms and effect do not go together")
        with tampered("a delegation"): check_delegations(h, v, registry)
        ended = v["effect"] != "ALLOW" and v["enforced"]
        self.decided[h.seq] = "" if ended else (
            v["decision_id"], agent["id"], agent["proof"], executor["id"] if v["permit"] else agent["id"],
            None if v["sealed"] else arguments_digest(asked).hex(), v["permit"] and v["permit"]["not_after"])
        if len(self.decided) > 32_768: del self.decided[self.forget(next(iter(self.decided)))]
        named = v["approval"]["decision_id"] if v["approval"] else ""
        need(named == asked["approval_of"], "its approval is not of the decision that it names")
        if v["approval"]: self.judge_leave(h, v, registry)
        if v["terms"]:
            if len(self.waiting) >= MAX_WAITING:
                oldest = next(iter(self.waiting))
                self.known_from, self.bare = oldest + 1, self.bare[oldest + 1 - self.known_from:]
                del self.waiting[oldest]
            self.waiting[h.seq] = {
                "decision_id": v["decision_id"], "agent": agent["id"], "policy": v["policy"], "terms": v["terms"],
                "approvals": {},
                "action": None if v["sealed"] else action_digest(agent["id"], asked),
                "arguments": None if v["sealed"] else arguments_digest(asked),
                "delegators": [who["id"] for who in v["delegators"]]}

    def judge_outcome(self, h, v):
        if v["by"]["proof"] == "gateway": need(v["by"]["gateway"] == v["by"]["id"], "a gateway reports for another")
        self.judge_by(h, v, "outcome", outcome_digest(v))
        self.judge_about(h, v)
        for name in ("arguments_digest", "response_digest"):
            form(v[name] != "" or f"/{name}" in v["sealed"], f"an empty {name} that is not sealed")
        if "/permit" in v["sealed"]: return None
        if not v["permit"]: return need(v["by"]["id"] == v["agent"]["id"],
                "reported by another than its agent, without a permit")
        with tampered("its permit"):
            text, said, signature = read_one(v["permit"].encode(), "permit")
            check_signer(text, signature, self.name(), self.identity)
        for_this = [h.chain, v["decision_id"], h.ref, v["agent"]["id"], v["by"]["id"],
                bytes.fromhex(v["arguments_digest"] or "")]
        need([said[name] for name in ("chain", "decision", "seq", "agent", "executor", "arguments")] == for_this,
                "a permit for something else")
        need(v["status"] == "blocked" or v["started_ns"] and 0 < int(v["started_ns"]) < said["not_after"],
                "begun after its permit ended")

    def forget(self, seq):
        self.forgotten = seq
        return seq

    def judge_about(self, h, v):
        """Rule 10: the OUTCOME against its DECISION."""
        found, index = self.decided.get(h.ref), h.ref - self.known_from
        if found is None:
            known = h.ref not in self.decided and h.ref > self.forgotten and index >= 0 and self.bare[index:index
                    + 1] != b"\1"
            need(not known, "the outcome of what is no decision")
            self.unsaid["outcomes against their decisions: not in what was read"] += 1
            return
        need(found, "the outcome of a decision that may have none, or has one already")
        self.decided[h.ref] = ""
        *due, ends = found
        done = v["arguments_digest"] or ("" if ends else due[-1])
        if "/arguments_digest" in v["sealed"] or due[-1] is None: done = due[-1]
        need([v["decision_id"], v["agent"]["id"], v["agent"]["proof"], v["by"]["id"], done] == due,
                "not what its decision says")
        need("/permit" in v["sealed"] or (f"\nnot_after {ends}\n" in v["permit"] if ends else not v["permit"]),
                "a permit that its decision did not give, or none")

    def about(self, ref):
        """The decision that waits at `ref`; None if it is not known what became of it."""
        found, index = self.waiting.get(ref), ref - self.known_from
        if found is None:
            need(ref in self.waiting or index < 0 or self.bare[index:index + 1] == b"\1",
                    "about a decision that does not wait for an approval")
            self.unsaid["what was approved: the decision, or entries since, are not in what was read"] += 1
        return found

    def judge_approval(self, h, v):
        by, policy = v["by"]["id"], v["policy"]
        need("signature" in v["by"]["proof"], "an approval that nobody signed")
        for name in ("action_digest", "arguments_digest"):
            form(v[name] or f"/{name}" in v["sealed"], f"an empty {name} that is not sealed")
        ns, waits = self.judge_by(h, v, "approval", approval_digest(v)), self.about(h.ref)
        may = [may_approve(registry.get(by), waits["terms"]["roles"] if waits else []) for _,
                registry in self.registries]
        need(any(may) or not self.registries_known, "approved by who is no active approver with the role")
        if waits is None: return
        said = [v["decision_id"], v["agent"]["id"], policy["revision"], policy["bundle_digest"]]
        of = [waits["decision_id"], waits["agent"], *(waits["policy"][n] for n in ("revision", "bundle_digest"))]
        need(said == of, "about another decision")
        for name, due in (("action_digest", waits["action"]), ("arguments_digest", waits["arguments"])):
            need(due is None or f"/{name}" in v["sealed"] or unhex(v[name]) == due, "about another decision")
        need(by != waits["agent"] and by not in waits["delegators"], "approved by its agent or a delegator")
        need(by not in [who for who, _ in waits["approvals"].values()], "approved twice by one principal")
        if v["verdict"] == "reject": del self.waiting[h.ref]
        else: waits["approvals"][h.seq] = by, ns

    def judge_leave(self, h, v, registry):
        """A decision under an approval."""
        under, agent = v["approval"], v["agent"]["id"]
        named = [each["by"]["id"] for each in under["approvals"]]
        need(len(set(named)) == len(named) and not {agent, *(who["id"] for who in v["delegators"])} & set(named),
                "an approver twice, or no other")
        waits = self.about(h.ref)
        for by in [each["by"] for each in under["approvals"]] if registry is not None else ():
            known = registry.get(by["id"])
            need(may_approve(known, waits["terms"]["roles"] if waits else []) and same(known, by),
                    "by who is no active approver with the role")
        if waits is None: return
        need([waits["decision_id"], waits["agent"]] == [under["decision_id"], agent], "of another decision or agent")
        need(v["sealed"] or waits["action"] in (None, action_digest(agent, v["request"])), "of another action")
        need(v["effect"] == "DENY" or all(waits["policy"][n] == v["policy"][n] for n in ("revision", "bundle_digest")),
                "under another policy")
        need(time_ns(v["time"]) < time_ns(waits["terms"]["expires"]), "after its approval expired")
        need(all(waits["approvals"].get(a["seq"]) in ((a["by"]["id"], time_ns(a["time"])), (a["by"]["id"], None))
                for a in under["approvals"]),
                "an approval that was not given")
        need(len(named) == waits["terms"]["count"], "not as many approvals as its terms ask for")
        if v["effect"] == "ALLOW": del self.waiting[h.ref]

    def end(self):
        now = self.now
        self.link(None)
        if self.back: self.add(CLOCK, *self.back, "the wall clock is behind the end of the epoch before")
        if now.count:
            self.settle(None)
            self.segments += 1
        if self.open: self.held.saw_segment(self)
        if self.broken:
            return self.held.unchecked("whatever follows the place where the stream could no longer be read")
        if self.file:
            if not self.done: self.add(INCOMPLETE, self.segment, None,
                    "the segment file ends before its seal")
            return
        if not self.entries and not self.context: return self.add(INCOMPLETE, 0, 0, "no entry at all, not even GENESIS")
        if self.due: self.add(INCOMPLETE, self.segment, self.seq, f"the stream ends where {self.due[0]} is due")
        if now.count and not now.head and not now.headed: self.add(TAMPERED, self.segment, now.first,
                "an open segment without a head")
        start = max(now.first, now.head_seq + 1)
        for seq in range(start, min(self.seq, start + MAX_FINDINGS)) if now.head else (): self.add(UNANCHORED,
                self.segment, seq, "no head covers it")
        for name in [name for name, used in self.attached.items() if not used and not self.context
                and not self.bares]: self.add(INCOMPLETE, None, None, f"nothing names the attachment {name.hex()}")


# --- LOG.md: checkpoints, proofs, timestamps

def hashes_of(rows):
    form(len(rows) <= 63, "more hashes than a proof has")
    found = [unbase64(row) for row in rows]
    form(all(len(each) == 32 for each in found), "a hash that is none")
    return found

def path_root(leaf, index, size, path):
    """RFC 9162, 2.1.3.2: the root that an inclusion path leads to."""
    need(index < size, "an index beyond its tree")
    at, last, node = index, size - 1, leaf
    for step in path:
        need(last, "a path too long")
        left = at % 2 or at == last
        node = sha(b"\1", step, node) if left else sha(b"\1", node, step)
        while left and at % 2 == 0 and at: at, last = at >> 1, last >> 1
        at, last = at >> 1, last >> 1
    need(last == 0, "a path too short")
    return node

def extends(old, new, old_root, new_root, proof):
    """RFC 9162, 2.1.4.2: whether the larger tree begins with the smaller."""
    if old == new: return not proof and old_root == new_root
    if not 0 < old < new: return False
    if old & (old - 1) == 0: proof = [old_root, *proof]
    if not proof: return False
    at, last, one, two = old - 1, new - 1, proof[0], proof[0]
    while at % 2: at, last = at >> 1, last >> 1
    for step in proof[1:]:
        if not last: return False
        if at % 2 or at == last:
            one, two = sha(b"\1", step, one), sha(b"\1", step, two)
            while at % 2 == 0 and at: at, last = at >> 1, last >> 1
        else: two = sha(b"\1", two, step)
        at, last = at >> 1, last >> 1
    return last == 0 and (one, two) == (old_root, new_root)

class Policy:
    """C2SP tlog-policy: which logs and witnesses are believed."""

    def __init__(self, text):
        self.logs, self.witnesses, self.groups, self.quorum = [], {}, {}, None
        form(len(text) <= 262_144 and not re.search(r"[\0-\x08\x0b-\x1f\x7f]", text)
                and (not text or text[-1] == "\n"), "no policy")
        rows = [[word for word in re.split("[ \t]+", row) if word] for row in text.split("\n")]
        for word, *rest in [row for row in rows if row and row[0][0] != "#"]:
            taken = [*self.witnesses, *self.groups, "none"]
            if word == "log" and len(rest) in (1, 2): self.logs.append(self.key(rest[0], 1))
            elif word == "witness" and len(rest) in (2,
                    3) and rest[0] not in taken: self.witnesses[rest[0]] = self.key(rest[1], 4)
            elif word == "group" and len(rest) > 2 and rest[0] not in taken:
                count = {"all": len(rest) - 2, "any": 1}.get(rest[1]) or (int(rest[1])
                        if re.fullmatch("[1-9][0-9]{0,3}", rest[1]) else 0)
                members = rest[2:] + [member for _, group in self.groups.values() for member in group]
                form(1 <= count <= len(rest) - 2 and set(rest[2:]) < set(taken) - {"none"} | {""} and len(set(members))
                        == len(members), "a group of nobody")
                self.groups[rest[0]] = count, rest[2:]
            elif word == "quorum" and len(rest) == 1 and rest[0] in taken and self.quorum is None: self.quorum = rest[0]
            else: raise Flaw(MALFORMED, f"policy: {word}")
        keys = [key for _, key in (*self.logs, *self.witnesses.values())]
        form(self.quorum and len(set(keys)) == len(keys) and max(map(len, (self.logs, self.witnesses,
                self.groups))) <= 64, "no policy")

    @staticmethod
    def key(text, kind):
        name, fingerprint, data = (text.split("+", 2) + ["", ""])[:3]
        key = unbase64(data)
        form(name and len(key) == 33 and key[0] == kind and fingerprint == key_hash(name, kind, key[1:]).hex(),
                "no verifier key")
        return name, key[1:]

    def reached(self, who, name):
        if name not in self.groups: return name == "none" or name in who
        return sum(self.reached(who, member) for member in self.groups[name][1]) >= self.groups[name][0]

    def judge(self, data):
        """A signed checkpoint: (origin, size), root, text, witnesses that cosigned it. LOG 1."""
        text, signatures = read_note(data)
        rows = text.split("\n")
        form(len(rows) == 4 and not rows[3] and not re.search(r"[\s+\0-\x1f\x7f]|^$", rows[0]), "not a checkpoint")
        origin, size, root = rows[0], number(rows[1], 2**63 - 1), hashes_of([rows[2]])[0]
        logs = [key for name, key in self.logs if name == origin]
        need(logs, f"log {origin[:100]} is not one that the trust file lists")
        lines = {key: [s[2] for s in signatures if s[:2] == (origin, key_hash(origin, 1, key))] for key in logs}
        need(any(lines.values()), "not signed by its log")
        need(all(ed25519(key, line, text.encode()) for key, found in lines.items() for line in found),
                "the log's signature is wrong")
        vouching = set()
        for known, (name, key) in self.witnesses.items():
            for line in [s[2] for s in signatures if s[:2] == (name, key_hash(name, 4, key))]:
                seconds = int.from_bytes(line[:8], "big")
                said = f"cosignature/v1\ntime {seconds}\n{text}".encode()
                need(len(line) == 72 and seconds < 2**63 and ed25519(key, line[8:], said),
                        f"the cosignature of {known} is wrong")
                vouching.add(known)
        return (origin, size), root, text, vouching

def read_proof(data):
    """A tlog-proof of ours: what was logged (kind, text, lines), index, path, checkpoint; of a roll-call its answer."""
    form(len(data) <= 65_536, "a proof too long")
    try: head, found, checkpoint = data.decode().partition("\n\n")
    except UnicodeDecodeError: raise Flaw(MALFORMED, "not UTF-8") from None
    rows = head.split("\n")
    form(found and len(rows) > 2 and rows[0] == "c2sp.org/tlog-proof@v1" and rows[1][:6] == "extra " and rows[2][:6]
            == "index ", "not a tlog-proof")
    try: extra = unbase64(rows[1][6:]).decode()
    except UnicodeDecodeError: raise Flaw(MALFORMED, "not UTF-8") from None
    text, blank, rest = extra.partition("\n\n")
    text, kind = text + "\n" * bool(blank), text.partition("\n")[0].removeprefix("sidecar/v1/")
    form(kind in ("epoch", "seal", "roll-call") and len(text) <= NOTE, "not an entry of this log")
    lines, answer = read_lines(text, kind), None
    if kind == "seal": read_one(f"{text}\n\N{EM DASH} x {base64.b64encode(bytes(68)).decode()}\n".encode(), kind)
    form(bool(blank) == (kind == "roll-call"), "a roll-call without its answer, or another entry with one")
    if blank:
        said = rest.split("\n")
        form(len(said) > 2 and said[0][:6] == "index " and not said[-1], "not an answer")
        words = said[1].split(" ")
        form(len(words) == 7, "not a chain's line")
        codes = ("h", "e", "n-", "h-", "n-", "h-", "i-")
        line = dict(zip(("chain", "epoch", "sealed", "seal", "seq", "leaf", "time"), map(read_value, codes, words)))
        form((line["sealed"] is None) == (line["seal"] is None) and len({line[n] is None
                for n in ("seq", "leaf", "time")}) == 1, "half a line")
        answer = line, said[1], number(said[0][6:]), hashes_of(said[2:-1])
    return kind, text, lines, number(rows[2][6:]), hashes_of(rows[3:]), checkpoint.encode(), answer

def der(data, at=0):
    """The elements of a DER value: (tag, content)."""
    found = []
    while at < len(data):
        form(at + 1 < len(data), "DER cut short")
        tag, size, at = data[at], data[at + 1], at + 2
        if size & 0x80: size, at = int.from_bytes(data[at:at + size % 128], "big"), at + size % 128
        form(at + size <= len(data), "DER cut short")
        found, at = [*found, (tag, data[at:at + size])], at + size
    return found

ASK = ("Ask: openssl ts -verify -data checkpoint.txt -in response.tsr -CAfile roots.pem, with its member checkpoint,"
" its"
       " member response out of base64, and the roots that you trust")

def check_timestamp(v):
    """LOG 6: granted, of this text, with this nonce. Returns what time it says. The signature is not checked."""
    try:
        status, token = der(der(unbase64(v["response"]))[0][1])[:2]
        need(der(status[1])[0][1] in (b"\0", b"\1"), "not granted")
        signed_data = der(der(der(token[1])[1][1])[0][1])
        info = der(der(der(der(signed_data[2][1])[1][1])[0][1])[0][1])
        algorithm, imprint = der(info[2][1])
        nonces = [content for tag, content in info[5:] if tag == 2]
        need(der(algorithm[1])[0][1].hex() == "608648016503040201" and imprint[1] == sha(v["checkpoint"].encode()),
                "for other bytes")
        need(nonces and int.from_bytes(nonces[0], "big") == int(v["nonce"]), "of another nonce")
        return info[4][1].decode("ascii", "replace")
    except (IndexError, ValueError, Flaw) as error:
        why = error.args[1] if isinstance(error, Flaw) else "not a response"
        raise Flaw(TAMPERED, f"a timestamp that does not fit: {why}") from None

# --- what is held against a stream: keys, receipts of callers, receipts of the log

class Held:
    """`add` takes (verdict, segment, seq, reason), as a Stream's."""

    def __init__(self, report, add, trust, keys, callers, logged, claim=None, case=None, openings=None):
        self.report, self.add, self.trust, self.keys, self.claim, self.case = report, add, trust, keys, claim, case
        self.agents = case and case["agents"]
        self.openings = openings or {}
        self.heads, self.claims, self.resting, self.above = [], [], {}, {}
        self.seen, self.spans, self.anchored, self.last_sealed, self.sealed_at = {}, {}, None, -1, None
        for number_, data in enumerate(callers, 1):
            place = None, None
            try:
                v = read_lines(read_note(data)[0], "head")
                place = v["segment"], v["seq"]
                text, v, signature = read_one(data, "head")
                form(signature[0] == f"sidecar.v1/{v['chain'].hex()}/segment/{v['segment']}",
                        "signed under another name")
                self.heads.append((number_, text, v, signature))
            except Flaw as flaw: add(MALFORMED, *place, f"receipt {number_}: {flaw.args[1]}")
        policy = (trust or {}).get("policy")
        if policy is None and logged:
            self.unchecked(f"{len(logged)} receipts of logs: no log is pinned, so they prove nothing")
        if policy is not None: self.read_logged(Policy(policy), logged)
        self.want_seqs = {h[2]["seq"] for h in self.heads} | {c["seq"] for kind, c in self.claims if kind
                == "roll-call" and c["seq"] is not None}
        self.want_segments = {h[2]["segment"] for h in self.heads}

    def unchecked(self, what):
        if len(self.report.not_checked) < MAX_FINDINGS: self.report.not_checked.append(what)

    def note(self, what):
        if len(self.report.notes) < MAX_FINDINGS: self.report.notes.append(what)

    def read_logged(self, policy, logged):
        files, stamps, known = [], [], {}
        for n, data in enumerate(logged, 1):
            segment = None
            try:
                if data[:4] == b"old ": files.append((n, *self.read_consistency(policy, data)))
                elif data[:1] == b"{": stamps.append((n, read_json(data, "timestamp")))
                else:
                    kind, text, lines, index, path, checkpoint, answer = read_proof(data)
                    segment = lines.get("segment")
                    with tampered("a receipt"):
                        if checkpoint not in known: known[checkpoint] = policy.judge(checkpoint)
                        place, root, signed_text, witnesses = known[checkpoint]
                        need(path_root(sha(b"\0", text.encode()), index, place[1], path) == root,
                                "its path leads elsewhere")
                        if answer:
                            need(lines["log"] == place[0], "a roll-call of another log")
                            need(path_root(sha(b"\0", answer[1].encode()), answer[2], lines["chains"], answer[3])
                                    == lines["root"], "its answer leads elsewhere")
                    need(policy.reached(witnesses, policy.quorum), "not cosigned by the quorum of witnesses",
                            UNANCHORED)
                    old = self.resting.setdefault(place, (root, signed_text, witnesses))
                    if old[0] != root: self.add(FORK, None, None,
                            f"log {place[0]} signed two trees of {place[1]} entries")
                    hashed = sha(f"sidecar/v1/{kind}\0".encode(), text.encode())
                    self.claims.append((kind, {**answer[0], "called": lines["time"]} if answer
                            else {**lines, "hash": hashed}))
            except Flaw as flaw: self.add(flaw.args[0], segment, None, f"log file {n}: {flaw.args[1]}")
        self.one_log(files)
        self.judge_stamps(stamps)

    def read_consistency(self, policy, data):
        try: head, found, checkpoint = data.decode().partition("\n\n")
        except UnicodeDecodeError: raise Flaw(MALFORMED, "not UTF-8") from None
        rows = head.split("\n")
        form(found and len(data) <= 65_536, "not a consistency file")
        old, proof = number(rows[0][4:]), hashes_of(rows[1:])
        with tampered("a consistency file"): place, root, text, witnesses = policy.judge(checkpoint.encode())
        return old, place, proof, root

    def one_log(self, files):
        """LOG 5."""
        roots = {place: root for place, (root, _, _) in self.resting.items()}
        for n, old, place, proof, root in sorted(files, key=lambda f: (f[1], f[2][1])):
            origin, size = place
            if (origin, old) not in roots:
                self.unchecked(f"log file {n}: no receipt rests on a checkpoint of {old} entries")
            elif not extends(old, size, roots[origin, old], root, proof): self.add(FORK, None, None,
                    f"the tree of {size} entries does not extend {old}")
            else:
                if roots.setdefault(place, root) != root: self.add(FORK, None, None,
                        f"log {origin} signed two trees of {size} entries")
                self.above.setdefault((origin, old), set()).add(place)
        def reach(place):
            found, waiting = {place}, [place]
            while waiting:
                new = self.above.get(waiting.pop(), set()) - found
                found, waiting = found | new, [*waiting, *new]
            return found
        sizes = sorted(self.resting)
        for old, new in zip(sizes, sizes[1:]):
            if old[0] == new[0] and not self.resting[old][2] & self.resting[new][2] and not reach(old) & reach(new):
                self.add(INCOMPLETE, None, None,
                        f"nothing shows that the log's tree of {new[1]} extends that of {old[1]}: no consistency proof")

    def judge_stamps(self, stamps):
        """LOG 6."""
        cover, bad = {text: bool(witnesses) for _, text, witnesses in self.resting.values()}, []
        for n, v in stamps:
            text = v["checkpoint"]
            try:
                if text not in cover: self.unchecked(f"log file {n}: a timestamp that no receipt goes with")
                else:
                    said = check_timestamp(v)
                    self.note(f"log file {n}: a timestamp says the checkpoint of {text.split()[1]} was there at {said}")
                    self.unchecked(f"log file {n}: who signed this timestamp. {ASK}")
                    cover[text] = True
            except Flaw as flaw: bad.append((n, text, flaw))
        for n, text, flaw in bad: self.add(OK if cover[text] else TAMPERED, None, None, f"log file {n}: {flaw.args[1]}")

    def lost_at(self, stream, c):
        """Rule 13: whether a roll-call may tell of what was lost."""
        found = any(c["called"] <= ns and (c["sealed"] is not None and kept["segment"] <= c["sealed"] <= lost["segment"]
                                           or c["seq"] is not None and kept["seq"] <= c["seq"] < lost["seq"]) for kept,
                                           lost, ns in stream.losses)
        if found: self.unchecked("a roll-call: it may tell of what was lost, as the authority accepted")
        return found

    # what a stream tells while it is read

    def saw(self, stream, kind, place, name):
        """A well-signed epoch note (by epoch) or seal (by segment)."""
        for claimed, c in self.claims:
            if c["chain"] != stream.chain: continue
            if claimed == kind and c["epoch" if kind == "epoch" else "segment"] == place:
                c["met"] = True
                if c["hash"] != name and stream.lost(c["segment"]):
                    self.unchecked("a receipt of the log: it may be of what was lost, as the authority accepted")
                elif c["hash"] != name: self.add(TAMPERED, c["segment"], None,
                        "the log was shown another text for this place")
                elif kind == "seal": self.anchored = place
            if kind == "seal" and claimed == "roll-call" and c["sealed"] == place:
                if c["seal"] == name: self.anchored = place
                elif not self.lost_at(stream, c): self.add(TAMPERED, place, None, "a roll-call names another seal")

    def saw_entry(self, stream, h, leaf, said, v):
        if stream.seq not in self.want_seqs: return
        right = v.get("type") != "DECISION" or v["sealed"] or request_digest(v["agent"]["id"],
                v["request"]).hex() == v["request_digest"]
        self.seen[stream.segment, stream.seq] = leaf, said, right

    def saw_segment(self, stream):
        now = stream.now
        if stream.segment in self.want_segments:
            self.spans[stream.segment] = stream.key, stream.epoch, now.first, stream.seq

    def before(self, stream, v): self.sealed_at, self.last_sealed = v["time"], v["segment"]

    def finish(self, s):
        """Rules 8 and 12, LOG 2 to 4, and what a bundle claims of the stream."""
        inside = self.claim and self.sealed_at is not None and self.sealed_at >= time_ns(self.case["to"])
        beyond = not s.file and not s.broken and not inside  # what is said of places after the end is judged
        for n, text, v, signature in self.heads:
            place = v["segment"], v["seq"]
            try:
                need(s.chain in (None, v["chain"]), "it is of another chain")
                need(v["segment"] in self.spans or not beyond or v["segment"] < s.first_segment,
                        "the ledger does not reach its segment", INCOMPLETE)
                if v["segment"] not in self.spans: self.unchecked(f"receipt {n}: its segment {place[0]} was not read")
                else: self.judge_head(s.lost(place[0]), text, v, signature, *self.spans[v["segment"]])
            except Flaw as flaw: self.add(flaw.args[0], *place, f"receipt {n}: {flaw.args[1]}")
        for kind, c in self.claims:
            if s.chain not in (None, c["chain"]): self.add(TAMPERED, c.get("segment"), None,
                    "a receipt of the log for another chain")
            elif kind == "roll-call" and self.lost_at(s, c): pass
            elif kind == "roll-call":
                found = [(segment, leaf) for (segment, seq), (leaf, _, _) in self.seen.items() if seq == c["seq"]]
                if found and found[0][1] != c["leaf"]: self.add(TAMPERED, found[0][0], c["seq"],
                        "a roll-call names another entry")
                if beyond and c["sealed"] is not None and c["sealed"] > self.last_sealed:
                    self.add(INCOMPLETE, c["sealed"], None, "a roll-call names a seal that the ledger does not reach")
                if beyond and c["seq"] is not None and c["seq"] >= s.seq: self.add(INCOMPLETE, None, c["seq"],
                        "a roll-call names an entry that is not here")
            elif "met" not in c and s.lost(c["segment"]): self.unchecked("a receipt of the log: it may be of what was"
            " lost, as the authority accepted")
            elif "met" not in c and beyond and c["segment"] >= s.first_segment: self.add(INCOMPLETE, c["segment"],
                    None, f"the log has a {kind} that is not here")
            elif "met" not in c: self.unchecked("a receipt of the log: its place was not read")
        s.check_pruned()
        s.check_opened()
        self.checked(s)
        last = s.sealed
        calls = [c["called"] for kind, c in self.claims if last and kind == "roll-call" and c["chain"] == s.chain
                and (c["sealed"], c["seal"]) == (last[0], last[3])]
        if self.anchored is None or last is None: self.add(UNANCHORED, None, None,
                "no receipt of a pinned log: whoever has disk and identity key may have made it all")
        elif self.anchored < last[0] or s.seq > last[2]: self.add(UNANCHORED, self.anchored + 1, None,
                "no receipt of the log covers what follows here")
        elif not s.file and not inside and not calls: self.add(UNANCHORED, None, None,
                f"no roll-call names segment {last[0]} as the last: more may have been cut off")
        if s.crashed: self.add(UNANCHORED, None, None,
                "a segment ended by a crash: what came after its last head cannot be known")
        if self.claim: self.judge_claim(s, [c["called"] for kind, c in self.claims if last and kind == "roll-call"
                and c["chain"] == s.chain
                                            and (c["sealed"], c["seal"]) == (last[0], last[3])
                                            and (c["seq"] is None or c["seq"] < s.seq)])

    def checked(self, s):
        """What the report says was checked and what was not, beside the findings."""
        say, leave = self.report.checked.append, self.unchecked
        say(f"place, links, payloads and clocks of {s.entries} entries; lines and roots of {s.segments} segments")
        if s.tags: say(f"HMAC tags and agent tags of {s.tags} entries, by disclosed keys that the seals commit to")
        if s.tags < s.entries:
            leave(f"HMAC tags and agent tags of {s.entries - s.tags} entries: no disclosed key is theirs")
        if s.unsigned: leave(f"signatures of {s.unsigned} notes: what names their keys was damaged, or is not here")
        if not self.trust: leave("that this is the chain you expect: no trust file was given")
        if self.heads: say(f"receipts of callers against their entries: {len(self.heads)}")
        if self.anchored is not None: say(f"receipts of the pinned log, up to segment {self.anchored}")
        if s.file:
            leave("the segment's signing key, and what was before: only its context says so. Anybody may have made it")
        for what, count in s.unsaid.items(): leave(f"{what} ({count} entries)")

    def judge_claim(self, s, calls):
        """EVIDENCE.md, "Verification", 5."""
        claim, case = self.claim, self.case
        if s.chain is not None and s.chain.hex() != claim["chain"]: self.add(TAMPERED, None, None,
                "the stream is of another chain than its folder")
        if s.broken: return
        first, last = claim["first_segment"], claim["last_segment"]
        if s.first_segment != first: self.add(INCOMPLETE, first, None,
                f"the stream starts with segment {s.first_segment}, and {first} is claimed")
        if s.reached != last: self.add(INCOMPLETE, min(s.reached, last) + 1, None,
                f"the stream ends with segment {s.reached}, and {last} is claimed")
        if s.entries != claim["entries"]: self.add(INCOMPLETE, None, None,
                f"{s.entries} entries, and {claim['entries']} are claimed")
        if s.opened_at is not None and s.opened_at >= time_ns(case["from"]): self.add(INCOMPLETE, s.first_segment - 1,
                None, "it is of the window, and not here")
        shown = max([t for t in (self.sealed_at, *calls) if t is not None], default=-1)
        if claim["through"] and shown < time_ns(claim["through"]): self.add(INCOMPLETE, self.last_sealed + 1, None,
                "nothing shows that all is here that is claimed")
        elif shown < time_ns(case["to"]): self.add(UNANCHORED, self.last_sealed + 1, None,
                "what the chain wrote up to the window's end may be missing")
        if s.bares:
            self.unchecked(f"what {s.bares} withheld entries say, and whose those are that bear no tag")
            self.unchecked("entries of others that name an agent of the case as executor, approver or delegator")

    def judge_head(self, lost, text, v, signature, key, epoch, first, following):
        if key is None: return self.unchecked(f"a receipt: the signing key of segment {v['segment']} is not known")
        try: check_signer(text, signature, signature[0], key)
        except Flaw:
            if lost: return self.unchecked("a receipt: it may be of what was lost, as the authority accepted")
            raise
        need(v["epoch"] == epoch and v["seq"] >= first,
                "validly signed, for another epoch or a place before its segment", FORK)
        need(v["seq"] < following, "its segment ends before it", INCOMPLETE)
        if (v["segment"], v["seq"]) not in self.seen: return self.unchecked("a receipt: its entry could not be read")
        leaf, said, right = self.seen[v["segment"], v["seq"]]
        need(v["leaf"] == leaf, "validly signed, for another entry at this place", FORK)
        if v["decision"] and said not in (b"\xff" * 32, ZERO):
            need(said == decided(v["decision"], v["effect"], v["request"].hex()),
                    "the caller was told another decision than was recorded")
            need(right, "the request that was recorded is not that of its digest")

# --- the command

class Member:
    """A member of the zip, read once as a stream: its bytes, digest, and whether it is what the directory says."""
    def __init__(self, file, offset, method, crc, packed, size):
        self.file, self.at, self.left, self.crc, self.size = file, offset, packed, crc, size
        self.inflate, self.buffer, self.given, self.found, self.sha, self.digest, self.flaw = (zlib.decompressobj(-15)
                if method else None), b"", 0, 0, hashlib.sha256(), None, False
    def chunk(self):
        if self.inflate and self.inflate.unconsumed_tail: data = self.inflate.decompress(self.inflate.unconsumed_tail,
                65_536)
        else:
            self.file.seek(self.at)
            raw = self.file.read(min(65_536, self.left))
            self.at, self.left = self.at + len(raw), self.left - len(raw)
            try: data = raw if not self.inflate or self.inflate.eof else self.inflate.decompress(raw, 65_536)
            except zlib.error: data, self.flaw, self.left = b"", True, 0
            if self.inflate and (self.inflate.unused_data or (self.inflate.eof
                    and self.left)): self.flaw, self.left = True, 0
        over = self.given + len(data) > self.size
        data, self.flaw = data[:self.size - self.given], self.flaw or over
        self.given, self.found = self.given + len(data), zlib.crc32(data, self.found)
        self.sha.update(data)
        done = over or (not self.left and not (self.inflate and self.inflate.unconsumed_tail))
        if done and self.digest is None:
            self.digest, self.left = self.sha.hexdigest(), 0
            if self.inflate: self.flaw, self.inflate = self.flaw or not self.inflate.eof, None
            self.flaw = self.flaw or self.given != self.size or self.found != self.crc
        return data, done
    def read(self, size):
        while len(self.buffer) < size and self.digest is None: self.buffer += self.chunk()[0]
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data
    def drain(self):
        while self.digest is None: self.chunk()

PART = "[A-Za-z0-9_-](?:[A-Za-z0-9._-]*[A-Za-z0-9_-])?"
NAME = re.compile(f"(?!.{{241}})(?:{PART}/)*{PART}\\Z")

def read_zip(file):
    """EVIDENCE.md, "Container": one shape, rebuilt here from what may differ and compared."""
    size = file.seek(0, 2)
    form(22 <= size <= 4_294_967_294, "a bundle too short or too long")
    file.seek(size - 22)
    mark, _, _, count, _, length, start, _ = end = struct.unpack("<IHHHHIIH", file.read(22))
    form(end == (0x06054B50, 0, 0, count, count, length, start, 0) and start + length + 22 == size and count <= 16_384
            and length <= count * 286, "the end record")
    file.seek(start)
    directory, members, at, offset = file.read(length), {}, 0, 0
    for _ in range(count):
        form(at + 46 <= length, "the directory")
        row = struct.unpack("<I6H3I5H2I", directory[at:at + 46])
        method, crc, packed, size, name_length = row[4], *row[7:11]
        raw = directory[at + 46:at + 46 + name_length]
        form(row == (0x02014B50, 20, 20, 0, method, 0, 33, crc, packed, size, name_length, 0, 0, 0, 0, 0, offset),
                "a central header")
        form(method in (0, 8) and (method or packed == size) and size <= 1_048_576 + 200 * packed,
                "a method, a size or an expansion")
        file.seek(offset)
        local = struct.pack("<I5H3I2H", 0x04034B50, 20, 0, method, 0, 33, crc, packed, size, name_length, 0) + raw
        name = raw.decode("latin-1")
        form(file.read(len(local)) == local and len(raw) == name_length and NAME.match(name) and name not in members,
                f"a local header or name: {name[:80]!r}")
        form(not method or not name.endswith("/stream.sdcseg"), "a stream that is deflated")
        members[name] = Member(file, offset + len(local), method, crc, packed, size)
        at, offset = at + 46 + name_length, offset + len(local) + packed
    form((at, offset) == (length, start), "bytes that belong to no member")
    lower = [name.lower() for name in members]
    folders = {name[:i] for name in lower for i, c in enumerate(name) if c == "/"}
    form(len(set(lower)) == len(lower) and not folders & set(lower), "two names that are one")
    return members

LIMIT = {"stream.sdcseg": 2**32, "disclosure.json": 67_108_864, "receipts": 131_072, "callers": 131_072}

class Bundle:
    def __init__(self, file, report, trust, disclosure, receipts, openings=None):
        self.report, self.members = report, read_zip(file)
        self.say = lambda verdict, reason, chain=None: report.add(verdict, chain, None, None, reason)
        self.bag()
        case = read_json(self.small("data/case.json", 16 << 20, True), "case")
        chains, agents, window = [c["chain"] for c in case["chains"]], case["agents"], (time_ns(case["from"]),
                time_ns(case["to"]))
        form(window[0] < window[1] and chains == sorted(set(chains)) and agents in (None, sorted(set(agents or ()))),
                "case.json: window, chains or agents")
        form(max(len(chains), len(agents or ())) <= 1024 and len(case["statements"]) <= 16_384,
                "case.json: too much of it")
        for c in case["chains"]:
            form(c["first_segment"] <= c["last_segment"] and (not c["through"]
                    or window[0] < time_ns(c["through"]) <= window[1]), "case.json: a claim")
        if case["profile"] == "external" and "data/openings.json" in self.members: self.say(MALFORMED,
                "openings in an external case")
        self.openings = openings or {}
        if openings is None and "data/openings.json" in self.members and case["profile"] == "full":
            try:
                data = self.small("data/openings.json", 16 << 20)
                if data is not None: self.openings = read_openings(data, chains)
            except Flaw as flaw: self.say(MALFORMED, f"openings.json: {flaw.args[1]}")
        files = self.sort(chains)
        for claim in case["chains"]:
            if "stream" in files[claim["chain"]]: self.chain(claim, case, files[claim["chain"]], trust, disclosure,
                    receipts)
        if any(chain_of(data) not in (None, *chains) for data in receipts): self.say(TAMPERED,
                "a receipt of another chain")
        self.policies()
        for name in [name for name in self.members if self.members[name].digest is None]: self.members[name].drain()
        for name, member in self.members.items():
            if member.flaw: self.say(MALFORMED, f"{name} is not what the directory says")
        self.manifests()
        report.checked.append(f"container, manifests and digests of {len(self.members)} files; case.json")
        report.not_checked.append("documents in the bundle that say the same in other forms; the bundle's own trust"
        " file, verifiers and openings")

    def small(self, name, limit, due=False):
        """A content that is read whole; None where it cannot be used."""
        member = self.members.get(name)
        if member is None or member.size > limit:
            form(not due, f"{name} is missing or too long")
            return self.say(MALFORMED, f"{name} is missing or too long")
        data = member.read(member.size + 1)
        form(not due or not member.flaw, f"{name} cannot be read")
        return None if member.flaw else data

    def bag(self):
        self.manifest = {}
        for name, limit in (("manifest-sha256.txt", 16 << 20), ("tagmanifest-sha256.txt", 16 << 20), ("bagit.txt",
                65_536), ("bag-info.txt", 65_536)):
            self.manifest[name] = self.small(name, limit)
        due = b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"
        if self.manifest["bagit.txt"] != due: self.say(MALFORMED, "bagit.txt")
        for name in self.members:
            if not name.startswith("data/") and name not in self.manifest: self.say(MALFORMED,
                    f"{name} stands outside of data/")

    def manifests(self):
        listed = {"manifest-sha256.txt": [n for n in self.members if n.startswith("data/")],
                  "tagmanifest-sha256.txt": [n for n in ("bag-info.txt", "bagit.txt", "manifest-sha256.txt")
                  if n in self.members]}
        for name, of in listed.items():
            due = "".join(f"{self.members[n].digest}  {n}\n" for n in sorted(of)).encode()
            if self.manifest[name] is not None and self.manifest[name] != due: self.say(MALFORMED,
                    f"{name} is not that of the contents")

    def sort(self, chains):
        files = {chain: {"receipts": [], "callers": []} for chain in chains}
        for name, member in self.members.items():
            if not name.startswith("data/chains/"): continue
            _, _, chain, kind, *rest = name.split("/") + [""] * (3 - name.count("/"))
            good = chain in files and (not rest and kind in ("stream.sdcseg", "disclosure.json") or len(rest) == 1
                    and kind in ("receipts", "callers"))
            if not good or member.size > LIMIT[kind]: self.say(MALFORMED,
                    f"{name} does not belong there, or is too long")
            elif rest: files[chain][kind].append(name)
            else: files[chain][kind.split(".")[0]] = name
        for chain, found in files.items():
            if "stream" not in found: self.say(MALFORMED, f"chain {chain} has no stream")
            if len(found["receipts"]) + len(found["callers"]) > 4096: self.say(MALFORMED,
                    f"chain {chain}: too many receipts")
            found["receipts"], found["callers"] = found["receipts"][:4096], found["callers"][:4096]
        return files

    def chain(self, claim, case, files, trust, disclosure, receipts):
        chain, kept = claim["chain"], []
        for name in sorted(files["receipts"]):
            data = self.small(name, LIMIT["receipts"])
            if data is not None and not is_logged(data): self.say(MALFORMED,
                    f"{name} is no receipt, consistency file or timestamp", chain)
            elif data is not None: kept.append(data)
        callers = [data for name in sorted(files["callers"]) if (data := self.small(name,
                LIMIT["callers"])) is not None]
        if "disclosure" in files and (data := self.small(files["disclosure"], LIMIT["disclosure.json"])) is not None:
            try: disclosure = read_disclosure(data)
            except Flaw as flaw: self.say(MALFORMED, f"disclosure.json: {flaw.args[1]}", chain)
        given = [data for data in receipts if chain_of(data) in (None, chain)]
        callers += [data for data in given if not is_logged(data)]
        kept += [data for data in given if is_logged(data)]
        judge_stream(self.members[files["stream"]], self.report, trust, disclosure, callers, kept, claim, case,
                     self.openings)

    def policies(self):
        for name in [n for n in self.members if re.fullmatch(r"data/policies/[0-9a-f]{64}\.(tar\.gz|wasm)", n)]:
            digest, kind = name.split("/")[2].split(".", 1)
            if kind == "tar.gz":
                data = self.small(name, MAX_PAYLOAD)
                if data is not None and sha(data).hex() != digest: self.say(MALFORMED, f"{name} has another digest")
            wasm = f"data/policies/{digest}.wasm"
            if kind == "wasm" and f"data/policies/{digest}.tar.gz" not in self.members: self.say(MALFORMED,
                    f"{name} has no bundle beside it")
            elif kind == "tar.gz" and wasm in self.members:
                inside, there = data and policy_wasm(data), self.small(wasm, 64 << 20)
                if data is not None and there is not None and inside != there: self.say(MALFORMED,
                        f"{wasm} is not the one in its bundle")

def judge_bundle(file, report, trust, disclosure, receipts, openings=None):
    try: Bundle(file, report, trust, disclosure, receipts, openings)
    except Flaw as flaw: report.add(flaw.args[0], None, None, None, flaw.args[1])

def policy_wasm(data):
    """The one policy.wasm of a .tar.gz; None if there is none. EVIDENCE.md, "Files"."""
    inflate = zlib.decompressobj(31)
    try: tar = inflate.decompress(data, (64 << 20) + 1)
    except zlib.error: return None
    if not inflate.eof or inflate.unused_data or len(tar) > 64 << 20: return None
    found, at = [], 0
    while at + 512 <= len(tar) and any(tar[at:at + 512]):
        head = tar[at:at + 512]
        digits = head[124:136].strip(b" \0")
        if not re.fullmatch(b"[0-7]*", digits): return None
        size, name = int(digits or b"0", 8), head[:100].split(b"\0")[0]
        if name in (b"policy.wasm", b"/policy.wasm") and head[156:157] in (b"0",
                b"\0") and not any(head[345:500]): found.append(tar[at + 512:at + 512 + size])
        if at + 512 + size > len(tar): return None
        at += 512 + (size + 511) // 512 * 512
    return found[0] if len(found) == 1 else None

def is_logged(data): return data[:4] == b"old " or data[:1] == b"{" or data[:23] == b"c2sp.org/tlog-proof@v1\n"

def chain_of(data):
    """Which chain a receipt is about, None if that cannot be told."""
    extra = re.match(rb"c2sp\.org/tlog-proof@v1\nextra ([A-Za-z0-9+/=]*)\n", data)
    found = re.search(rb"^(?:chain )?([0-9a-f]{64})(?: |$)", base64.b64decode(extra[1] + b"==") if extra else data,
            re.M)
    return found[1].decode() if found else None

def read_openings(data, chains=None):
    """By chain: the openings by seq, and whether all that was not erased is there."""
    value = read_json(data, "openings")["chains"]
    form(len({c["chain"] for c in value}) == len(value) and (not chains or all(c["chain"] in chains for c in value)),
            "its chains")
    for c in value:
        seqs = [entry["seq"] for entry in c["entries"]]
        form(all(a < b for a, b in zip(seqs, seqs[1:])), "entries that do not rise")
    return {c["chain"]: ({e["seq"]: unbase64(e["opening"]) for e in c["entries"]}, c["complete"]) for c in value}

def read_disclosure(data):
    value = read_json(data, "disclosure")
    form(len({k["segment"] for k in value["segments"]}) == len(value["segments"]), "one segment twice")
    return value

def main(arguments):
    parser = argparse.ArgumentParser(prog="verify.py",
            description="Judge an evidence bundle, or one stream of a ledger, offline.")
    parser.add_argument("verb", choices=["verify"])
    parser.add_argument("path", help="an evidence bundle, or a stream (.sdcseg)")
    parser.add_argument("--trust", help="the trust file that you hold")
    parser.add_argument("--disclosure", help="keys of segments, for a stream")
    parser.add_argument("--receipt", action="append", default=[],
            help="a receipt of a caller or of the log, for a stream")
    parser.add_argument("--openings", help="openings of personal fields, instead of the bundle's own")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    report = Report()
    try:
        trust = read_json(Path(options.trust).read_bytes(), "trust") if options.trust else None
        if trust:
            form(len({c["chain"] for c in trust["chains"]}) == len(trust["chains"]), "one chain twice")
            form(len({p["id"] for p in trust.get("principals", ())}) == len(trust.get("principals", ())),
                    "one principal twice")
            if trust.get("policy") is not None: Policy(trust["policy"])
        disclosure = read_disclosure(Path(options.disclosure).read_bytes()) if options.disclosure else None
        receipts = [Path(name).read_bytes() for name in options.receipt]
        openings = read_openings(Path(options.openings).read_bytes()) if options.openings else None
        file = open(options.path, "rb")
    except OSError as error: return print(f"verify.py: {error}", file=sys.stderr) or 2
    except Flaw as flaw: return print(f"verify.py: a file given beside it: {flaw.args[1]}", file=sys.stderr) or 2
    with file:
        start = file.read(8)
        file.seek(0)
        if start == b"SDCSEG\0\1":
            callers, logged = ([r for r in receipts if is_logged(r) == which] for which in (False, True))
            judge_stream(file, report, trust, disclosure, callers, logged, openings=openings)
        else:
            judge_bundle(file, report, trust, disclosure, receipts, openings)
    tell(report, options.json)
    return 0 if report.worst <= PRUNED else 1 if report.worst >= FORK else 4 if report.worst == UNANCHORED else 3

def judge_stream(file, report, trust, disclosure, callers, logged, claim=None, case=None, openings=None):
    part, keys = Report(), {}
    if disclosure and (not claim or disclosure["chain"] == claim["chain"]):
        keys = {k["segment"]: (unhex(k["mac_key"]), unhex(k["tag_key"])) for k in disclosure["segments"]}
    def add(verdict, segment, seq, reason): part.add(verdict, None, segment, seq, reason)
    held = Held(report, add, trust, keys, callers, logged, claim, case, openings)
    stream = Stream(file.read, add, held)
    held.finish(stream)
    chain = claim["chain"] if claim else stream.chain.hex() if stream.chain else None
    for verdict, _, segment, seq, reason in part.findings(): report.add(verdict, chain, segment, seq, reason)
    report.total += part.total - len(part.findings())
    report.chains.append((chain, stream.entries, stream.segments))

def tell(report, as_json):
    names = "verdict", "chain", "segment", "seq", "reason"
    findings = [dict(zip(names, (VERDICTS[f[0]], *f[1:]))) for f in report.findings()]
    chains = [{"chain": c, "verdict": VERDICTS[report.by_chain[c]], "entries": e, "segments": n} for c, e,
            n in report.chains]
    value = {"verdict": VERDICTS[report.worst], "findings": findings, "findings_total": report.total,
             "checked": list(dict.fromkeys(report.checked)), "not_checked": list(dict.fromkeys(report.not_checked)),
             "entries": sum(c["entries"] for c in chains), "segments": sum(c["segments"] for c in chains),
             "chains": chains, "decisions": report.worth, "notes": report.notes}
    if as_json: return print(json.dumps(value))
    print(f"{value['verdict']}: {value['entries']} entries in {value['segments']} segments of {len(chains)} chains")
    if report.worst > UNANCHORED: print(f"Nothing beyond the findings can be said: it is {value['verdict']}.")
    for finding in findings:
        place = [f"{n} {finding[n]}" for n in ("chain", "segment", "seq") if finding[n] is not None]
        print(f"  {finding['verdict']} {', '.join(place) or 'the whole'}: {printable(finding['reason'])}")
    if report.total > len(findings): print(f"  and {report.total - len(findings)} findings more")
    for title in ("checked", "not_checked", "notes"):
        if value[title]: print(f"{title.replace('_', ' ')}:")
        for line in value[title]: print(f"  {printable(line)}")
    worth = {"non_repudiable": "signed with a key that you pinned", "signed": "signed", "asserted": "asserted only",
             "authenticated_in_transit": "in transit only", "vouched": "named by a gateway"}
    for name, number_ in report.worth.items(): print(f"decisions {worth[name]}: {number_}")
    return None

def printable(text): return "".join(c if c.isprintable() else "?" for c in text)

if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
