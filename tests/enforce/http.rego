# What the tests' gateway asks: decided by the path, and by what was seen of the body.
package agents

default decision := {"effect": "DENY", "reasons": [{"code": "not_listed", "message": "no rule allows this path"}]}

because := [{"code": "listed", "message": "the path is listed"}]

decision := {"effect": "ALLOW", "reasons": because, "obligations": duties} if {
	allowed
	not needs_approval
}

decision := {"effect": "ALLOW", "reasons": because, "obligations": []} if {
	needs_approval
	count(input.approvals) > 0
}

decision := {"effect": "REQUIRE_APPROVAL", "reasons": [{"code": "two", "message": "somebody must agree"}]} if {
	needs_approval
	count(input.approvals) == 0
}

needs_approval if startswith(input.arguments.path, "/approve/")

allowed if startswith(input.arguments.path, "/open/")

allowed if {
	input.arguments.path == "/pay"
	input.arguments.body_complete
	input.arguments.body.json.amount <= 100
}

allowed if {
	startswith(input.arguments.path, "/stream/")
	input.context.door.route == "streams"
}

allowed if {
	input.context.door.route == "grpc"
	startswith(input.arguments.path, "/echo.Echo/")
}

allowed if {
	input.arguments.path == "/role"
	"billing" in input.agent.roles
}

duties := [
	{"kind": "add_header", "parameters": {"name": "x-tenant", "value": input.agent.attributes.tenant}},
	{"kind": "remove_header", "parameters": {"name": "x-debug"}},
] if input.arguments.path == "/open/headers"

else := [{"kind": "dance", "parameters": {}}] if input.arguments.path == "/open/dance"

else := []
