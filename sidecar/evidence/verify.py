#!/usr/bin/env python3
"""verify.py: judge a Decision Sidecar evidence bundle, alone and offline.

    python verify.py verify BUNDLE [--trust T] [--json]

One file; it needs Python 3.11 with the package `cryptography`. It shares no code with the product and was written from
the specifications EVIDENCE.md, LEDGER.md, LOG.md and SIGNING.md. "Rule 5" in a comment is LEDGER.md's, "LOG 3" one of
LOG.md's last section. It reads front to back, one record at a time, writes nothing and asks nobody. What it does not
check it says: above all tags without a disclosed key, and the signature of a timestamp authority.

From the whole to the parts: the command; the bundle and its zip file; a stream: what it starts with (rules 9 and 13),
epochs (3), entries (1, 2, 6), heads and seals (4, 5, 7), personal fields (14), what the authority allowed (13), what
payloads say (9 to 11), what callers and the log hold against it (8, 12, LOG 2 to 4); the log (LOG 1, 5, 6); trees;
and the forms of all these: entries, digests and delegations, notes, keys, JSON.
"""
import argparse, base64, bisect, datetime, functools, hashlib, hmac, io, itertools, json, math, re, struct, sys, zlib
from collections import Counter, OrderedDict, namedtuple
from contextlib import contextmanager
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

VERDICTS = "OK REDACTED PRUNED UNANCHORED INCOMPLETE CLOCK FORK TAMPERED MALFORMED".split()
OK, REDACTED, PRUNED, UNANCHORED, INCOMPLETE, CLOCK, FORK, TAMPERED, MALFORMED = range(9)
NONE, ZERO, SECOND = 2**64 - 1, bytes(32), 10**9
MAX_PAYLOAD, MAX_RECORD, MAX_NOTE, MAX_FINDINGS = 8 << 20, 8_454_144, 16_384, 1_000

class Flaw(Exception):
    """(verdict, reason): what is wrong with the thing at hand. Whoever knows its place reports it."""

def need(holds, reason, verdict=TAMPERED):
    if not holds: raise Flaw(verdict, reason)

def form(holds, reason):
    if not holds: raise Flaw(MALFORMED, reason)

@contextmanager
def taken_as(verdict, what):
    """Where any violation has this verdict."""
    try: yield
    except Flaw as flaw: raise Flaw(verdict, f"{what}: {flaw.args[1]}") from None

class Report:
    """All findings count; a thousand are kept, bad ones before others, each kind in the order of EVIDENCE.md."""

    def __init__(self):
        self.kept, self.total, self.worst, self.by_chain = [], 0, OK, Counter()
        self.checked, self.not_checked, self.notes, self.chains, self.worth = Counter(), Counter(), [], [], Counter()

    def add(self, verdict, chain, segment, seq, reason):
        order = [(x is None, x if x is not None else 0) for x in (chain, segment, seq)]
        bisect.insort(self.kept, (verdict <= UNANCHORED, order, -verdict, reason, chain, segment, seq))
        del self.kept[MAX_FINDINGS:]
        self.total, self.worst = self.total + 1, max(self.worst, verdict)
        self.by_chain[chain] = max(self.by_chain[chain], verdict)

    def findings(self):
        """(verdict, chain, segment, seq, reason) of each."""
        return [(-down, *place, reason) for _, _, down, reason, *place in sorted(self.kept, key=lambda f: f[1:3])]

# --- the command (EVIDENCE.md, "Command line and protocol")

def main(arguments):
    parser = argparse.ArgumentParser(prog="verify.py", description="Judge an evidence bundle, offline.")
    parser.add_argument("verb", choices=["verify"])
    parser.add_argument("bundle")
    parser.add_argument("--trust", help="the trust file that you hold")
    parser.add_argument("--json", action="store_true")
    options, report = parser.parse_args(arguments), Report()
    try:
        trust = read_trust(Path(options.trust).read_bytes()) if options.trust else None
        with open(options.bundle, "rb") as file: judge_bundle(file, report, trust)
    except OSError as error: return print(f"verify.py: {error}", file=sys.stderr) or 2
    except Flaw as flaw: return print(f"verify.py: {options.trust}: {flaw.args[1]}", file=sys.stderr) or 2
    tell(report, options.json)
    return 0 if report.worst <= PRUNED else 1 if report.worst >= FORK else 4 if report.worst == UNANCHORED else 3

def read_trust(data):
    trust = read_json(data, "trust")
    for rows, name in ((trust["chains"], "chain"), (trust.get("principals", ()), "id")):
        form(len({row[name] for row in rows}) == len(rows) and trust["chains"], f"one {name} twice, or no chain")
    if trust.get("policy") is not None: Policy(trust["policy"])
    return trust

def tell(report, as_json):
    names = "verdict", "chain", "segment", "seq", "reason"
    findings = [dict(zip(names, (VERDICTS[verdict], *rest))) for verdict, *rest in report.findings()]
    chains = [{"chain": chain, "verdict": VERDICTS[report.by_chain[chain]], "entries": entries, "segments": segments}
              for chain, entries, segments in report.chains]
    lists = {"checked": report.checked, "not_checked": report.not_checked}
    lists = {name: [f"{what} ({n:,})" if n > 1 else what for what, n in of.items() if n] for name, of in lists.items()}
    value = {"verdict": VERDICTS[report.worst], "findings": findings, "findings_total": report.total, **lists,
             "notes": report.notes, "decisions": report.worth, "entries": sum(chain["entries"] for chain in chains),
             "segments": sum(chain["segments"] for chain in chains), "chains": chains}
    if as_json: return print(json.dumps(value))
    sizes = some(value["entries"], "entry", "entries"), some(value["segments"], "segment"), some(len(chains), "chain")
    print(f"{value['verdict']}: {sizes[0]} in {sizes[1]} of {sizes[2]}")
    for each in findings:
        place = ", ".join(f"{n} {each[n]}" for n in names[1:4] if each[n] is not None)
        print(f"  {each['verdict']} {place or 'the whole'}: {printable(each['reason'])}")
    value["decisions"] = [f"{what.replace('_', ' ')}: {n}" for what, n in report.worth.items()]
    for title in (*lists, "notes", "decisions"):
        if value[title]: print(f"{title.replace('_', ' ')}:", *map(printable, value[title]), sep="\n  ")

def some(number, one, more=None): return f"{number:,} {one if number == 1 else more or one + 's'}"
def printable(text): return "".join(c if c.isprintable() else "?" for c in text)

# --- the bundle (EVIDENCE.md, "Verification")

LIMITS = {"stream.sdcseg": 2**32, "disclosure.json": 67_108_864, "receipts": 131_072, "callers": 131_072,
          "bagit.txt": 65_536, "bag-info.txt": 65_536}
FILE = re.compile(r"data/chains/([0-9a-f]{64})/(?:(stream\.sdcseg|disclosure\.json)|(receipts|callers)/[^/]+)")
POLICY_COPY = re.compile(r"data/policies/([0-9a-f]{64})\.tar\.gz")
BAGIT = b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"
MANIFEST, TAGS = "manifest-sha256.txt", "tagmanifest-sha256.txt"

def judge_bundle(file, report, trust):
    try: Bundle(file, report, trust).judge()
    except Flaw as flaw: report.add(flaw.args[0], None, None, None, flaw.args[1])

class Bundle:
    def __init__(self, file, report, trust): self.members, self.report, self.trust = read_zip(file), report, trust

    def say(self, reason, chain=None): self.report.add(MALFORMED, chain, None, None, reason)

    def small(self, name, kind=None):
        """A content that is read whole; None where it cannot be used."""
        member = self.members.get(name)
        if member is None or member.size > LIMITS.get(kind or name, 16 << 20):
            return self.say(f"{name} is missing or too long")
        data = io.BufferedReader(member).read()
        return None if member.flaw else data

    def judge(self):
        tags = {name: self.small(name) for name in (MANIFEST, TAGS, "bagit.txt", "bag-info.txt")}
        if tags["bagit.txt"] != BAGIT: self.say("bagit.txt is not as it must be")
        for name in self.members:
            if not name.startswith("data/") and name not in tags: self.say(f"{name} stands outside of data/")
        case = self.case()
        openings, files = self.openings(case), self.files([claim["chain"] for claim in case["chains"]])
        for claim in case["chains"]:
            if "stream.sdcseg" in files[claim["chain"]]: self.chain(claim, case, files[claim["chain"]], openings)
        known = {row["chain"] for row in self.trust["chains"]} if self.trust else set()
        self.report.not_checked["chains of the trust file that this bundle does not hold"] += len(known - files.keys())
        for name, member in self.members.items():
            while next(member.content, None) is not None: pass
            if member.flaw: self.say(f"{name} is not what the directory says")
            elif (copy := POLICY_COPY.fullmatch(name)) and copy[1] != member.digest:
                self.report.add(TAMPERED, None, None, None, f"{name} is not the policy that it is called")
        payload = {name for name in self.members if name.startswith("data/")}
        for name, listed in (MANIFEST, payload), (TAGS, (self.members.keys() & tags.keys()) - {TAGS}):
            due = "".join(f"{self.members[each].digest}  {each}\n" for each in sorted(listed)).encode()
            if tags[name] not in (None, due): self.say(f"{name} is not that of the contents")
        whose = "everything" if case["agents"] is None else f"what concerns {', '.join(case['agents'][:20])} alone"
        self.report.notes.insert(0, f"it is about {whose}, from {case['from']} to {case['to']}, as the exporter chose")
        self.report.checked[f"container, case.json, and the digests of {some(len(self.members), 'file')}"] += 1
        self.report.not_checked["files in the bundle that say the same in other forms, or that belong to no chain"] += 1

    def case(self):
        data = self.small("data/case.json")
        form(data is not None, "no case.json that can be used")
        case = read_json(data, "case")
        chains, agents = [claim["chain"] for claim in case["chains"]], case["agents"] or []
        start, end = (time_ns(case[name]) for name in ("from", "to"))
        form(start < end and rises(chains) and rises(agents), "case.json: out of order")
        form(max(len(chains), len(agents)) <= 1024 and len(case["statements"]) <= 16_384, "case.json: too much of it")
        for claim in case["chains"]:
            form(claim["first_segment"] <= claim["last_segment"], "case.json: segments")
            form(not claim["through"] or start < time_ns(claim["through"]) <= end, "case.json: through")
        return case

    def openings(self, case):  # by chain: openings by seq, and whether they are complete
        if "data/openings.json" not in self.members: return {}
        if case["profile"] == "external": return self.say("openings in an external case") or {}
        try: return read_openings(self.small("data/openings.json") or b"", {claim["chain"] for claim in case["chains"]})
        except Flaw as flaw: return self.say(f"openings.json: {flaw.args[1]}") or {}

    def files(self, chains):  # the names of each chain's files by their kind
        files = {chain: {"receipts": [], "callers": []} for chain in chains}
        for name, member in self.members.items():
            found = FILE.fullmatch(name)
            kind = found and (found[2] or found[3])
            if found and found[1] in files and member.size <= LIMITS[kind]:
                files[found[1]].setdefault(kind, []).append(name)
            elif name.startswith("data/chains/"): self.say(f"{name} does not belong there, or is too long")
        for chain, kinds in files.items():
            if "stream.sdcseg" not in kinds: self.say(f"chain {chain} has no stream")
            if len(kinds["receipts"]) + len(kinds["callers"]) > 4_096: self.say(f"chain {chain}: too many receipts")
        return files

    def chain(self, claim, case, files, openings):
        read, keys = {}, []
        for kind in ("receipts", "callers", "disclosure.json"):
            found = [self.small(name, kind) for name in sorted(files.get(kind, ()))[:4_096]]
            read[kind] = [data for data in found if data is not None]
        for data in read["disclosure.json"]:
            try: keys = read_disclosure(data, claim["chain"])
            except Flaw as flaw: self.say(f"disclosure.json: {flaw.args[1]}", claim["chain"])
        held = self.trust, keys, read["callers"], read["receipts"], openings
        stream = io.BufferedReader(self.members[files["stream.sdcseg"][0]], 1 << 16)
        judge_stream(stream.read, self.report, *held, claim, case)

def read_openings(data, chains=None):
    rows = read_json(data, "openings")["chains"]
    form(len({row["chain"] for row in rows}) == len(rows), "one chain twice")
    form(chains is None or all(row["chain"] in chains for row in rows), "of another chain")
    form(all(rises([each["seq"] for each in row["entries"]]) for row in rows), "entries that do not rise")
    return {row["chain"]: ({e["seq"]: unbase64(e["opening"]) for e in row["entries"]}, row["complete"]) for row in rows}

def rises(items): return all(a < b for a, b in zip(items, items[1:]))

def read_disclosure(data, chain):  # the keys that it gives of this chain
    value = read_json(data, "disclosure")
    form(len({key["segment"] for key in value["segments"]}) == len(value["segments"]), "one segment twice")
    return value["segments"] if value["chain"] == chain else []

# --- its zip file (EVIDENCE.md, "Container"): one shape, written here anew from what may differ and compared

PART = "[A-Za-z0-9_-](?:[A-Za-z0-9._-]*[A-Za-z0-9_-])?"
NAME = re.compile(f"(?!.{{241}})(?:{PART}/)*{PART}")
CENTRAL, LOCAL, END = struct.Struct("<I6H3I5H2I"), struct.Struct("<I5H3I2H"), struct.Struct("<IHHHHIIH")

