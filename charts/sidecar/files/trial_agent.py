"""The agent of a trial: asks, again and again, for what the starter policy allows it and for what it does not."""

import os
import signal
import threading

from sidecar.client import Guard, Refused

ended = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ended.set())

with Guard(os.environ["DECISION_SIDECAR"], agent="billing-agent") as guard:
    while True:
        for action in ("crm.read", "crm.delete"):
            try:
                with guard.guarded(action, ("customer", "acme-42"), {}):
                    print(f"{action}: allowed, and done", flush=True)
            except Refused as refusal:
                print(f"{action}: not done: {refusal}", flush=True)
        if ended.wait(10.0):
            break
