"""What the fleet log holds: the texts of epoch notes, seals and roll-calls; and what a receipt's ``extra`` says was
logged (proto/LOG.md, "Entries" and "Receipt"). The first line of a text is its kind.
"""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.chain import epoch, note, rollcall, seal
from sidecar.chain.epoch import EpochNote
from sidecar.chain.rollcall import Answer, RollCall
from sidecar.chain.seal import Seal
from sidecar.errors import Malformed

Entry = EpochNote | Seal | RollCall


def parse_entry(text: str) -> Entry:
    """An entry of the log.

    Raises:
        Malformed: of no kind that the log takes, or not as strict as its kind.
    """
    kind = text.partition("\n")[0]
    if kind == epoch.KIND:
        return EpochNote.parse(text)
    if kind == seal.KIND:
        return Seal.parse(text)
    if kind == rollcall.KIND:
        return RollCall.parse(text)
    raise Malformed("log: an entry is the text of an epoch note, a seal or a roll-call")


def entry_of(signed: bytes) -> bytes:
    """The entry of a batch's item: the text of a signed note; a roll-call, which has no signature, is its own.

    Raises:
        Malformed: neither, or more or fewer signatures than one.
    """
    if signed.startswith(f"{rollcall.KIND}\n".encode()) and b"\n\n" not in signed:
        RollCall.parse(text_of(signed))
        return signed
    read = note.parse(signed)
    if isinstance(parse_entry(read.text), RollCall) or len(read.signatures) != 1:
        raise Malformed("log: an epoch note or seal has one signature, a roll-call none")
    return read.text.encode()


def text_of(data: bytes) -> str:
    """The text of an entry's bytes. Raises Malformed where they are not UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Malformed("log: an entry is not valid UTF-8") from None


@dataclass(frozen=True, slots=True)
class Logged:
    """What a receipt says was logged: the entry, its text, and of a roll-call one chain's answer.

    Raises:
        Malformed: an answer to anything but a roll-call, or a roll-call without one.
    """

    entry: Entry
    text: str
    answer: Answer | None = None

    def __post_init__(self) -> None:
        if isinstance(self.entry, RollCall) != (self.answer is not None):
            raise Malformed("receipt: an answer goes with a roll-call and nothing else")

    @property
    def chain_id(self) -> bytes:
        """The chain it is about."""
        if isinstance(self.entry, RollCall):
            assert self.answer is not None
            return self.answer.standing.chain_id
        return self.entry.chain_id

    def extra(self) -> bytes:
        """The receipt's ``extra``."""
        return (self.text if self.answer is None else f"{self.text}\n{self.answer.text()}").encode()

    @classmethod
    def parse(cls, extra: bytes) -> Logged:
        """Read a receipt's ``extra``; nothing is verified.

        Raises:
            Malformed: not of this form.
        """
        text, separator, answer = text_of(extra).partition("\n\n")
        if separator:
            return cls(parse_entry(text + "\n"), text + "\n", Answer.parse(answer))
        return cls(parse_entry(text), text)