def read_zip(file):
    whole = file.seek(0, 2)
    form(22 <= whole <= 4_294_967_294, "a bundle too short or too long")
    file.seek(whole - 22)
    end = END.unpack(file.read(22))
    count, length, start = end[3], end[5], end[6]
    form(end == (0x06054B50, 0, 0, count, count, length, start, 0) and start + length + 22 == whole, "the end record")
    form(count <= 16_384 and length <= count * 286, "too many members")
    file.seek(start)
    directory, members, at, offset = file.read(length), {}, 0, 0
    for _ in range(count):
        form(at + 46 <= length, "the directory")
        row = CENTRAL.unpack_from(directory, at)
        method, crc, packed, size, name_length = row[4], *row[7:11]
        shared = 20, 0, method, 0, 33, crc, packed, size, name_length, 0
        form(row == (0x02014B50, 20, *shared, 0, 0, 0, 0, offset) and method in (0, 8), "a central header")
        form((method or packed == size) and size <= 1_048_576 + 200 * packed, "a size or an expansion")
        raw = directory[at + 46:at + 46 + name_length]
        local, name = LOCAL.pack(0x04034B50, *shared) + raw, raw.decode("latin-1")
        file.seek(offset)
        form(file.read(len(local)) == local and len(raw) == name_length, "a local header")
        form(NAME.fullmatch(name) and name not in members, f"a name: {name[:80]!r}")
        form(not method or not name.endswith("/stream.sdcseg"), "a stream that is deflated")
        members[name] = Member(file, offset + len(local), method, crc, packed, size)
        at, offset = at + 46 + name_length, offset + len(local) + packed
    form((at, offset) == (length, start), "bytes that belong to no member")
    lower = {name.lower() for name in members}
    below = any(name[:i] in lower for name in lower for i, c in enumerate(name) if c == "/")
    form(len(lower) == len(members) and not below, "two names that are one")
    return members

class Member(io.RawIOBase):
    """A content, read once, as a stream. At its end `digest` and `flaw` say what it is, and whether that was said."""

    def __init__(self, *given):
        self.size, self.content, self.rest, self.digest, self.flaw = given[-1], self.read_on(*given), b"", None, False

    def readable(self): return True

    def readinto(self, buffer):
        data = self.rest or next(self.content, b"")
        count = min(len(buffer), len(data))
        buffer[:count], self.rest = data[:count], data[count:]
        return count

    def read_on(self, file, at, method, crc, packed, size):
        end, inflate, tail, given, found, whole = at + packed, zlib.decompressobj(-15), b"", 0, 0, hashlib.sha256()
        while given <= size:
            file.seek(at)
            raw = tail or file.read(min(65_536, end - at))
            at = at if tail else at + len(raw)
            try: data = inflate.decompress(raw, 65_536) if method else raw
            except zlib.error: break
            tail, given, found = inflate.unconsumed_tail, given + len(data), zlib.crc32(data, found)
            whole.update(data)
            if data and given <= size: yield data
            if inflate.eof or not (raw or data): break
        ended = inflate.eof and not inflate.unused_data or not method
        self.flaw, self.digest = (at, given, found) != (end, size, crc) or not ended, whole.hexdigest()

# --- a stream (LEDGER.md, "Stream"; EVIDENCE.md, "Stream")

LARGEST = {2: MAX_NOTE, 4: MAX_NOTE, 6: MAX_NOTE, 7: MAX_NOTE, 8: MAX_PAYLOAD, 10: MAX_NOTE, 12: 4_000_000}
DAYS = {"default": 0, "eu-ai-act": 184, "hipaa": 2_192, "sec-17a-4": 2_192}  # retention profiles

def records(read):
    """kind u8, length u32, body. Kind -1: what can no longer be read; None: the end."""
    try:
        form(read(8) == b"SDCSEG\0\1", "not a stream of this format")
        while head := read(5):
            kind, length = head[0], int.from_bytes(head[1:], "big")
            form(len(head) == 5 and 1 <= kind <= 12 and length <= LARGEST.get(kind, MAX_RECORD), "no record")
            body = read(length)
            form(len(body) == length, "a record cut short")
            yield kind, body
    except Flaw as flaw: yield -1, flaw
    while True: yield None, b""

class Segment:
    """What is computed of the segment that is being read."""

    def __init__(self, first, keys):
        self.first, self.count, self.start, self.last, self.tree = first, 0, None, None, []
        self.headed, self.head, self.head_seq = False, None, -1  # whether a head was read; its hash, if it is believed
        self.rows = bytearray()  # of each entry leaf, wall_ns and what a head may say of it: 72 bytes
        # Disclosed keys, the next entry's, and what they say; which counts once the seal is found to commit to them.
        self.keys, self.key, self.later, self.bare = keys, keys and keys[0], [], None

class Remembered(OrderedDict):
    """Something of the last decisions, by seq. Nothing is known of what was before `floor`."""

    def __init__(self, most): self.most, self.floor = most, 0

    def keep(self, seq, what):
        self[seq] = what
        if len(self) > self.most: self.floor = self.popitem(last=False)[0] + 1

def judge_stream(read, report, trust, keys, callers, logged, openings, claim=None, case=None):
    chain = claim and claim["chain"]
    def add(verdict, segment, seq, reason): report.add(verdict, chain, segment, seq, reason)
    stream = Stream(add, report, trust or {}, keys, openings, claim, case)
    stream.hold(callers, logged)
    stream.read(read)
    report.chains.append((chain or stream.chain and stream.chain.hex(), stream.entries, stream.segments))

