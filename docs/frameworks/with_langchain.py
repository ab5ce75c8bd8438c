"""A LangChain agent before a sidecar; the model is LangChain's own for tests, with its answers written here."""

from langchain.agents import create_agent
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, ToolCall

from sidecar.client import AgentKey, Guard
from sidecar.enforce.langchain import GuardedTools

key = AgentKey.from_file("billing-agent.pem")
guard = Guard("unix:ledger/sidecar.sock", agent="billing-agent", key=key)


def read_customer(customer: str) -> str:
    """Read what is known of a customer."""
    return f"{customer}: Acme GmbH"


class Model(GenericFakeChatModel):
    """The model for tests takes no tools by itself."""

    def bind_tools(self, tools, **_):
        return self


call = ToolCall(name="read_customer", args={"customer": "acme-42"}, id="1")
model = Model(messages=iter([AIMessage("", tool_calls=[call]), AIMessage("done")]))

agent = create_agent(model, [read_customer], middleware=[GuardedTools(guard)])
for message in agent.invoke({"messages": [{"role": "user", "content": "Who is our customer?"}]})["messages"]:
    print(message.content)
