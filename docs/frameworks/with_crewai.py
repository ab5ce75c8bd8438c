"""A crew of CrewAI before a sidecar; the model is written here, with its answers."""

from crewai import Agent, BaseLLM, Crew, Task
from crewai.hooks import register_before_tool_call_hook
from crewai.tools import tool

from sidecar.client import AgentKey, Guard
from sidecar.enforce.crewai import guarded, guarded_only

key = AgentKey.from_file("billing-agent.pem")
guard = Guard("unix:ledger/sidecar.sock", agent="billing-agent", key=key)


@tool
def read_customer(customer: str) -> str:
    """Read what is known of a customer."""
    return f"{customer}: Acme GmbH"


class Model(BaseLLM):
    """Calls the tool, then ends with what it was told."""

    def call(self, messages, *_, **__):
        said = next((each["content"] for each in messages if each["role"] == "assistant"), None)
        if said is None:
            return 'Thought: look\nAction: read_customer\nAction Input: {"customer": "acme-42"}'
        return f"Thought: I now know the final answer\nFinal Answer: {said.partition('Observation:')[2].strip()}"

    def supports_function_calling(self):
        return False


register_before_tool_call_hook(guarded_only)  # what CrewAI would add by itself does not run
agent = Agent(role="clerk", goal="help", backstory="-", llm=Model(model="here"), tools=guarded([read_customer], guard))
task = Task(description="Who is our customer?", expected_output="a name", agent=agent)
print(Crew(agents=[agent], tasks=[task]).kickoff())