class Stream:
    def __init__(self, add, report, trust, keys, openings, claim, case):
        self.add, self.report, self.trust, self.claim, self.case = add, report, trust, claim, case
        self.keys = {key["segment"]: (unhex(key["mac_key"]), unhex(key["tag_key"])) for key in keys}
        self.all_openings, self.agents = openings, case and case["agents"]
        # what is due next, and of what was before: leaf, hash of the seal, commitments of POLICY and REGISTRY, clock
        self.chain = self.identity = self.genesis = self.key = self.note = self.first_note = None  # None: not known
        self.epoch, self.segment, self.seq, self.reason, self.due, self.first_segment = -1, 0, 0, "close", [], 0
        self.leaf = self.seal = self.policy = self.registry = ZERO
        self.open = self.context = self.broken = self.fresh = False
        self.base = self.mono = self.wall = self.back = self.suspect = None
        self.now, self.last, self.ends = Segment(0, None), (0, 0), None
        self.entries = self.segments = self.tags = self.crashed = self.bares = 0
        # what later entries, the log and the case are held against
        self.registries, self.registries_known, self.known_from, self.bare = [], True, 0, bytearray()
        self.decided, self.waiting = Remembered(32_768), Remembered(10_000)
        self.attached, self.grants, self.acts, self.runs, self.losses, self.groups = {}, {}, {}, [], [], {}
        self.given, self.complete, self.unopened, self.erased = {}, False, {}, set()
        self.heads, self.claims, self.wanted, self.told, self.seen, self.spans = [], [], set(), {}, {}, {}
        self.sealed, self.sealed_at, self.last_sealed, self.opened_at, self.reached = None, None, -1, None, -1

    def attempt(self, place, step, *given):
        """A flaw found in this step is reported there, and reading goes on."""
        try: return step(*given)
        except Flaw as flaw: self.add(flaw.args[0], *place, flaw.args[1])

    def unchecked(self, what): self.report.not_checked[what] += 1
    def name(self, what="identity"): return f"sidecar.v1/{(self.chain or ZERO).hex()}/{what}"

    def read(self, read):
        self.records = records(read)
        self.ahead = next(self.records)
        try:
            self.start()
            while self.ahead[0] is not None: self.take(*self.next())
        except Flaw as flaw:
            self.broken = True
            self.add(flaw.args[0], *(self.ends or (self.segment, self.seq)), flaw.args[1])
        self.end()

    def next(self, kind=None):
        now, self.ahead = self.ahead, next(self.records)
        form(kind in (None, now[0]), "context that is missing or out of order")
        return now

    def take(self, kind, body):
        """One record. What cannot stand where it stands is MALFORMED and set aside."""
        if kind == -1: raise body
        form(kind not in (8, 11), "an attachment or authority note that stands elsewhere")
        if kind in (6, 7) and (self.open is False or kind == 6 and self.now.headed):
            self.add(MALFORMED, self.segment, None, "a second head, or a head or seal where no segment is open")
        elif kind in (5, 9): self.take_entry(kind, body)
        elif kind in (2, 6, 7): {2: self.take_epoch, 6: self.take_head, 7: self.take_seal}[kind](body)
        else: self.add(MALFORMED, self.segment, self.seq, f"a record of kind {kind} where none can be")

    # what a stream starts with: context, attachments (rule 9), authority notes (rule 13)

    def start(self):
        if self.claim and self.claim["first_segment"]: self.window(self.claim["first_segment"])
        left = 16 << 20
        for kind, found in (8, self.attached), (11, self.grants):
            while self.ahead[0] == kind:
                body = self.next()[1]
                left -= len(body) * (kind == 11)
                form(not found or sha(body) > next(reversed(found)), "attachments or authority notes out of order")
                form(len(self.grants) < 4_096 and left >= 0, "too many authority notes")
                found[sha(body)] = body if kind == 11 else b""
        if self.genesis: self.read_grants()

    def window(self, claimed):
        """The context of a window. Whatever is wrong in it ends the judgement of the stream."""
        self.context, self.registries_known, self.ends = True, False, (claimed, None)
        self.learn(self.next(1)[1])
        self.attempt((0, 0), self.check_trust)
        text, note, signature = read_one(self.next(2)[1], "epoch")
        self.epoch = note["epoch"]
        self.check_epoch(text, note, signature, {})
        self.segment, self.seq, self.leaf, self.seal = (note[name] for name in ("segment", "seq", "leaf", "seal"))
        opening, before = self.next()[1] if self.ahead[0] == 3 else None, None
        while self.ahead[0] == 12: self.registries.append(read_registry(self.next()[1]))
        form(len(self.registries) <= 2, "more than two context registries")
        while self.ahead[0] == 10: before = self.context_seal(self.next()[1], note, before)
        self.ends = claimed, None
        form(before and self.ahead[0] not in (-1, None, 1, 2, 3, 4, 10, 12), "context not whole, or out of order")
        form((opening is None) == (self.segment == note["segment"]), "OPEN is missing, or must not be there")
        if opening is not None: self.check_open(read_payload("OPEN", opening))
        self.ends, self.first_segment, self.known_from, self.opened_at = None, self.segment, self.seq, before["time"]
        self.fresh, self.last = opening is None, (self.segment - 1, self.seq - 1)
        self.open, self.now, self.due = True, Segment(self.seq, self.keys.get(self.segment)), ["OPEN"] * self.fresh

    def context_seal(self, body, note, before):
        first = before is None and note["segment"] > 0  # the seal before the epoch
        place = self.segment - first
        self.ends = place, None
        text, v, signature = read_one(body, "seal")
        hashed = sha(b"sidecar/v1/seal\0", text.encode())
        if first:
            due = {"chain": self.chain, "segment": place, "epoch": note["epoch"] - 1, "last": note["leaf"]}
            need(hashed == note["seal"] and v["first"] + v["count"] == note["seq"], "not what the epoch note continues")
            need(v["reason"] in ("close", "crash"), "a seal that ends no epoch")
            need(note["recovered"] == (place if v["reason"] == "crash" else None), "what was recovered did not crash")
        else:
            check_signer(text, signature, self.name(f"segment/{place}"), self.key)
            due = {"chain": self.chain, "segment": place, "epoch": note["epoch"], "first": self.seq, "prev": self.seal}
            due |= {} if v["count"] else {"root": sha(), "last": self.leaf}
            need(v["next"], "a seal that ends the epoch")
        agree(v, due)
        if not first:
            self.segment, self.seq, self.leaf = place + 1, v["first"] + v["count"], v["last"]
            self.seal, self.key = hashed, v["next"]
        self.policy, self.registry, self.sealed_at, self.last_sealed = v["policy"], v["registry"], v["time"], place
        if v["count"]: self.wall, self.mono = v["wall_last"], None if first else v["mono_last"]
        return v

    # rule 3: chain, epochs, OPEN

    def learn(self, payload):
        self.chain = sha(b"sidecar/v1/chain\0", payload)
        self.genesis = read_payload("GENESIS", payload)
        self.identity = unhex(self.genesis["identity"])

    def check_trust(self):
        found, self.complete = self.all_openings.get(self.chain.hex(), ({}, False))
        self.given = dict(found)
        pinned = {each["chain"]: unhex(each["identity"]) for each in self.trust.get("chains", ())}
        found = pinned.get(self.chain.hex())
        need(not pinned or found and self.identity in (None, found), "not a chain and identity key of the trust file")
        known, custodians = self.trust.get("custodians"), self.genesis["custodians"] if self.genesis else ()
        need(not known or all(key_id(c["spki"]) in known for c in custodians), "a custodian that the trust file lacks")

    def take_epoch(self, body):
        here, self.note = (self.segment, self.seq), None
        found = self.attempt(here, read_one, body, "epoch")
        due = {"epoch": self.epoch + 1, "segment": self.segment, "seq": self.seq, "leaf": self.leaf, "seal": self.seal}
        due |= {"recovered": self.segment - 1 if self.reason == "crash" else None} if self.reason else {}
        if self.open:
            seq = self.seq if found and found[1]["seq"] > self.seq else None
            self.add(TAMPERED, self.segment, seq, "an epoch note, and no seal ends the epoch before")
            if self.now.count or self.now.headed or self.now.head: self.end_segment(None, False)
            self.segment, self.seal, due = self.segment + 1, None, {}
        self.epoch, self.key, self.note_hash, first = self.epoch + 1, None, b"", self.epoch < 0
        due = {name: value for name, value in due.items() if value is not None or name == "recovered"}
        if first: self.first_note = found  # its key is in GENESIS, the entry that follows
        elif found: self.attempt((self.segment, self.seq), self.check_epoch, *found, due)
        if v := self.note:
            if v["seq"] != self.seq: self.gap(v["seq"])
            self.epoch, self.segment, self.leaf, self.seal = (v[n] for n in ("epoch", "segment", "leaf", "seal"))
        self.due = ["GENESIS", "OPEN"] if self.seq == 0 else ["OPEN"]
        self.base, self.mono, self.fresh, self.open = None, None, True, True
        self.now = Segment(self.seq, self.keys.get(self.segment))

    def check_epoch(self, text, v, signature, due):
        """`due`: what its lines must say to continue what was before."""
        check_signer(text, signature, self.name(), self.identity)
        if self.identity is None: return self.unchecked("notes signed by keys that nothing names")
        self.note, self.note_hash, self.key = v, sha(b"sidecar/v1/epoch\0", text.encode()), v["key"]
        self.tell("epoch", v["epoch"], self.note_hash, v["time"])
        agree(v, {"chain": self.chain})
        if self.genesis:
            each = [bytes([1 if c["kem"] == "hpke" else 2]) + sha(unbase64(c["spki"]))
                    for c in self.genesis["custodians"]]
            head = bytes([1 if self.genesis["mode"] == "any" else 2, len(each)])
            agree(v, {"custodians": sha(b"sidecar/v1/custodians\0", head, *each), "log": self.genesis["log"] or None})
        agree(v, due)

    def check_open(self, v):
        if not self.note or not self.genesis: return
        seeds = [unhex(seed["commit"]) + framed(unbase64(seed["sealed"])) for seed in v["seeds"]]
        need(v["epoch_note"] == self.note_hash.hex(), "OPEN is of another epoch note")
        need(len(seeds) == len(self.genesis["custodians"]), "not one seed for each custodian")
        agree(self.note, {"seeds": sha(b"sidecar/v1/seeds\0", u32(len(seeds)), *seeds)})

    def tell(self, kind, place, name, ns):
        """The hash of a well-signed epoch note or seal, if something is to be held against it."""
        if (kind, place) in self.wanted: self.told.setdefault((kind, place), {})[name] = ns

    # rules 1 and 2: entries, their place, links and blame

    def take_entry(self, kind, body):
        self.entries += 1
        if len(body) < 249 if kind == 5 else len(body) != 216:
            self.add(MALFORMED, self.segment, self.seq, "an entry cut short")
            return self.gap(self.seq + 1)
        h = Header._make(LAYOUT.unpack_from(body))
        if self.now.headed: self.add(MALFORMED, self.segment, self.seq, "an entry after the head")
        self.now.headed = False
        if self.open is False:
            verdict, self.epoch = MALFORMED if self.epoch < 0 else TAMPERED, self.epoch + 1
            self.add(verdict, self.segment, self.seq, "an entry where an epoch note is due")
            self.key, self.note, self.now = None, None, Segment(self.seq, None)
        self.open = True
        if self.chain is None:
            self.chain = h.chain
            try: self.learn(stored_payload(h, body)) if kind == 5 else None
            except Flaw: pass
        if not self.in_place(h): return
        now, here, leaf = self.now, (self.segment, self.seq), sha(b"\0", body[:216])
        if self.seq == 0: self.begin()
        self.link(None if self.leaf is None else h.prev == self.leaf, here)
        self.attempt(here, self.clock, h, here)
        v = self.attempt(here, self.read_entry, h, kind, body, here)
        said = UNKNOWN if kind == 9 else ZERO
        if v and h.type == 3: said = decided(v["decision_id"], v["effect"], v["request_digest"])
        if v: self.attempt(here, self.judge, h, v)
        if now.key is not None:
            if mac(now.key, b"sidecar/v1/entry\0", body[:184]) != body[184:216]:
                now.later.append((TAMPERED, self.seq, "its tag is wrong"))
            now.key = mac(now.key, b"sidecar/v1/evolve\0")
        if now.keys and v and h.type in (3, 4, 5) and any(h.tag):
            if h.tag != agent_tag(now.keys[1], h.seq, v["agent"]["id"]):
                now.later.append((TAMPERED, self.seq, "an agent tag of another"))
        if h.type == 7: self.policy = h.commit
        if h.type == 11: self.registry = h.commit
        if self.seq in self.wanted:
            right = not v or h.type != 3 or v["sealed"] or request_digest(v).hex() == v["request_digest"]
            self.seen[here] = leaf, said, right
        now.start, now.last, now.count = now.start or h, h, now.count + 1
        grow(now.tree, leaf)
        now.rows += leaf + h.wall.to_bytes(8, "big", signed=True) + said
        self.bare.append(kind == 9)
        self.leaf, self.seq, self.last, self.reached = leaf, self.seq + 1, here, max(self.reached, self.segment)

    def begin(self):  # seq 0, with what waited for GENESIS
        self.attempt((0, 0), self.check_trust)
        if self.genesis: self.read_grants()
        due = {"epoch": 0, "segment": 0, "seq": 0, "leaf": ZERO, "seal": ZERO, "recovered": None}
        if self.first_note: self.attempt((0, 0), self.check_epoch, *self.first_note, due)

    def read_entry(self, h, kind, body, here):
        due = self.due.pop(0) if self.due else None
        check_header(h)
        name, last = TYPES[h.type], self.now.last
        if name != due if due else name in ("GENESIS", "OPEN"): self.add(TAMPERED, *here, f"a {name} that is not due")
        if last and last.type == 10: self.add(TAMPERED, *here, "an entry after CLOSE")
        if kind == 9: return self.take_bare(h)
        return self.put_back(h, name, read_payload(name, stored_payload(h, body)))

    def in_place(self, h):
        """Whether it is judged where it stands: it is due, was edited in its place, or others are missing before it."""
        if (h.chain, h.epoch, h.segment, h.seq) == (self.chain, self.epoch, self.segment, self.seq): return True
        kind, body = self.ahead
        entry = len(body) >= 249 if kind == 5 else kind == 9 and len(body) == 216
        following = LAYOUT.unpack_from(body) if entry else None
        try: segment = following[6] if entry else read_one(body, {6: "head", 7: "seal"}[kind])[1]["segment"]
        except (Flaw, KeyError, TypeError): segment = None
        if h.segment > self.segment and h.seq >= self.seq and h.chain == self.chain and segment == h.segment:
            self.missing(h.segment, h.seq)
            self.epoch, self.now = h.epoch, Segment(self.seq, None)
        elif following and following[5] == self.seq + 1 or not entry and self.leaf is not None and h.prev == self.leaf:
            self.add(TAMPERED, self.segment, self.seq, "its header names another place or chain")
        elif h.seq > self.seq:
            self.add(TAMPERED, self.segment, self.seq, f"the entries up to {h.seq} are missing")
            self.gap(h.seq)
        else:
            self.add(TAMPERED, self.segment, self.seq, f"entry {h.seq} stands here")
            return False
        return True

    def missing(self, segment, seq):
        """Something is missing before this segment's entry `seq`."""
        reason = f"before segment {segment}, entry {seq} something is missing"
        self.add(TAMPERED, self.segment, self.seq if seq > self.seq else None, reason)
        if self.now.count or self.now.headed or self.now.head: self.end_segment(None, False)
        self.segment, self.key, self.open, self.seal, self.policy, self.registry = segment, None, True, None, None, None
        self.gap(seq)

    def gap(self, seq):
        if seq > self.seq:
            self.link(None)
            self.leaf = None
        self.seq, self.known_from, self.now.key, self.bare = seq, seq, None, bytearray()
        self.waiting.clear()
        self.decided.clear()

    def link(self, holds, this=None):
        """Rule 2: whether what comes now (an entry; without `this` a head or seal) follows the entry before. If not,
        that one is condemned, unless the next does not follow this one either."""
        if self.suspect: self.add(TAMPERED, *self.suspect[holds is False], "what comes after it follows another entry")
        elif holds is False and not this: self.add(TAMPERED, *self.last, "another entry was signed in its place")
        self.suspect = (self.last, this) if holds is False and this and not self.suspect else None

    def clock(self, h, here):  # rule 6
        off, mono, marked = h.wall - h.mono, self.mono, h.type == 9
        if self.back and not marked: self.add(CLOCK, *self.back, "the wall clock is behind the end of the epoch before")
        self.back = here if self.fresh and self.wall is not None and h.wall < self.wall - SECOND else None
        jumped = not self.fresh and self.base is not None and abs(off - self.base) > SECOND
        if self.fresh or marked or jumped: self.base = off
        self.mono, self.wall, self.fresh = h.mono, h.wall, False
        need(mono is None or h.mono > mono, "the boot-time clock does not rise")
        need(marked or not jumped, "the wall clock stepped, and no CLOCK entry says so", CLOCK)
        if marked and len(self.report.notes) < MAX_FINDINGS:
            self.report.notes.append(f"segment {here[0]}, entry {here[1]}: the wall clock stepped, and is on record")

    def take_bare(self, h):  # EVIDENCE.md, "Bare entry"
        self.bares += 1
        if h.type == 11: self.registries, self.registries_known = [], False
        covering = [i for i, (run, _, _) in enumerate(self.runs) if run["first"] <= self.segment <= run["last"]]
        if covering and h.type in (3, 4, 5, 6):
            self.groups.setdefault(tuple(covering), [(self.segment, self.seq), 0])[1] = self.segment
            return
        need(self.agents and h.type in (3, 4, 5, 6, 11), "its payload is not here, and nothing allows that", INCOMPLETE)
        if any(h.tag):
            now = self.now
            now.bare = self.seq if now.bare is None else now.bare
            if now.keys and any(h.tag == agent_tag(now.keys[1], h.seq, agent) for agent in self.agents):
                now.later.append((INCOMPLETE, self.seq, "an entry of an agent of this case was left out"))

    # rules 4 and 5: heads and seals

    def take_head(self, body):
        self.now.headed = self.open = True
        v = self.attempt((self.segment, self.seq - 1 if self.now.count else None), self.read_head, body)
        here = [self.chain, self.epoch, self.segment]
        if v and [v[n] for n in ("chain", "epoch", "segment")] == here and v["seq"] >= self.now.first:
            self.attempt((self.segment, v["seq"]), self.judge_head, v)
        elif v: self.add(TAMPERED, self.segment, None, "the head is of another place")

    def read_head(self, body):
        text, v, signature = read_one(body, "head")
        check_signer(text, signature, self.name(f"segment/{self.segment}"), self.key)
        if self.key is None: self.unchecked("notes signed by keys that nothing names")
        self.now.head, self.reached = sha(b"sidecar/v1/head\0", text.encode()), max(self.reached, self.segment)
        return v

    def judge_head(self, v):
        self.now.head_seq = v["seq"]
        need(v["seq"] < self.seq, "it was signed further than the entries that are here", INCOMPLETE)
        row = self.now.rows[72 * (v["seq"] - self.seq):][:72]
        if v["seq"] == self.seq - 1: self.link(v["leaf"] == row[:32])
        of_it = v["leaf"] == row[:32] and v["time"] == int.from_bytes(row[32:40], "big", signed=True)
        need(of_it, "the head is of another entry")
        need(not v["decision"] or bytes(row[40:]) in (decided_by(v), UNKNOWN), "the head says another decision")

    def take_seal(self, body):
        got = []  # its lines, if it is of this chain; its hash, if it is not wrongly signed
        self.attempt((self.segment, None), self.read_seal, body, got)
        v, hashed = [*got, None, None][:2]
        trusted = hashed is not None and (self.identity if v["reason"] == "crash" else self.key) is not None
        self.due = []
        self.end_segment(v, trusted)
        self.seal, self.key, self.reason = hashed, *((v["next"], v["reason"]) if hashed else (None, None))
        if trusted:
            self.leaf, self.policy, self.registry = (v[name] for name in ("last", "policy", "registry"))
            self.seq = v["first"] + v["count"]
            self.sealed = self.segment, self.seq, hashed
            self.sealed_at, self.last_sealed = v["time"], v["segment"]
            self.tell("seal", self.segment, hashed, v["time"])
        self.segment, self.open = self.segment + 1, self.reason and self.reason in ("count", "time")  # None: not known
        self.now = Segment(self.seq, self.keys.get(self.segment))

    def read_seal(self, body, got):
        text, v, signature = read_one(body, "seal")
        crash = v["reason"] == "crash"
        here, there = (self.name("identity" if crash else f"segment/{n}") for n in (self.segment, v["segment"]))
        later = v["segment"] > self.segment and signature[0] == there
        form(later or signature[0] == here, "a seal signed under another name")
        got.append(v)
        if later and not (crash and self.identity and not ed25519(self.identity, signature[2], text.encode())):
            self.missing(v["segment"], v["first"])
            self.now = Segment(v["first"], None)
        now, key = self.now, self.identity if crash else self.key
        if key is None: self.unchecked("notes signed by keys that nothing names")
        check_signer(text, signature, signature[0], key)
        got.append(sha(b"sidecar/v1/seal\0", text.encode()))
        if self.due and (now.count or not crash):
            self.add(TAMPERED, self.segment, self.seq, f"{self.due[0]} is missing")
        if not crash and (now.last is not None and now.last.type == 10) != (v["reason"] == "close"):
            seq = self.seq - 1 if now.count else None
            self.add(TAMPERED, self.segment, seq, "CLOSE and the seal's reason do not go together")
        clock = [h and getattr(h, name) for name in ("wall", "mono") for h in (now.start, now.last)]
        agree(v, {"chain": self.chain, "epoch": self.epoch, "segment": self.segment, "first": now.first,
                  "count": now.count, "root": top(now.tree), "head": now.head,
                  **dict(zip(("wall_first", "wall_last", "mono_first", "mono_last"), clock))})
        known = {"prev": self.seal, "policy": self.policy, "registry": self.registry}
        known |= {} if now.count else {"last": self.leaf}
        agree(v, {name: value for name, value in known.items() if value is not None})
        need(not crash or not now.count or now.head_seq == self.seq - 1, "its head is not of its last entry")

    def end_segment(self, v, trusted):
        now, self.segments, self.reached = self.now, self.segments + 1, max(self.reached, self.segment)
        self.crashed += v is not None and v["reason"] == "crash"
        if trusted and now.count and v["first"] + v["count"] == self.seq: self.link(self.leaf in (None, v["last"]))
        self.settle(v if trusted else None)
        self.span()

    def span(self):
        """What receipts of callers for this segment are held against."""
        if ("seal", self.segment) in self.wanted and self.chain:
            self.spans[self.segment] = self.key, self.epoch, self.now.first, self.seq

    def settle(self, v):
        """Rule 7: a disclosed key counts where a well-signed seal commits to it."""
        now, commits = self.now, bool(v and v["mac_key"])
        labels = b"sidecar/v1/key\0", b"sidecar/v1/tag-key\0"
        good = bool(now.keys) and commits and tuple(map(sha, labels, now.keys)) == (v["mac_key"], v["tag_key"])
        if now.keys and commits and not good: self.add(TAMPERED, self.segment, None, "other keys were disclosed")
        if now.keys and not commits: self.unchecked("tags by disclosed keys of segments whose seal commits to none")
        if good:
            self.tags += now.count
            for verdict, seq, reason in now.later: self.add(verdict, self.segment, seq, reason)
        elif now.bare is not None:
            self.add(INCOMPLETE, self.segment, now.bare, "no tag key shows whose the withheld entries are")

    def end(self):
        """The stream is at its end (rules 4, 5, 9), and held against all else."""
        now = self.now
        self.link(None)
        if self.back: self.add(CLOCK, *self.back, "the wall clock is behind the end of the epoch before")
        if now.count:
            self.settle(None)
            self.segments += 1
        if self.open: self.span()
        if self.broken: self.unchecked("whatever follows the place where the stream could no longer be read")
        elif not self.entries and not self.context: self.add(INCOMPLETE, 0, 0, "no entry at all, not even GENESIS")
        else: self.check_end(now)
        self.finish()

    def check_end(self, now):
        if self.due: self.add(INCOMPLETE, self.segment, self.seq, f"the stream ends where {self.due[0]} is due")
        if now.count and not now.headed and not now.head:
            self.add(TAMPERED, self.segment, now.first, "an open segment without a head")
        first = max(now.first, now.head_seq + 1)
        for seq in range(first, min(self.seq, first + MAX_FINDINGS)) if now.head else ():
            self.add(UNANCHORED, self.segment, seq, "no head covers it")

    # rule 14: personal fields

    def put_back(self, h, name, v):
        """The payload as it was recorded, where its opening is here; else `sealed` in it says what is not known."""
        opening, personal = self.given.pop(h.seq, None), v.get("personal") if name in PERSONAL else None
        form(name not in PERSONAL or "personal" not in v or check("personal")(personal), "sealed fields out of order")
        fields, texts = personal["fields"] if personal else [], {}
        v["sealed"] = {f["in"] for f in fields}
        form(empty(name, v) <= v["sealed"], "an empty digest that is not sealed")
        if personal is None and not h.fields:
            need(opening is None, "an opening of an entry that has no sealed fields")
            return v
        need(len(fields) == h.fields, "another number of sealed fields than the header says")
        order = [(f["in"], (-1 if f["at"] is None else f["at"]) + byte) for f in fields for byte in (0, 1)]
        form(rises(order), "sealed fields out of order, or one within another")
        form(name != "DECISION" or ("/request/idempotency_key", -1) in order, "its idempotency key is not sealed")
        for f in fields:
            place, key = find(v, f["in"])
            form(PERSONAL[name][f["at"] is None].fullmatch(f["in"]) and isinstance(place[key], str), "no field's place")
            at, text = f["at"], texts.get(f["in"]) or texts.setdefault(f["in"], place[key].encode())
            form(text[at:at + 2] == b'""' if at is not None else not text and not f["pointer"], "no field is there")
        if opening is None:
            if len(self.unopened) < 100_000: self.unopened.setdefault(personal["subject"], (self.segment, self.seq))
            return v
        values, at, v["sealed"] = [], 0, set()
        for index, f in enumerate(fields):
            size = int.from_bytes(opening[at + 32:at + 36], "big")
            salt, value, at = opening[at:at + 32], opening[at + 36:at + 36 + size], at + 36 + size
            place = h.seq.to_bytes(8, "big") + u32(index)
            need(sha(b"sidecar/v1/field\0", self.chain, place, salt, value).hex() == f["commit"], "not its opening")
            values.append(value)
        need(at == len(opening), "an opening with something after it")
        for where, group in itertools.groupby(zip(fields, values), lambda pair: pair[0]["in"]):
            (place, key), pieces, end = find(v, where), [], 0
            for f, value in group:
                pieces += texts[where][end:f["at"] or 0], value
                parsed, end = strict(value), (f["at"] or 0) + 2
            place[key] = parsed if f["at"] is None else b"".join((*pieces, texts[where][end:])).decode()
        form(check(name)(v) and not empty(name, v), "what was put back is not of its form")
        if name == "DECISION": need(request_digest(v).hex() == v["request_digest"], "not the request of its digest")
        return v

    def check_opened(self):
        for subject, place in self.unopened.items():
            if self.complete and subject not in self.erased:
                self.add(INCOMPLETE, *place, "sealed, no opening, and nobody allowed its erasure")
        if self.unopened: self.unchecked("the values of sealed personal fields, and what needs them")
        if self.given: self.unchecked("openings of entries that are not here")

    # rule 13: what the authority allowed

    def read_grants(self):
        for record in self.grants.values(): self.attempt((None, None), self.read_record, record)

    def read_record(self, record):
        size = 4 + int.from_bytes(record[:4], "big")
        form(4 < size <= min(len(record), 4 + MAX_NOTE) and len(record) - size <= 65_536, "an authority note cut short")
        text, v, does, signatures = read_grant(record[4:size], record[size:])
        self.granted(text, v, signatures, MALFORMED)
        self.acts[sha(b"sidecar/v1/authority\0", text.encode()).hex()] = v, does
        if v["act"] == "prune": self.runs += [(run, v["time"], does["reason"]) for run in does["segments"]]
        elif v["act"] == "accept-loss": self.losses.append((does["kept"], does["lost"], v["time"]))
        elif v["act"] == "erase": self.erase(does)
        else: self.unchecked(f"what an authority note {v['act']} allows")
        self.wanted |= {("seal", run["last"]) for run, _, _ in self.runs}

    def granted(self, text, v, signatures, otherwise):
        """Whether a note counts; `otherwise`: what it is where it is not signed as a note of the authority is."""
        key, name = self.genesis and self.genesis["authority"], self.name("authority")
        need(key and v["chain"] == self.chain, "an authority note of another chain, or of no authority", INCOMPLETE)
        need([(s[0], len(s[2])) for s in signatures] == [(name, 64)], "an authority note signed otherwise", otherwise)
        with taken_as(INCOMPLETE, "an authority note"): check_signer(text, signatures[0], name, unhex(key))

    def erase(self, does):
        need(self.genesis["retention"] != "sec-17a-4", "erased, against the retention profile", INCOMPLETE)
        self.erased.add(does["subject"])
        raise Flaw(REDACTED, f"a person's fields were erased, as the authority allowed: {does['reason']}")

    def judge_tombstone(self, h, v):
        text, note, does, signatures = read_grant(v["note"].encode(), v["body"].encode())
        need(note["act"] == "erase" and does["subject"] == v["subject"], "leave for something else", INCOMPLETE)
        self.granted(text, note, signatures, INCOMPLETE)
        self.erase(does)

    def judge_group(self, covering, first, last):
        """Bare entries that the same runs of notes cover."""
        runs, days = [self.runs[i] for i in covering], DAYS.get(self.genesis["retention"]) if self.genesis else None
        told = [self.told.get(("seal", run["last"]), {}) for run, _, _ in runs]
        found = [unhex(run["seal"]) in seals for (run, _, _), seals in zip(runs, told) if seals]
        need(any(found) or len(found) < len(runs), "pruned, and the authority's note is of another history", INCOMPLETE)
        early = [days is not None and any(ns < sealed + days * 86_400 * SECOND for sealed in seals.values())
                 for (_, ns, _), seals in zip(runs, told)]
        need(not all(early), "pruned before the chain's retention profile allows it", INCOMPLETE)
        pinned = bool(self.trust.get("policy"))
        need(not pinned or self.anchored >= last, "pruned, and no receipt covers it", INCOMPLETE)
        if not any(found) or days is None or not pinned:
            self.unchecked("that what was pruned was receipted, old enough and of this history")
        raise Flaw(PRUNED, f"payloads up to segment {last} were pruned, as the authority allowed: {runs[0][2]}")

    def check_loss(self, named):
        (act, does), note = self.acts.get(named, ({"act": None}, None)), self.note
        need(act["act"] == "accept-loss", "the note that accepts a loss is not here", INCOMPLETE)
        kept, place = does["kept"], (self.segment, self.seq)
        if note:
            segment, place = note["segment"] - (note["recovered"] is not None), (note["segment"], note["seq"])
            goes_on = (segment, note["seq"], note["leaf"].hex())
            need(goes_on == (kept["segment"], kept["seq"], kept["leaf"]), "the loss was accepted for another place")
        self.add(INCOMPLETE, *place, f"what the collector had was lost; the authority accepted it: {does['reason']}")

    # rules 9 to 11: what payloads say

    def judge(self, h, v):
        name = v["type"]
        proved = name in PERSONAL and v["agent"]["proof"] != "asserted"
        if name == "DECISION": due = v["approval"]["decision_seq"] if v["approval"] else NONE
        need(name not in PERSONAL or h.ref == (due if name == "DECISION" else v["decision_seq"]), "another reference")
        need(any(h.tag) == proved, "an agent tag that does not go with how its agent was proved")
        bundle = v["bundle_digest"] if name == "POLICY" else ""
        need(not bundle or unhex(bundle) in self.attached, "its bundle is not here", INCOMPLETE)
        if name == "OPEN":
            self.check_open(v)
            if "accepted_loss" in v: self.check_loss(v["accepted_loss"])
        if judge := getattr(self, f"judge_{name.lower()}", None): judge(h, v)

    def judge_registry(self, h, v):
        if not v["registry"]: return
        need(sha(v["registry"].encode()).hex() == v["digest"], "the registry is not the one of its digest")
        self.registries = [*self.registries, read_registry(v["registry"].encode())][-2:]
        self.registries_known = self.registries_known or len(self.registries) == 2

    def check_statement(self, h, who, kind, digest):
        with taken_as(TAMPERED, "what was signed"):
            form(len(who["statement"]) <= 1_024, "a statement too long")
            lines, spki = read_lines(who["statement"], "statement"), unbase64(who["key"])
            need(signed_by(spki, unbase64(who["signature"]), who["statement"].encode()), "wrongly signed")
            agree(lines, {"kind": kind, "audience": h.chain, "epoch": h.epoch, "by": who["id"], "key": sha(spki),
                          "digest": digest})
        return lines["time"]

    def judge_by(self, h, v, kind, digest):
        """Who reports or approves, by one of the last two registries; the time of what was signed, if it is known."""
        who, flaw, ns = v["by"], None, None
        if "signature" in who["proof"]:
            flaw = Flaw(TAMPERED, "signed, and no registry says whose key it is")
            if "/by/statement" not in v["sealed"]: ns = self.check_statement(h, who, kind, digest)
        for _, registry in reversed(self.registries):
            try: return check_proved(registry, who) or ns
            except Flaw as found: flaw = found
        if flaw and self.registries_known: raise flaw
        if flaw: self.unchecked("whose keys signed: the registry is not in what was read")
        return ns

    def judge_decision(self, h, v):
        agent, asked, registry, executor = v["agent"], v["request"], {}, v["executor"]
        unsigned = {"asserted": "asserted", "mtls": "authenticated_in_transit", "gateway": "vouched"}
        worth = unsigned.get(agent["proof"], "signed")
        need(v["registry"] or worth != "vouched", "named by a gateway, and no registry says who that is")
        if v["registry"]:
            registry = dict(self.registries).get(v["registry"]["digest"])
            need(registry is not None or not self.registries_known, "it names a registry that is none of the last two")
            if registry is None: self.unchecked("whose keys signed: the registry is not in what was read")
        if worth == "signed":
            self.check_statement(h, agent, "request", unhex(v["request_digest"]) if v["sealed"] else request_digest(v))
            need(v["registry"], "signed, and no registry says whose key it is")
            pins = [pin["keys"] for pin in self.trust.get("principals", ()) if pin["id"] == agent["id"]]
            if pins and key_id(agent["key"]) in pins[0]: worth = "non_repudiable"
        if not (v["sealed"] and "signature" in agent["proof"]): self.report.worth[worth] += 1
        if v["registry"] and registry is not None: check_proved(registry, agent)
        need((executor["id"] if executor else "") == asked["executor"], "its executor is not the request's")
        if executor and registry is not None: check_known(registry, executor, "executor")
        need((v["permit"] is not None) == (bool(executor) and v["effect"] == "ALLOW"), "a permit too many, or none")
        need((v["terms"] is not None) == (v["effect"] == "REQUIRE_APPROVAL"), "terms and effect do not go together")
        with taken_as(TAMPERED, "a delegation"): check_delegations(h, v, registry)
        by, ends = (executor["id"], v["permit"]["not_after"]) if v["permit"] else (agent["id"], None)
        about = {"decision_id": v["decision_id"], "agent": agent["id"], "proof": agent["proof"], "by": by, "ends": ends,
                 "arguments": None if v["sealed"] else arguments_digest(asked)}
        self.decided.keep(h.seq, about if v["effect"] == "ALLOW" or not v["enforced"] else {})
        need((v["approval"] or {"decision_id": ""})["decision_id"] == asked["approval_of"], "an approval of another")
        if v["approval"]: self.judge_leave(h, v, registry)
        if v["terms"]:
            about |= {"action": None if v["sealed"] else action_digest(v), "policy": v["policy"], "terms": v["terms"]}
            not_by = {agent["id"], *(who["id"] for who in v["delegators"])}
            self.waiting.keep(h.seq, {**about, "approvals": {}, "not_by": not_by})

    def about(self, table, ref):
        """What is remembered of the decision at `ref`; None if it, or what became of it, is not known."""
        found = table.get(ref)
        if found is None:
            need(ref < table.floor or self.hidden(ref), "about no such decision")
            self.unchecked("outcomes and approvals of decisions that are not, or not any more, known here")
        return found

    def hidden(self, seq):  # whether it is not known what that entry says: it is not in what was read, or bare
        at = seq - self.known_from
        return at < 0 or self.bare[at:at + 1] == b"\1"

    def judge_outcome(self, h, v):  # rule 10
        done, sealed, permit, by = v["arguments_digest"], v["sealed"], v["permit"], v["by"]["id"]
        need(v["by"]["proof"] != "gateway" or v["by"]["gateway"] == by, "a gateway reports for another")
        self.judge_by(h, v, "outcome", outcome_digest(v))
        self.judge_about(h, v)
        if "/permit" in sealed: return
        if not permit: return need(by == v["agent"]["id"], "reported by another than its agent, without a permit")
        with taken_as(TAMPERED, "its permit"):
            text, said, signature = read_one(permit.encode(), "permit")
            check_signer(text, signature, self.name(), self.identity)
            agree(said, {"chain": h.chain, "decision": v["decision_id"], "seq": h.ref, "agent": v["agent"]["id"],
                         "executor": by, "arguments": bytes.fromhex(done or "")})
            need(v["status"] == "blocked" or v["started_ns"] and int(v["started_ns"]) < said["not_after"], "too late")

    def judge_about(self, h, v):
        found, sealed = self.about(self.decided, h.ref), v["sealed"]
        if found is None: return
        need(found, "the outcome of a decision that may have none, or has one already")
        self.decided[h.ref] = {}
        said = v["decision_id"], v["agent"]["id"], v["agent"]["proof"], v["by"]["id"]
        need(said == tuple(found[n] for n in ("decision_id", "agent", "proof", "by")), "not what its decision says")
        unknown = found["arguments"] is None or "/arguments_digest" in sealed
        if not unknown and (found["ends"] or v["arguments_digest"]):
            need(v["arguments_digest"] == found["arguments"].hex(), "not the arguments of its decision")
        given = f"\nnot_after {found['ends']}\n" in v["permit"] if found["ends"] else not v["permit"]
        need("/permit" in sealed or given, "a permit that its decision did not give, or none")

    def judge_approval(self, h, v):  # rule 11, as all that follows here
        by, policy = v["by"]["id"], v["policy"]
        need("signature" in v["by"]["proof"], "an approval that nobody signed")
        ns, waits = self.judge_by(h, v, "approval", approval_digest(v)), self.about(self.waiting, h.ref)
        may = [may_approve(registry.get(by), waits) for _, registry in self.registries]
        need(any(may) or not self.registries_known, "approved by who is no active approver with the role")
        if waits is None: return
        need((v["decision_id"], v["agent"]["id"]) == (waits["decision_id"], waits["agent"]), "about another decision")
        need(same_policy(policy, waits["policy"]), "about a decision by another policy")
        for name, due in (("action_digest", waits["action"]), ("arguments_digest", waits["arguments"])):
            need(due is None or f"/{name}" in v["sealed"] or unhex(v[name]) == due, "about another decision")
        need(by not in waits["not_by"], "approved by its agent or a delegator")
        need(by not in [who for who, _ in waits["approvals"].values()], "approved twice by one principal")
        if v["verdict"] == "reject": del self.waiting[h.ref]
        else: waits["approvals"][h.seq] = by, ns

    def judge_leave(self, h, v, registry):  # a decision under an approval
        under, agent = v["approval"], v["agent"]["id"]
        named, waits = [each["by"]["id"] for each in under["approvals"]], self.about(self.waiting, h.ref)
        need(len(set(named)) == len(named), "an approver twice")
        need(not {agent, *(who["id"] for who in v["delegators"])} & set(named), "approved by its agent or a delegator")
        for by in [each["by"] for each in under["approvals"]] if registry is not None else ():
            check_known(registry, by, "approver")
            need(may_approve(registry[by["id"]], waits), "by who is no approver with the role")
        if waits is None: return
        need((waits["decision_id"], waits["agent"]) == (under["decision_id"], agent), "of another decision or agent")
        need(v["sealed"] or waits["action"] in (None, action_digest(v)), "of another action")
        need(v["effect"] == "DENY" or same_policy(waits["policy"], v["policy"]), "under another policy")
        need(time_ns(v["time"]) < time_ns(waits["terms"]["expires"]), "after its approval expired")
        for each in under["approvals"]:
            by, ns = waits["approvals"].get(each["seq"], (None, None))
            right = by == each["by"]["id"] and ns in (None, time_ns(each["time"]))
            need(right or self.hidden(each["seq"]), "an approval that was not given")
        need(len(named) >= waits["terms"]["count"], "fewer approvals than its terms ask for")
        if v["effect"] == "ALLOW": del self.waiting[h.ref]

    # rules 8 and 12, LOG 2 to 4: what callers and the log hold against the stream

    def hold(self, callers, logged):
        starts = b"c2sp.org/tlog-proof@v1\n", b"old ", b"{"
        if not all(data.startswith(starts) for data in logged): self.add(MALFORMED, None, None, "no receipt of the log")
        for data in callers: self.attempt((None, None), self.read_receipt, data)
        if self.trust.get("policy") is not None:
            self.claims = Log(self.add, self.report, Policy(self.trust["policy"])).read(logged)
        elif logged: self.unchecked("receipts of logs: no log is pinned, so they prove nothing")
        for _, v, _ in self.heads: self.wanted |= {("seal", v["segment"]), v["seq"]}
        for kind, c in self.claims:
            if kind == "roll-call": self.wanted |= {("seal", c["sealed"]), c["seq"]}
            else: self.wanted.add((kind, c["epoch" if kind == "epoch" else "segment"]))

    def read_receipt(self, data):
        text, v, signature = read_one(data, "head")
        check_signer(text, signature, f"sidecar.v1/{v['chain'].hex()}/segment/{v['segment']}", None)
        self.heads.append((text, v, signature))

    def finish(self):
        inside = self.case and self.sealed_at is not None and self.sealed_at >= time_ns(self.case["to"])
        beyond, calls = not self.broken and not inside, [-1]  # `beyond`: what is said of places after the end is judged
        self.anchored = -1
        for text, v, signature in self.heads:
            place = v["segment"], v["seq"]
            self.attempt(place, self.judge_receipt, text, v, signature, beyond and place[0] >= self.first_segment)
        for kind, c in self.claims:
            if self.chain not in (None, c["chain"]):
                self.add(TAMPERED, c.get("segment"), None, "a receipt of the log for another chain")
            elif kind == "roll-call": self.judge_call(c, beyond, calls)
            else: self.judge_logged(kind, c, beyond)
        for covering, (first, last) in self.groups.items(): self.attempt(first, self.judge_group, covering, first, last)
        self.check_opened()
        self.judge_anchors(inside, len(calls) > 1)
        if self.claim: self.judge_claim(max(calls))
        self.conclude()

    def lost(self, segment):
        """Rule 13: whether what is said of this segment may be of what was lost."""
        found = any(kept["segment"] <= segment <= lost["segment"] for kept, lost, _ in self.losses)
        if found: self.unchecked("receipts that may be of what was lost, as the authority accepted")
        return found

    def judge_receipt(self, text, v, signature, beyond):
        place = v["segment"], v["seq"]
        need(self.chain in (None, v["chain"]), "it is of another chain")
        need(v["segment"] in self.spans or not beyond, "the ledger does not reach its segment", INCOMPLETE)
        key, epoch, first, following = self.spans.get(v["segment"], [None] * 4)
        if key is None: return self.unchecked("receipts of callers for segments, or by keys, that are not known")
        try: check_signer(text, signature, signature[0], key)
        except Flaw:
            if self.lost(v["segment"]): return
            raise
        need(v["epoch"] == epoch and v["seq"] >= first, "validly signed, for another epoch or an earlier place", FORK)
        need(v["seq"] < following, "its segment ends before it", INCOMPLETE)
        if place not in self.seen: return self.unchecked("receipts of callers for entries that could not be read")
        leaf, said, right = self.seen[place]
        need(v["leaf"] == leaf, "validly signed, for another entry at this place", FORK)
        if v["decision"] and said not in (UNKNOWN, ZERO):
            need(said == decided_by(v), "the caller was told another decision than was recorded")
            need(right, "the request that was recorded is not that of its digest")

    def judge_call(self, c, beyond, calls):  # a roll-call
        told = self.told.get(("seal", c["sealed"]), {})
        if c["seal"] in told: self.anchored = max(self.anchored, c["sealed"])
        for kept, lost, ns in self.losses:
            sealed = c["sealed"] is not None and kept["segment"] <= c["sealed"] <= lost["segment"]
            if c["called"] <= ns and (sealed or c["seq"] is not None and kept["seq"] <= c["seq"] < lost["seq"]):
                return self.unchecked("receipts that may be of what was lost, as the authority accepted")
        if told.keys() - {c["seal"]}: self.add(TAMPERED, c["sealed"], None, "a roll-call names another seal")
        for segment, leaf in [(place[0], seen[0]) for place, seen in self.seen.items() if place[1] == c["seq"]][:1]:
            if leaf != c["leaf"]: self.add(TAMPERED, segment, c["seq"], "a roll-call names another entry")
        if beyond and c["sealed"] is not None and c["sealed"] > self.last_sealed:
            self.add(INCOMPLETE, c["sealed"], None, "a roll-call names a seal that the ledger does not reach")
        if beyond and c["seq"] is not None and c["seq"] >= self.seq:
            self.add(INCOMPLETE, None, c["seq"], "a roll-call names an entry that is not here")
        if self.sealed and (c["sealed"], c["seal"]) == self.sealed[::2]:
            calls.append(c["called"] if c["seq"] is None or c["seq"] < self.seq else -1)

    def judge_logged(self, kind, c, beyond):  # a receipt for an epoch note or a seal
        segment, told = c["segment"], self.told.get((kind, c["epoch" if kind == "epoch" else "segment"]), {})
        if told.keys() - {c["hash"]} and not self.lost(segment):
            self.add(TAMPERED, segment, None, "the log was shown another text for this place")
        if kind == "seal" and c["hash"] in told: self.anchored = max(self.anchored, segment)
        if told or self.lost(segment): return
        if beyond and segment >= self.first_segment: self.add(INCOMPLETE, segment, None, f"the log has a {kind} more")
        else: self.unchecked("receipts of the log for places that were not read")

    def judge_anchors(self, inside, called):
        if self.anchored < 0 or not self.sealed:
            self.add(UNANCHORED, None, None, "no receipt of a pinned log: whoever has the disk may have made it all")
        elif self.anchored < self.sealed[0] or self.seq > self.sealed[1]:
            self.add(UNANCHORED, self.anchored + 1, None, "no receipt of the log covers what follows here")
        elif not inside and not called: self.add(UNANCHORED, None, None, "no roll-call names its end: it may be cut")
        if self.crashed: self.add(UNANCHORED, None, None, "a segment ended by a crash: what followed cannot be known")

    def judge_claim(self, called):  # EVIDENCE.md, "Verification", 5
        claim, start, end = self.claim, *(time_ns(self.case[name]) for name in ("from", "to"))
        def missing(segment, reason): self.add(INCOMPLETE, segment, None, reason)
        if self.chain is not None and self.chain.hex() != claim["chain"]:
            self.add(TAMPERED, None, None, "the stream is of another chain than its folder")
        if self.broken: return
        first, last, reached = claim["first_segment"], claim["last_segment"], self.reached
        if self.first_segment != first: missing(first, f"it starts with segment {self.first_segment}, not as claimed")
        if reached != last: missing(min(reached, last) + 1, f"it ends with segment {reached}, not as claimed")
        if self.entries != claim["entries"]: missing(None, f"{some(self.entries, 'entry', 'entries')}, not as claimed")
        if self.opened_at is not None and self.opened_at >= start:
            missing(self.first_segment - 1, "of the window, and not here")
        shown = max(called, -1 if self.sealed_at is None else self.sealed_at)
        if claim["through"] and shown < time_ns(claim["through"]):
            missing(self.last_sealed + 1, "nothing shows that all is here that is claimed")
        elif shown < end: self.add(UNANCHORED, self.last_sealed + 1, None, "what came later may be missing")

    def conclude(self):
        """What was checked, and what was not, beside the findings."""
        self.report.checked.update({
            "place, links, payloads and clocks of entries": self.entries, "lines and roots of segments": self.segments,
            "HMAC tags and agent tags of entries, by disclosed keys that the seals commit to": self.tags,
            "receipts of callers against their entries": len(self.heads),
            f"receipts of the pinned log, up to segment {self.anchored}": self.anchored >= 0})
        self.report.not_checked.update({
            "HMAC tags and agent tags of entries: no disclosed key is theirs": self.entries - self.tags,
            "that these are the chains you expect: no trust file was given": not self.trust,
            "what withheld entries say, and whose those are that bear no tag": self.bares,
            "entries of others that name an agent of the case as executor, approver or delegator": self.bares})

