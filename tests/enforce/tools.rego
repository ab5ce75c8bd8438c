package agents

default decision := {"effect": "DENY", "reasons": [{"code": "not_granted", "message": "no rule allows this"}]}

# What a door of a framework asks: the name of the file that a tool would write says what comes of it.
called if {
	input.action == "tool.call"
	input.resource == {"type": "tool", "id": input.context.door.tool}
	not forbidden
}

forbidden if startswith(input.arguments.name, "forbidden")

asks if startswith(input.arguments.name, "ask")

decision := {"effect": "ALLOW", "reasons": [{"code": "tool", "message": "a tool of this agent"}]} if {
	called
	not asks
	not obliges
}

obliges if startswith(input.arguments.name, "obliged")

decision := {
	"effect": "ALLOW",
	"reasons": [{"code": "tool", "message": "a tool of this agent"}],
	"obligations": [{"kind": "sing", "parameters": {}}],
} if {
	called
	obliges
}

decision := {"effect": "ALLOW", "reasons": [{"code": "approved", "message": "somebody approved"}]} if {
	called
	asks
	count(input.approvals) > 0
}

decision := {"effect": "REQUIRE_APPROVAL", "reasons": [{"code": "asks", "message": "a person decides"}], "approval": {}} if {
	called
	asks
	count(input.approvals) == 0
}

decision := {"effect": "ALLOW", "reasons": [{"code": "crm", "message": "customers may be read"}]} if {
	input.action == "crm.read"
}
