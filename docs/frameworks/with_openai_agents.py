"""The OpenAI Agents SDK before a sidecar; the model is the SDK's own for tests, with its answers written here."""

from agents import Agent, RunConfig, Runner, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call

from sidecar.client import AgentKey, AsyncGuard
from sidecar.enforce.openai_agents import GuardedOnly, guarded

key = AgentKey.from_file("billing-agent.pem")
guard = AsyncGuard("unix:ledger/sidecar.sock", agent="billing-agent", key=key)


@function_tool
def read_customer(customer: str) -> str:
    """Read what is known of a customer."""
    return f"{customer}: Acme GmbH"


call = function_call("read_customer", {"customer": "acme-42"}, call_id="1")
model = ScriptedModel([[call], [assistant_message("done")]])

agent = Agent("Billing", model=model, tools=guarded([read_customer], guard))
quiet = RunConfig(tracing_disabled=True)
run = Runner.run_sync(agent, "Who is our customer?", run_config=quiet, hooks=GuardedOnly())
print(*[item.output for item in run.new_items if item.type == "tool_call_output_item"])