# --- LOG.md: receipts, checkpoints, timestamps

ASK = ("who signed timestamps: openssl ts -verify -data checkpoint.txt -in response.tsr -CAfile roots.pem tells, with"
       " its member checkpoint, its member response out of base64, and the roots that you trust")

class Log:
    """LOG 1, 5 and 6."""

    def __init__(self, add, report, policy):
        self.add, self.report, self.policy = add, report, policy
        self.claims, self.resting, self.known, self.stamps, self.joins = [], {}, {}, [], []

    def read(self, files):
        """What receipts that count say, as (kind, lines)."""
        for data in files:
            place = [None, None]
            try: self.read_file(data, place)
            except Flaw as flaw: self.add(flaw.args[0], *place, f"a file of the log: {flaw.args[1]}")
        self.one_log()
        self.judge_stamps()
        return self.claims

    def read_file(self, data, where):
        if data[:1] == b"{": return self.stamps.append(read_json(data, "timestamp"))
        form(len(data) <= 65_536, "a file too long")
        head, found, checkpoint = text_of(data).partition("\n\n")
        rows = head.split("\n")
        if rows[0][:4] == "old ":
            form(found, "no consistency file")
            old, proof = u63(rows[0][4:]), hashes_of(rows[1:])
            with taken_as(TAMPERED, "a consistency file"): judged = self.judge(checkpoint)
            return self.joins.append((old, proof, *judged))
        kind, text, lines, call = read_logged(rows, found)
        index, path, leaf = u63(rows[2][6:]), hashes_of(rows[3:]), sha(b"\0", text.encode())
        where[0] = lines.get("segment")
        with taken_as(TAMPERED, "a receipt"):
            (origin, size), root, signed, witnesses = self.judge(checkpoint)
            need(climb(leaf, index, size, path) == root, "its path leads elsewhere")
            if call:
                need(lines["log"] == origin, "a roll-call of another log")
                line, leaf, index, path = call
                need(climb(leaf, index, lines["chains"], path) == lines["root"], "its answer leads elsewhere")
        need(self.policy.reached(witnesses, self.policy.quorum), "not cosigned by the quorum of witnesses", UNANCHORED)
        if self.resting.setdefault((origin, size), (root, signed, witnesses))[0] != root:
            self.add(FORK, None, None, f"log {origin} signed two trees of size {size:,}")
        hashed = sha(f"sidecar/v1/{kind}\0".encode(), text.encode())
        self.claims.append((kind, {**line, "called": lines["time"]} if call else {**lines, "hash": hashed}))

    def judge(self, checkpoint):
        if checkpoint not in self.known: self.known[checkpoint] = self.policy.judge(checkpoint.encode())
        return self.known[checkpoint]

    def one_log(self):  # LOG 5
        roots, above = {place: found[0] for place, found in self.resting.items()}, {}
        for old, proof, (origin, size), root, _, _ in sorted(self.joins, key=lambda join: (join[0], join[2][1])):
            if (origin, old) not in roots: self.report.not_checked["consistency files that no receipt goes with"] += 1
            elif not extends(old, size, roots[origin, old], root, proof):
                self.add(FORK, None, None, f"the tree of size {size:,} does not extend {old:,}")
            elif roots.setdefault((origin, size), root) != root:
                self.add(FORK, None, None, f"log {origin} signed two trees of size {size:,}")
            else: above.setdefault((origin, old), set()).add((origin, size))
        def reach(place):
            found, waiting = {place}, [place]
            while waiting:
                higher = above.get(waiting.pop(), set()) - found
                found |= higher
                waiting += higher
            return found
        sizes = sorted(self.resting)
        for old, new in zip(sizes, sizes[1:]):
            joined = self.resting[old][2] & self.resting[new][2] or reach(old) & reach(new)
            if old[0] == new[0] and not joined:
                self.add(INCOMPLETE, None, None, f"nothing shows that the tree of {new[1]} extends that of {old[1]}")

    def judge_stamps(self):  # LOG 6
        cover, bad = {signed: bool(witnesses) for _, signed, witnesses in self.resting.values()}, []
        for v in self.stamps:
            text = v["checkpoint"]
            if text not in cover: self.report.not_checked["timestamps that no receipt goes with"] += 1
            else:
                try: said = check_timestamp(v)
                except Flaw as flaw: bad.append((text, flaw.args[1]))
                else:
                    self.report.notes.append(f"a checkpoint of size {text.split()[1]} was there at {said}")
                    self.report.not_checked[ASK], cover[text] = self.report.not_checked[ASK] + 1, True
        for text, reason in bad: self.add(OK if cover[text] else TAMPERED, None, None, f"a timestamp: {reason}")

