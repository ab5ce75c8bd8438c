# Who may do what at all: an agent has roles, a role has scopes. Nothing is allowed that no scope grants.
package agents.scopes

import data.agents.request

granted := granted_to(request.roles)

granted_to(roles) := {{"role": role, "action": scope.action, "resource": scope.resource} |
	some role in roles
	some scope in data.registry.roles[role].scopes
	request.matches(scope.action, request.action)
	resource_covered(scope)
}

resource_covered(scope) if {
	scope.resource in {request.resource.type, "*"}
	not scope.ids
}

resource_covered(scope) if {
	scope.resource == request.resource.type
	some pattern in scope.ids
	id_covered(pattern)
}

id_covered(pattern) if pattern == request.resource.id

id_covered(pattern) if {
	endswith(pattern, "*")
	startswith(request.resource.id, trim_suffix(pattern, "*"))
}

clearances contains clearance if {
	some role in request.roles
	some clearance in data.registry.roles[role].clearances
}

deny contains {"code": "unknown_agent", "message": "this agent is not in the registry"} if {
	not request.known
}

deny contains {"code": "no_scope", "message": "no role of this agent grants this action on this resource"} if {
	request.known
	count(granted) == 0
}
