"""Decision Sidecar: a policy decision point beside each agent that can prove what it answered and why."""

__version__ = "0.1.0"