def read_logged(rows, found):
    """What a tlog-proof of ours is about: kind, text, lines; of a roll-call also line, leaf, index and path."""
    form(found and len(rows) > 2 and rows[0] == "c2sp.org/tlog-proof@v1", "no receipt of the log")
    form(rows[1][:6] == "extra " and rows[2][:6] == "index ", "no receipt of the log")
    text, blank, rest = text_of(unbase64(rows[1][6:])).partition("\n\n")
    text, kind = text + "\n" * bool(blank), text.partition("\n")[0].removeprefix("sidecar/v1/")
    form(kind in ("epoch", "seal", "roll-call") and len(text) <= MAX_NOTE, "not an entry of this log")
    lines, rows = read_lines(text, kind), rest.split("\n")
    form(bool(blank) == (kind == "roll-call"), "a roll-call without its answer, or another entry with one")
    if not blank: return kind, text, lines, None
    form(len(rows) > 2 and rows[0][:6] == "index " and not rows[-1], "not an answer")
    words = rows[1].split(" ")
    form(len(words) == len(CALL), "not a chain's line")
    line = {name: read_value(code, word) for (name, code), word in zip(CALL.items(), words)}
    form(len({line[name] is None for name in ("sealed", "seal")}) == 1, "half a line")
    form(len({line[name] is None for name in ("seq", "leaf", "time")}) == 1, "half a line")
    return kind, text, lines, (line, sha(b"\0", rows[1].encode()), u63(rows[0][6:]), hashes_of(rows[2:-1]))

