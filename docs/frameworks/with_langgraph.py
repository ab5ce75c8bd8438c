"""A graph of LangGraph whose tools run before a sidecar; what calls a tool here is a node, not a model."""

from langchain_core.messages import AIMessage, ToolCall
from langgraph.graph import START, MessagesState, StateGraph

from sidecar.client import AgentKey, Guard
from sidecar.enforce.langchain import tool_node

key = AgentKey.from_file("billing-agent.pem")
guard = Guard("unix:ledger/sidecar.sock", agent="billing-agent", key=key)


def read_customer(customer: str) -> str:
    """Read what is known of a customer."""
    return f"{customer}: Acme GmbH"


def model(state: MessagesState) -> dict:
    """A node that calls the tool."""
    return {"messages": [AIMessage("", tool_calls=[ToolCall(name="read_customer", args={"customer": "a"}, id="1")])]}


graph = StateGraph(MessagesState).add_node("model", model).add_edge(START, "model")
graph.add_node("tools", tool_node([read_customer], guard))
graph.add_edge("model", "tools")
print(graph.compile().invoke({"messages": []})["messages"][-1].content)
