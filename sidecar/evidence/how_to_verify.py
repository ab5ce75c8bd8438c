"""HOW-TO-VERIFY.txt: one page for who gets the bundle and trusts nobody."""

from __future__ import annotations

from sidecar.chain.payload import policy_time
from sidecar.chain.printable import number_of, without_zeros
from sidecar.verify.case import Case

_PAGE = """\
HOW TO VERIFY THIS BUNDLE

What it is: {what}
From {start} to {end}, exported {exported} by {exporter}.
The format is written down to the byte in proto/EVIDENCE.md of the project; anybody can write a verifier.

1. Get what you need from somebody else than whoever gave you this file:
   the trust file (which chains, which log, which witnesses), and a verifier. Those in this bundle, data/verify.py and
   data/verify.html, are as good as whoever put them there. Compare them with those of the same version in the
   project's repository, below sidecar/evidence/.

2. Run one of
     sidecar verify case.zip --trust trust.json
     python verify.py verify case.zip --trust trust.json         (needs Python and the package cryptography)
     open verify.html in a browser and drop the file on it        (no server, no network)
   The first word is the verdict: OK, REDACTED, PRUNED; UNANCHORED (all that was checked holds, but no log that you
   pinned vouches for it); INCOMPLETE, CLOCK; FORK, TAMPERED, MALFORMED. Read also what was not checked.

3. By hand, without any of these:
     unzip case.zip -d case && cd case
     sha256sum -c --strict manifest-sha256.txt tagmanifest-sha256.txt
   That tells damage from the way here, no more: whoever alters a file can write its line anew.
   The time that an authority put on the log's checkpoint, for each receipts/*.timestamp (JSON) of data/chains/*/:
     python3 -c 'import json,sys,base64; t=json.load(open(sys.argv[1]))
     open("checkpoint.txt","w").write(t["checkpoint"])
     open("response.tsr","wb").write(base64.b64decode(t["response"]))' FILE
     openssl ts -verify -data checkpoint.txt -in response.tsr -CAfile roots.pem

   Whoever made this bundle signs for its files in data/certificate.dsse.json, if that is there: an in-toto Statement in
   a DSSE envelope, for any such verifier and the exporter's public key, which you have from elsewhere. data/report.pdf
   carries its SHA-256. Neither is part of a verdict: what they say is true where the streams say it.

4. What this bundle does not prove, as far as whoever made it knows:
{statements}
"""


def how_to_verify(case: Case) -> str:
    """The page for a case."""
    what = "everything that these chains recorded" if case.agents is None else f"of {', '.join(case.agents)} alone"
    lines = [
        f"   - {'' if each.chain is None else f'chain {each.chain.hex()[:16]}: '}{each.text}"
        for each in case.statements
    ]
    return _PAGE.format(
        what=f"{case.name or 'evidence'}: {what}, {number_of(len(case.claims), 'chain')}",
        start=without_zeros(policy_time(case.start)),
        end=without_zeros(policy_time(case.end)),
        exported=without_zeros(policy_time(case.exported)),
        exporter=case.exporter,
        statements="\n".join(lines) or "   - (nothing was stated)",
    )