CALL = {"chain": "hex", "epoch": "u32", "sealed": "u64-", "seal": "hex-", "seq": "u64-", "leaf": "hex-", "time": "i64-"}

class Policy:
    """C2SP tlog-policy: which logs and witnesses are believed."""

    def __init__(self, text):
        self.logs, self.witnesses, self.groups, self.quorum = [], {}, {}, None
        form(len(text) <= 262_144 and not re.search(r"[\0-\x08\x0b-\x1f\x7f]", text), "no policy")
        form(not text or text[-1] == "\n", "no policy")
        for row in text.split("\n"):
            words = [word for word in re.split("[ \t]+", row) if word]
            if words and words[0][0] != "#": self.read_row(*words)
        keys = [key for _, key in (*self.logs, *self.witnesses.values())]
        form(self.quorum and len(set(keys)) == len(keys), "no policy")
        form(max(map(len, (self.logs, self.witnesses, self.groups))) <= 64, "no policy")

    def read_row(self, word, name="", *rest):
        taken = {*self.witnesses, *self.groups}
        form(name and (word in ("log", "quorum") or name not in taken | {"none"}), f"policy: {word} {name}")
        if word == "log" and len(rest) < 2: self.logs.append(verifier_key(name, 1))
        elif word == "witness" and len(rest) in (1, 2): self.witnesses[name] = verifier_key(rest[0], 4)
        elif word == "group" and len(rest) > 1:
            count, *members = rest
            grouped = [member for _, group in self.groups.values() for member in group]
            form(count in ("all", "any") or re.fullmatch("[1-9][0-9]{0,3}", count), "policy: a count")
            least = {"all": len(members), "any": 1}.get(count) or int(count)
            form(least <= len(members) and set(members) <= taken, "a group of nobody")
            form(len({*members, *grouped}) == len(members) + len(grouped), "a member of two groups")
            self.groups[name] = least, members
        elif word == "quorum" and not rest and self.quorum is None and name in taken | {"none"}: self.quorum = name
        else: form(False, f"policy: {word}")

    def reached(self, who, name):
        if name not in self.groups: return name == "none" or name in who
        return sum(self.reached(who, member) for member in self.groups[name][1]) >= self.groups[name][0]

    def judge(self, data):
        """A signed checkpoint: (origin, size), root, text, witnesses that cosigned it. LOG 1."""
        text, signatures = read_note(data)
        origin, size, root = read_checkpoint(text)
        def by(name, kind, key): return [s[2] for s in signatures if s[:2] == (name, key_hash(name, kind, key))]
        logs, vouching = [key for name, key in self.logs if name == origin], set()
        signed = [ed25519(key, line, text.encode()) for key in logs for line in by(origin, 1, key)]
        need(signed and all(signed), f"not rightly signed by a log that the trust file lists: {origin[:100]}")
        for known, (name, key) in self.witnesses.items():
            for line in by(name, 4, key):
                said = f"cosignature/v1\ntime {int.from_bytes(line[:8], 'big')}\n{text}".encode()
                need(len(line) == 72 and line[0] < 128 and ed25519(key, line[8:], said), f"a cosignature of {known}")
                vouching.add(known)
        return (origin, size), root, text, vouching

def read_checkpoint(text):
    rows = text.split("\n")
    form(len(rows) == 4 and not rows[3] and re.fullmatch(r"[^\s+\0-\x1f]+", rows[0]), "not a checkpoint")
    origin, size, root = rows[0], u63(rows[1]), hashes_of([rows[2]])[0]
    form(size or root == sha(), "the empty tree has another root")
    return origin, size, root

def verifier_key(text, kind):
    name, fingerprint, data = (text.split("+", 2) + ["", ""])[:3]
    key = unbase64(data)
    form(name and len(key) == 33 and key[0] == kind, "no verifier key")
    form(fingerprint == key_hash(name, kind, key[1:]).hex(), "no verifier key")
    return name, key[1:]

def der(data):
    """The contents of the elements of a DER value, with their tags."""
    found, at = [], 0
    while at < len(data):
        tag, size, at = data[at], data[at + 1], at + 2
        if size & 0x80: size, at = int.from_bytes(data[at:at + size % 128], "big"), at + size % 128
        need(at + size <= len(data), "DER cut short")
        found.append((tag, data[at:at + size]))
        at += size
    return found

def within(data, *way):
    """The content of an element of an element ... of a DER value."""
    for index in way: data = der(data)[index][1]
    return data

def check_timestamp(v):
    """LOG 6: granted, of this text, with this nonce. Returns what time it says. The signature is not checked."""
    try:
        response = within(unbase64(v["response"]), 0)
        info = within(response, 1, 1, 0, 2, 1, 0, 0)  # TimeStampToken, SignedData, EncapsulatedContentInfo, TSTInfo
        need(within(response, 0, 0) in (b"\0", b"\1"), "not granted")
        algorithm, imprint = within(info, 2, 0, 0), within(info, 2, 1)
        need(algorithm.hex() == "608648016503040201" and imprint == sha(v["checkpoint"].encode()), "for other bytes")
        nonces = [content for tag, content in der(info)[5:] if tag == 2]
        need(nonces and int.from_bytes(nonces[0], "big") == int(v["nonce"]), "of another nonce")
        return within(info, 4).decode("ascii", "replace")
    except (IndexError, ValueError): raise Flaw(TAMPERED, "not a response") from None

# --- RFC 6962: the tree hash of leaves that come one by one, inclusion and consistency

def node(left, right): return sha(b"\1", left, right)

def grow(parts, leaf):
    """`parts`: the roots of full subtrees, each with its size."""
    size = 1
    while parts and parts[-1][0] == size: leaf, size = node(parts.pop()[1], leaf), size * 2
    parts.append((size, leaf))

def top(parts):
    roots = [root for _, root in reversed(parts)] or [sha()]
    return functools.reduce(lambda right, left: node(left, right), roots)

def climb(leaf, index, size, path):
    """The root that an inclusion path leads to."""
    need(index < size and bool(path) == (size > 1), "a path too short or too long")
    if size == 1: return leaf
    half = 1 << (size - 1).bit_length() - 1
    if index < half: return node(climb(leaf, index, half, path[:-1]), path[-1])
    return node(path[-1], climb(leaf, index - half, size - half, path[:-1]))

def extends(old, new, old_root, new_root, proof):
    """Whether the larger tree begins with the smaller."""
    proof = list(proof)
    def both(old, new, whole):
        """The roots of a subtree's first `old` leaves and of all of its `new`."""
        if old == new: return [old_root if whole else proof.pop()] * 2
        half, side = 1 << (new - 1).bit_length() - 1, proof.pop()
        if old <= half:
            one, two = both(old, half, whole)
            return one, node(two, side)
        one, two = both(old - half, new - half, False)
        return node(side, one), node(side, two)
    try: return 0 < old <= new and tuple(both(old, new, True)) == (old_root, new_root) and not proof
    except IndexError: return False

# --- entries (LEDGER.md, "Entry")

TYPES = "? GENESIS OPEN DECISION OUTCOME APPROVAL REJECTED POLICY TOMBSTONE CLOCK CLOSE REGISTRY".split()
LAYOUT = struct.Struct(">8sBBHIQQ32s32s32sIIqQIIQ16s")
Header = namedtuple(
    "Header", "magic type alg flags epoch seq segment chain prev commit length fields wall mono error zero ref tag")
UNKNOWN = b"\xff" * 32  # in place of what a head says of a decision: its payload is not here

def check_header(h):
    form(h.magic == b"SDCREC\0\1" and h.alg == 1 and not h.flags and not h.zero, "a malformed header")
    form(0 < h.type < len(TYPES) and 2 <= h.length <= MAX_PAYLOAD, "a malformed header")
    form(h.fields <= (4_096 if h.type in (3, 4, 5) else 0), "sealed fields where none can be")
    form(h.ref == NONE or h.ref < h.seq, "a reference to what comes after")
    form(h.ref == 0 if h.type == 8 else h.type == 3 or (h.ref != NONE) == (h.type in (4, 5)), "another reference")

def stored_payload(h, body):
    salt, codec, stored = body[216:248], body[248], body[249:]
    form(codec in (0, 1), "an unknown codec")
    if codec:
        inflate, limit, packed = zlib.decompressobj(), max(h.length, 65_536), len(stored)
        try: stored = inflate.decompress(stored, limit + 1)
        except zlib.error: raise Flaw(MALFORMED, "a damaged compressed payload") from None
        form(packed < len(stored) <= limit and inflate.eof and not inflate.unused_data, "not one compressed payload")
    need(len(stored) == h.length and sha(b"sidecar/v1/payload\0", salt, stored) == h.commit, "another payload")
    return stored

def read_payload(name, data):
    v = strict(data)
    form(isinstance(v, dict) and v.get("type") == name and check(name)(v), f"not the payload of a {name}")
    if name == "POLICY": form(bool(v["bundle_digest"]) == (v["event"] in ("activated", "resumed")), "bundle and event")
    if name == "REGISTRY": form(bool(v["digest"]) == bool(v["registry"]) == (v["event"] != "refused"), "digest, event")
    if name == "OPEN": form(not ("unconfirmed" in v and "accepted_loss" in v), "unconfirmed, and a loss accepted")
    if name == "GENESIS":
        keys = [custodian["spki"] for custodian in v["custodians"]]
        form(len(keys) <= 16 and len(set(keys)) == len(keys), "too many custodians, or one twice")
    return v

def decided(decision, effect, request):
    """What a head says of a decision, as one hash; zeros where it says nothing."""
    return sha(framed(decision, effect, request)) if decision else ZERO

def decided_by(v): return decided(v["decision"], v["effect"], v["request"].hex())
def agent_tag(key, seq, agent): return mac(key, b"sidecar/v1/agent\0", seq.to_bytes(8, "big"), agent.encode())[:16]

