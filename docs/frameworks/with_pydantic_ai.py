"""PydanticAI before a sidecar; the model is PydanticAI's own for tests, which calls each tool once."""

from pydantic_ai import Agent
from pydantic_ai.models.test import TestModel

from sidecar.client import AgentKey, AsyncGuard
from sidecar.enforce.pydantic_ai import GuardedTools

key = AgentKey.from_file("billing-agent.pem")
guard = AsyncGuard("unix:ledger/sidecar.sock", agent="billing-agent", key=key)


def read_customer(customer: str) -> str:
    """Read what is known of a customer."""
    return f"{customer}: Acme GmbH"


agent = Agent(TestModel(), tools=[read_customer], capabilities=[GuardedTools(guard)])
print(agent.run_sync("Who is our customer?").output)
