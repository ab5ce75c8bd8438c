"""An agent of accounts: it looks customers up and pays refunds, each only after the sidecar beside it said so.

    python agent.py [--rounds N]     # 0: until SIGTERM

DECISION_SIDECAR is where the sidecar listens; AGENT_KEY the agent's private key, without which it merely says its name
(a sidecar in development takes that). What it would do to a customer or an account is printed in its place.
"""

import argparse
import os
import signal
import threading

from sidecar.client import AgentKey, ApprovalRequired, Guard, Refused, Status

JOBS = [("acme-42", "acct-17", 40), ("acme-42", "acct-17", 1200), ("acme-42", "acct-17", 90_000)]
PATIENCE = float(os.environ.get("APPROVAL_SECONDS", "5"))  # how long it waits for somebody to approve
PAUSE = 10.0

ended = threading.Event()


def read_customer(guard: Guard, customer: str) -> None:
    with guard.guarded("crm.read", ("customer", customer), {}):
        print(f"read customer {customer}", flush=True)


def refund(guard: Guard, account: str, amount: int) -> None:
    try:
        with guard.guarded("payments.refund", ("account", account), {"amount": amount, "currency": "EUR"}):
            pay(account, amount)
    except ApprovalRequired as needed:
        print(f"{needed.decision.decision_id} waits for somebody to approve a refund of {amount} EUR", flush=True)
        approved = guard.wait_for_approval(needed, timeout=PATIENCE)  # raises, or pay now, once
        pay(account, amount)
        guard.report(approved.decision_id, Status.EXECUTED, {"amount": amount})


def pay(account: str, amount: int) -> None:
    print(f"paid {amount} EUR to {account}", flush=True)


def work(guard: Guard) -> None:
    for customer, account, amount in JOBS:
        try:
            read_customer(guard, customer)
            refund(guard, account, amount)
        except Refused as refusal:
            print(f"not done: {refusal}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=0)
    rounds = parser.parse_args().rounds
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    path = os.environ.get("AGENT_KEY")
    key = AgentKey.from_file(path) if path else None
    with Guard(os.environ["DECISION_SIDECAR"], agent="billing-agent", key=key) as guard:
        done = 0
        while not ended.is_set():
            work(guard)
            done += 1
            if done == rounds:
                break
            ended.wait(PAUSE)


if __name__ == "__main__":
    main()