ITEM, INDEX = "(?:0|[1-9][0-9]*)", "0|[1-9][0-9]{0,8}"
PERSONAL = {name: [re.compile(way, re.DOTALL) for way in ways] for name, ways in {  # in a text; in place of a value
    "DECISION": (rf"/request/(arguments|context|alternatives/{ITEM}/arguments)",
                 rf"/request/(purpose|idempotency_key)|(/alternatives/{ITEM})?/reasons/{ITEM}/message|/result(/.*)?"
                 rf"|/obligations/{ITEM}/parameters/.*"),
    "OUTCOME": ("/response", "/by/statement|/permit|/arguments_digest|/response_digest|/downstream_status"),
    "APPROVAL": ("(?!)", "/by/statement|/action_digest|/arguments_digest|/comment")}.items()}

def empty(name, v):  # digests that are not here: they are sealed
    digests = {"OUTCOME": ("arguments_digest", "response_digest"), "APPROVAL": ("arguments_digest", "action_digest")}
    return {f"/{each}" for each in digests.get(name, ()) if v[each] == ""}

def find(value, pointer):
    """The object or array, and the name or index in it, that a JSON pointer leads to."""
    form(re.fullmatch("(?:/[^~/]*+(?:~[01][^~/]*+)*+)++", pointer), "no pointer")
    for part in [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]:
        place, listed = value, isinstance(value, list)
        if listed: form(re.fullmatch(INDEX, part) and int(part) < len(place), "a pointer that leads nowhere")
        else: form(isinstance(place, dict) and part in place, "a pointer that leads nowhere")
        part = int(part) if listed else part
        value = place[part]
    return place, part

def read_grant(data, body):
    """An authority note with its body: text, lines, what the body says, signatures. Nothing is verified."""
    text, signatures = read_note(data)
    v = read_lines(text, "authority")
    form(sha(body) == v["body"] and len(body) <= 65_536, "an authority note with another body, or one too long")
    if v["act"] not in ("prune", "accept-loss", "erase"): return text, v, {}, signatures
    does = read_json(body, v["act"])
    form(does["chain"] == v["chain"].hex(), "a body of another chain")
    runs = does.get("segments", [])
    form(len(runs) <= 256 and all(run["first"] <= run["last"] for run in runs), "segments that do not rise")
    form(all(a["last"] < b["first"] for a, b in zip(runs, runs[1:])), "segments that do not rise")
    if v["act"] == "accept-loss":
        kept, lost = ((does[name]["segment"], does[name]["seq"]) for name in ("kept", "lost"))
        form(1 <= kept[1] <= lost[1] and kept < lost, "a loss of nothing")
    return text, v, does, signatures

# --- principals (SIGNING.md): digests, registries, delegations

def target(asked): return [asked["action"], asked["resource"]["type"], asked["resource"]["id"]]

def request_digest(v):
    r = v["request"]
    parts = [v["agent"]["id"], *target(r), r["arguments"], r["context"], r["purpose"], r["trace_parent"],
             r["idempotency_key"], unbase64(r["last_receipt"]), u32(len(r["alternatives"]))]
    parts += [part for other in r["alternatives"] for part in (*target(other), other["arguments"])]
    parts += [r["executor"], r["approval_of"], u32(len(r["delegations"]))]
    parts += [part for d in r["delegations"] for part in (d["text"], unbase64(d["key"]), unbase64(d["signature"]))]
    return sha(b"sidecar/v1/request\0", framed(*parts))

def action_digest(v):
    r = v["request"]
    parts = [v["agent"]["id"], *target(r), r["arguments"], r["context"], r["purpose"], r["executor"]]
    texts = [d["text"] for d in r["delegations"]]
    return sha(b"sidecar/v1/action\0", framed(*parts, u32(len(texts)), *texts))

def arguments_digest(r): return sha(b"sidecar/v1/arguments\0", (r["arguments"] or "{}").encode())

def outcome_digest(v):
    response, done = (bytes.fromhex(v[name] or "") for name in ("response_digest", "arguments_digest"))
    parts = [v["by"]["id"], v["decision_id"], v["status"], v["response"] or "", response, v["permit"], done,
             v["downstream_status"], v["started_ns"] or "0", v["duration_ns"] or "0"]
    return sha(b"sidecar/v1/outcome\0", framed(*parts))

def approval_digest(v):
    parts = [v["by"]["id"], v["decision_id"], v["verdict"], bytes.fromhex(v["action_digest"]),
             bytes.fromhex(v["arguments_digest"]), v["policy"]["bundle_digest"], v["policy"]["revision"], v["comment"]]
    return sha(b"sidecar/v1/approval\0", framed(*parts))

def read_registry(data):
    """Its digest, and its principals by id, each with `by_key`: its keys by their ids."""
    form(len(data) <= 4_000_000, "a registry too long")
    people = read_json(data, "registry")["principals"]
    for p in people:
        form(len(p["keys"]) <= 16 and len(p["spiffe_ids"]) <= 16 and len(p["roles"]) <= 64, "too many of one principal")
        p["by_key"] = {key_id(key["spki"]): key for key in p["keys"]}
    for ids in ([key_id(key["spki"]) for p in people for key in p["keys"]],
                [each["id"] for p in people for each in p["spiffe_ids"]], [p["id"] for p in people]):
        form(len(people) <= 20_000 and len(set(ids)) == len(ids), "too many principals, or two with one id or key")
    return sha(data).hex(), {p["id"]: p for p in people}

def valid_at(what, ns):
    first, end = what.get("not_before"), what.get("not_after")
    return (first is None or time_ns(first) <= ns) and (end is None or ns < time_ns(end))

def same(known, said):
    """Roles and attributes as the registry has them, empty where it has not that principal. As JSON: true is not 1."""
    known = known or {"roles": [], "attributes": {}}
    known, said = (json.dumps((who["roles"], who["attributes"]), sort_keys=True) for who in (known, said))
    return known == said

def same_policy(one, other): return all(one[name] == other[name] for name in ("revision", "bundle_digest"))
def active(known, kind): return known is not None and (known["kind"], known["status"]) == (kind, "active")

def may_approve(known, waits):
    roles = set(waits["terms"]["roles"] if waits else ())
    return active(known, "approver") and (not roles or bool(roles & set(known["roles"])))

def check_known(registry, who, kind=None, key=None, ns=None):
    """Somebody is as the registry has them: active and of this kind, with this key, valid then, if that is asked."""
    known = registry.get(who["id"])
    need(same(known, who), f"{who['id']} has not these roles and attributes")
    need(kind is None or active(known, kind), f"{who['id']} is no active {kind}")
    found = known["by_key"].get(key) if known and key else None
    good = found and found["status"] == "active" and (ns is None or valid_at(found, ns))
    need(key is None or good, "signed by a key that is not that principal's, or was not then")

def check_proved(registry, who):
    check_known(registry, who, key=key_id(who["key"]) if "signature" in who["proof"] else None)
    need(who["id"] in registry or who["proof"] == "asserted", f"{who['id']} is not registered")
    by_gateway = who["proof"] == "gateway"
    need(not by_gateway or active(registry.get(who["gateway"]), "executor"), "named by who is no active executor")
    ids = [each["id"] for each in registry[who["id"]]["spiffe_ids"]] if who["id"] in registry else []
    without = who["proof"] in ("asserted", "signature") or not who["spiffe_id"]
    need(without or who["spiffe_id"] in ids, "a SPIFFE id of somebody else")

def covers(patterns, text): return any(text.startswith(p[:-1]) if p.endswith("*") else p == text for p in patterns)

def check_delegations(h, v, registry):
    """Rule 11: a chain of leave, each signed by its giver and for all that is asked, the last to the agent."""
    asked, agent = v["request"], v["agent"]["id"]
    need(len(asked["delegations"]) == len(v["delegators"]) <= 8, "not one delegator for each")
    if not v["delegators"]: return
    ns = time_ns(v["time"])
    given = [read_json(raw["text"].encode(), "delegation") for raw in asked["delegations"]]
    takers, before, parent = [*(d["from"] for d in given[1:]), agent], None, None
    for raw, d, who, taker in zip(asked["delegations"], given, v["delegators"], takers):
        text, spki = b"sidecar/v1/delegation\0" + raw["text"].encode(), unbase64(raw["key"])
        need(len(raw["text"].encode()) <= 8_192 and 0 <= d["further"] <= 7, "beyond its bounds")
        need(max(len(d["actions"]), len(d["resources"])) <= 64, "beyond its bounds")
        need(d["key"] == sha(spki).hex() and signed_by(spki, unbase64(raw["signature"]), text), "wrongly signed")
        need(d["audience"] in ("*", h.chain.hex()) and valid_at(d, ns), "for another chain or time")
        need(d["to"] == taker and d["from"] == who["id"] and d["parent"] == parent, "of or to somebody else")
        if before:
            need(d["further"] < before["further"] and before["audience"] in ("*", d["audience"]), "of more than before")
            times = [time_ns(x) for x in (before["not_before"], d["not_before"], d["not_after"], before["not_after"])]
            need(times[0] <= times[1] and times[2] <= times[3], "for longer than before")
            need(all(covers(before[n], p) for n in ("actions", "resources") for p in d[n]), "of more than before")
        for action, kind, name in map(target, (asked, *asked["alternatives"])):
            patterns = ["*"] * ("*" in d["resources"]) if ":" in kind else d["resources"]
            need(covers(d["actions"], action) and covers(patterns, f"{kind}:{name}"), "not for what is asked")
        if registry is not None: check_known(registry, who, who["kind"], d["key"], ns)
        before, parent = d, sha(text).hex()
    need(registry is None or registry.get(agent, {}).get("status") == "active", "to an agent that is not active")

# --- notes (LEDGER.md, "Notes"): lines `name value` and C2SP signed notes. A `-` after a reader: or none

LINES = {kind: dict(pair.split(":") for pair in text.split()) for kind, text in {
    "epoch": """chain:hex epoch:u32 segment:u64 seq:u64 leaf:hex seal:hex recovered:u64- custodians:hex seeds:hex
        seed_commit:hex key:hex config:hex log:line- alg:sha256,hmac-sha256,ed25519 time:u64""",
    "head": """chain:hex epoch:u32 segment:u64 seq:u64 leaf:hex time:i64 decision:id-
        effect:ALLOW|DENY|REQUIRE_APPROVAL- request:hex-""",
    "seal": """chain:hex epoch:u32 segment:u64 first:u64 count:u64 root:hex last:hex prev:hex wall_first:i64-
        wall_last:i64- mono_first:u64- mono_last:u64- mac_key:hex- tag_key:hex- next:hex- policy:hex registry:hex
        head:hex- reason:count|time|close|crash time:u64""",
    "roll-call": "log:line time:u64 chains:u64 root:hex",
    "permit": "chain:hex decision:line seq:u64 agent:name executor:name target:hex arguments:hex not_after:u64",
    "authority": "chain:hex act:prune|erase|accept-loss|custodians|successor|identity body:hex time:u64",
    "statement": "kind:line audience:hex epoch:u32 by:name key:hex digest:hex time:u63 nonce:hex16",
}.items()}

def read_value(code, text):
    if code[-1] == "-" and text == "-": return None
    code = code.removesuffix("-")
    if code in READERS: return READERS[code](text)
    form(text in code.split("|"), f"not {code}: {text[:60]!r}")
    return text

def read_lines(text, kind):
    rows = [row.partition(" ") for row in text.split("\n")]
    form([row[0] for row in rows] == [f"sidecar/v1/{kind}", *LINES[kind], ""], f"not the lines of a {kind}")
    form(not rows[0][1] and not rows[-1][1], f"not the lines of a {kind}")
    v = {name: read_value(code, row[2]) for (name, code), row in zip(LINES[kind].items(), rows[1:])}
    missing = {name for name, value in v.items() if value is None}
    if kind == "head": form(missing in (set(), {"decision", "effect", "request"}), "a head that names half a decision")
    if kind == "seal":
        due = {"wall_first", "wall_last", "mono_first", "mono_last"} if v["count"] == 0 else set()
        due |= {"close": {"next"}, "crash": {"next", "mac_key", "tag_key"}}.get(v["reason"], set())
        due |= {"head"} if v["reason"] != "crash" or not v["count"] else set()
        form(missing == due, "lines that it must not have, or that are not here")
    return v

NOTE, SIGNED = re.compile("[^\0-\x09\x0b-\x1f]+"), re.compile("(?:\N{EM DASH} [^\\s+\0-\x1f]+ [^ \n]+\n)+")

def read_note(data):
    """Text and signatures, each (key name, key hash, signature)."""
    form(len(data) <= MAX_NOTE, "a note too long")
    text, _, lines = text_of(data).rpartition("\n\n")
    form(NOTE.fullmatch(text) and SIGNED.fullmatch(lines), "not a signed note")
    rows = [row.split(" ") for row in lines[:-1].split("\n")]
    signatures = [(name, (raw := unbase64(word))[:4], raw[4:]) for _, name, word in rows]
    form(len(signatures) <= 16 and all(signature for _, _, signature in signatures), "signature lines")
    return text + "\n", signatures

def read_one(data, kind):
    """A note of ours, which has exactly one signature: text, its lines, that signature."""
    text, signatures = read_note(data)
    form(len(signatures) == 1 and len(signatures[0][2]) == 64, "not exactly one Ed25519 signature")
    return text, read_lines(text, kind), signatures[0]

def check_signer(text, signature, name, key):
    """By this name, else MALFORMED; by this key, if it is known, else TAMPERED."""
    form(signature[0] == name, f"signed as {signature[0][:100]!r}, not as {name!r}")
    good = key is None or signature[1] == key_hash(name, 1, key) and ed25519(key, signature[2], text.encode())
    need(good, "its signature is wrong")

def agree(lines, due):
    for name, value in due.items(): need(lines[name] == value, f"its line {name} is not what it must be")

# --- keys (SIGNING.md, "Keys")

ED25519 = bytes.fromhex("302a300506032b6570032100")
P256 = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
P, ORDER = 2**255 - 19, 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
SMALL = {0, 1, P - 1, *(int.from_bytes(bytes.fromhex(y), "little") for y in (  # y of the points of order 8 and less
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"))}

@functools.lru_cache(1_024)
def loaded(key): return Ed25519PublicKey.from_public_bytes(key)

def ed25519(key, signature, message):
    try: loaded(key).verify(signature, message)
    except (InvalidSignature, ValueError): return False
    return binds(key)

@functools.lru_cache(1_024)
def check_key(spki):
    """The point of a P-256 key; None of an Ed25519 key."""
    if len(spki) == 44 and spki.startswith(ED25519):
        return form(binds(spki[12:]), "a key whose signatures bind nobody")
    form(len(spki) == 91 and spki.startswith(P256), "not the SubjectPublicKeyInfo of an Ed25519 or P-256 key")
    try: return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), spki[26:])
    except ValueError: raise Flaw(MALFORMED, "not a point of the curve") from None

def signed_by(spki, signature, message):
    point = check_key(spki)
    if len(signature) != 64 or not point: return not point and ed25519(spki[12:], signature, message)
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    try: point.verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature: return False
    return 0 < r < ORDER and 0 < s < ORDER

def binds(key): return (y := int.from_bytes(key, "little") % 2**255) < P and y not in SMALL
def key_id(text): return sha(unbase64(text)).hex()
def key_hash(name, kind, key): return sha(name.encode(), b"\n", bytes([kind]), key)[:4]

# --- JSON (LEDGER.md, "Payload"): shapes as "name:code ..."; `name?` may be missing; `!`: no others
# Codes: a*: up to 10,000 of a; a+: at least one; a~: any number; a?: or null; a0: or empty; a|b: one of these strings;
# s256: a string of so many characters at most; else a reader of strings, a shape, or a value of CHECKS.

SHAPES = """
GENESIS! type:s format:sidecar/v1 nonce:hex identity:hex mode:any|all custodians:custodian* authority:hex? log:s?
    retention:s
OPEN! type:s epoch_note:hex seeds:share* software:s development:bool unconfirmed?:true accepted_loss?:hex
DECISION decision_id:id time:time agent:principal registry:registry_name? request:request request_digest:hex
    effect:ALLOW|DENY|REQUIRE_APPROVAL enforced:bool
    cause:policy|engine_error|engine_timeout|engine_unavailable|policy_undefined|policy_misshaped|policy_not_active|
    policy_stale|unshipped reasons:reason* obligations:obligation* alternatives:judged* result:any policy:policy
    peer:s executor:asserted? delegators:delegator* approval:approval? terms:terms? permit:until? timings:timings
    impure_builtins?:s+ receipt_check?:foreign
OUTCOME decision_id:id decision_seq:natural agent:who by:principal status:executed|blocked|failed response:s?
    response_digest:hex0? arguments_digest:hex0? permit:s downstream_status:s256 started_ns:duration0
    duration_ns:duration0
APPROVAL decision_id:id decision_seq:natural agent:who by:principal verdict:approve|reject action_digest:hex0
    arguments_digest:hex0 policy:policy_name comment:s1024
REJECTED call:s code:s field:s cause:s peer:s principal:s decision_id:s count:positive
POLICY event:activated|resumed|observed|refused engine:s engine_version:s entrypoint:s revision:s bundle_digest:hex0
    from:policy_name? source:source commit:commit? signer:signer? gate:step* impure_builtins:s*
TOMBSTONE! type:s subject:hex16 note:s body:s; CLOCK step_ns:ns; CLOSE reason:shutdown
REGISTRY event:activated|resumed|refused digest:hex0 revision:s source:file_source from:hex? cause:s registry:s
custodian! name:s kem:hpke|rsa-oaep spki:base64; share! commit:hex sealed:base64; registry_name revision:s digest:hex
resource type:s id:s; option action:s resource:resource arguments:object_text0
given text:s key:base64 signature:base64
request action:s resource:resource arguments:object_text0 context:object_text0 purpose:s alternatives:option*
    trace_parent:s idempotency_key:s last_receipt:base64 executor:s delegations:given* approval_of:s
reason code:s message:s; obligation kind:s parameters:object
judged effect:ALLOW|DENY|REQUIRE_APPROVAL reasons:reason*
policy engine:s engine_version:s entrypoint:s revision:s bundle_digest:s; policy_name revision:s bundle_digest:s
delegator id:s kind:s roles:s* attributes:object; until not_after:ns
approval decision_id:id decision_seq:natural approvals:approved*; approved seq:natural time:time by:asserted
terms count:positive roles:s* expires:time; timings evaluate_ns:ns
who id:s proof:asserted|mtls|signature|signature+mtls|gateway; asserted id:s roles:s* attributes:object
mtls id:s roles:s* attributes:object certificate:hex spiffe_id:s
signature id:s roles:s* attributes:object statement:s signature:base64 key:base64
signature+mtls id:s roles:s* attributes:object statement:s signature:base64 key:base64 certificate:hex spiffe_id:s
gateway id:s roles:s* attributes:object gateway:s gateway_proof:socket|mtls certificate:hex0 spiffe_id:s
source kind:git|directory|bundle|starter|opa place:s; file_source kind:git|directory|bundle|starter|opa|file place:s
commit id:s author:s committer:s authored:s committed:s subject:s; signer principal:s key:s
step step:s outcome:ended note:s findings:remark*; remark file:s line:natural message:s
registry! format:sidecar/v1/registry principals:person~
person! id:name kind:agent|executor|approver|user owner:s1024 purpose:s1024 status:active|suspended|revoked
    keys:person_key* spiffe_ids:spiffe* roles:s256* attributes:object
person_key! spki:spki not_before?:time not_after?:time status:active|revoked
spiffe! id:spiffe_id not_before?:time not_after?:time
delegation! format:sidecar/v1/delegation from:name to:name key:hex audience:audience actions:pattern+
    resources:pattern+ not_before:time not_after:time further:int parent:hex?
trust! format:sidecar/v1/trust chains:pinned~ policy?:s? tsa_roots?:bytes~ custodians?:hex~ principals?:pin~
pinned! chain:hex identity:hex; pin! id:s keys:hex~; keys! segment:natural mac_key:hex tag_key:hex
timestamp! format:sidecar/v1/timestamp checkpoint:tree nonce:nonce response:bytes
disclosure! format:sidecar/v1/disclosure chain:hex segments:keys~
case! format:sidecar/v1/evidence case:s200 from:time to:time agents:s+? profile:full|external exporter:s exported:time
    source:from chains:claim+ statements:said~
prune! format:sidecar/v1/prune chain:hex reason:told segments:run+; run! first:natural last:natural seal:hex
accept-loss! format:sidecar/v1/accept-loss chain:hex reason:told kept:spot lost:spot
spot! segment:natural seq:natural leaf:hex; personal! subject:hex16 fields:field+ sealed:bytes
field! in:s pointer:s at:natural? commit:hex; erase! format:sidecar/v1/erase chain:hex reason:told subject:hex16
openings! format:sidecar/v1/openings chains:opened~; opened! chain:hex complete:bool entries:opening~
opening! seq:natural opening:bytes; from! kind:ledger|collector place:s; said! chain:hex? kind:s text:s
claim! chain:hex first_segment:natural last_segment:natural entries:natural through:time?
""".strip().replace("|\n    ", "|").replace("\n    ", " ").replace("\n", "; ").split("; ")
SHAPES = dict(row.split(" ", 1) for row in SHAPES)

def like(pattern, read=str):
    """A reader of texts of this form."""
    fits = re.compile(pattern).fullmatch
    def reader(text): return read(text) if fits(text) else form(False, f"not as it must be spelt: {text[:60]!r}")
    return reader

def decimal(low, high):
    def bounded(text): return int(text) if low <= int(text) <= high else form(False, f"out of bounds: {text}")
    return like("0|-?[1-9][0-9]{0,19}", bounded)

def unbase64(text):  # RFC 4648 section 4, padded, canonical
    try: data = base64.b64decode(text.encode("ascii"), validate=True)
    except ValueError: raise Flaw(MALFORMED, "not base64") from None
    form(base64.b64encode(data).decode() == text, "base64 of another spelling")
    return data

def time_ns(text):
    """Nanoseconds since 1970 of a `time`."""
    form(TIME.fullmatch(text), "not a time")
    try: moment = datetime.datetime.fromisoformat(text[:19] + "+00:00")
    except ValueError: raise Flaw(MALFORMED, "no such time") from None
    return int(moment.timestamp()) * SECOND + int(text[20:29])

HEX, TIME = re.compile("[0-9a-f]{64}"), re.compile(r"[0-9]{4}(-[0-9]{2}){2}T(?!24)[0-9]{2}(:[0-9]{2}){2}\.[0-9]{9}Z")
unhex, number, u63 = like(HEX, bytes.fromhex), decimal(0, NONE), decimal(0, 2**63 - 1)
READERS = {
    "hex": unhex, "hex16": like("[0-9a-f]{32}"), "u64": number, "u32": decimal(0, 2**32 - 1), "u63": u63,
    "i64": decimal(-(2**63), 2**63 - 1), "duration": decimal(1, 10**19 - 1), "time": time_ns,
    "ns": like("0|-?[1-9][0-9]{0,18}"), "nonce": like("0|[1-9][0-9]{0,49}"), "tree": read_checkpoint,
    "base64": unbase64, "spki": lambda text: check_key(unbase64(text)), "bytes": lambda text: form(unbase64(text), ""),
    "id": like("[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"),
    "line": like("[!-~](?:[ -~]*[!-~])?"), "name": like("(?!.{257})[!-~](?:[ -~]*[!-~])?"),
    "told": like(r"[^\0-\x1f\x7f-\x9f]{1,1024}"), "audience": like(r"\*|[0-9a-f]{64}"), "pattern": like(r"[^*]+\*?|\*"),
    "spiffe_id": like(r"(?!.{2049})spiffe://[a-z0-9._-]{1,255}(?:/[A-Za-z0-9._-]+)+"),
    "object_text": lambda text: form(isinstance(strict(text.encode()), dict), "no JSON object"),
}
CHECKS = {
    "any": lambda v: True, "s": lambda v: isinstance(v, str), "bool": lambda v: isinstance(v, bool),
    "true": lambda v: v is True, "object": lambda v: isinstance(v, dict), "int": lambda v: type(v) is int,
    "ended": lambda v: v in ("passed", "failed", "not run"),
    "natural": lambda v: type(v) is int and v >= 0, "positive": lambda v: type(v) is int and v >= 1,
    "principal": lambda v: check("who")(v) and check(v["proof"])(v),
}

@functools.cache
def check(code):
    """Whether a JSON value is of this form, as a function."""
    if code in CHECKS: return CHECKS[code]
    if code in READERS: return reads(READERS[code])
    if code in SHAPES or f"{code}!" in SHAPES: return has_members(code)
    if re.fullmatch("s[0-9]+", code): return lambda v: isinstance(v, str) and len(v) <= int(code[1:])
    words = code.split("|")
    if code[-1] not in "?0*+~": return lambda v: v in words
    inner, most = check(code[:-1]), math.inf if code[-1] == "~" else 10_000
    if code[-1] == "?": return lambda v: v is None or inner(v)
    if code[-1] == "0": return lambda v: v == "" or inner(v)
    least = code[-1] == "+"
    return lambda v: isinstance(v, list) and least <= len(v) <= most and all(map(inner, v))

def reads(read):
    def holds(value):
        try: return isinstance(value, str) and (read(value), True)[1]
        except Flaw: return False
    return holds

def has_members(code):
    closed = f"{code}!" in SHAPES
    pairs = [pair.split(":", 1) for pair in SHAPES[f"{code}!" if closed else code].split()]
    rows = [(name.rstrip("?"), name[-1] != "?", check(of)) for name, of in pairs]
    names = {name for name, _, _ in rows}
    def holds(v):
        if not isinstance(v, dict) or closed and not v.keys() <= names: return False
        for name, due, inner in rows:
            if not inner(v[name]) if name in v else due: return False
        return True
    return holds

def read_json(data, shape):
    value = strict(data)
    form(check(shape)(value), f"not of the form of a {shape}")
    return value

LAST_TWO = "".join(chr(plane << 16 | low) for plane in range(17) for low in (0xFFFE, 0xFFFF))
NONCHARACTER = re.compile(f"[\ud800-\udfff\ufdd0-\ufdef{LAST_TWO}]")

def strict(data):
    text = text_of(data)
    try:
        value = DECODER(text)
        form(text.count("[") + text.count("{") <= 64 or depth(value) <= 64, "nested deeper than 64")
    except (ValueError, RecursionError) as error: raise Flaw(MALFORMED, f"not JSON: {str(error)[:80]}") from None
    if "\\u" in text: text += json.dumps(value, ensure_ascii=False)
    form(text.isascii() or not NONCHARACTER.search(text), "a surrogate or noncharacter")
    return value

def depth(value):
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)

def once(pairs):
    found = dict(pairs)
    form(len(found) == len(pairs), "a name twice in one object")
    return found

def integer(text):
    form(len(text) < 20 and abs(int(text)) < 2**53, "an integer beyond 2^53 - 1")
    return int(text)

def finite(text):
    form(math.isfinite(float(text)), "a number beyond a double")
    return float(text)

DECODER = json.JSONDecoder(object_pairs_hook=once, parse_int=integer, parse_float=finite, parse_constant=finite).decode

def text_of(data):
    try: return data.decode()
    except UnicodeDecodeError: raise Flaw(MALFORMED, "not UTF-8") from None

# --- bytes

def sha(*parts): return hashlib.sha256(b"".join(parts)).digest()
def mac(key, *parts): return hmac.digest(key, b"".join(parts), "sha256")
def u32(number): return number.to_bytes(4, "big")

def framed(*fields):
    """u32 length and bytes of each: what digests of messages are over (SIGNING.md, "Digests")."""
    return b"".join(u32(len(f)) + f for f in (f.encode() if isinstance(f, str) else f for f in fields))

def hashes_of(rows):
    found = [unbase64(row) for row in rows]
    form(len(found) <= 63 and all(len(each) == 32 for each in found), "no hash, or more than a proof has")
    return found

if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
