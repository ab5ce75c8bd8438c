# What is asked, with every field checked: the other rules build on these values and never on raw input, so that a field of the
# wrong type cannot slip past a rule by making it undefined. A malformed request is denied.
package agents.request

default agent := ""

agent := input.agent.id if is_string(input.agent.id)

default action := ""

action := input.action if is_string(input.action)

default resource := {"type": "", "id": ""}

resource := {"type": input.resource.type, "id": input.resource.id} if {
	is_string(input.resource.type)
	is_string(input.resource.id)
}

default arguments := {}

arguments := input.arguments if arguments_given

# a rule of its own: `not is_object(input.arguments)` would be undefined where arguments are missing
arguments_given if is_object(input.arguments)

default purpose := ""

purpose := trim_space(input.purpose) if is_string(input.purpose)

# RFC 3339 in UTC, years 2000 to 2099, days that exist: whatever passes here, time.parse_rfc3339_ns can read.
date_pattern := concat("|", [
	`20[0-9]{2}-(0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])`,
	`20[0-9]{2}-(0[469]|11)-(0[1-9]|[12][0-9]|30)`,
	`20[0-9]{2}-02-(0[1-9]|1[0-9]|2[0-8])`,
	`20([02468][048]|[13579][26])-02-29`,
])

time_pattern := concat("", [`^(`, date_pattern, `)T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?Z$`])

now := time.parse_rfc3339_ns(input.time) if {
	is_string(input.time)
	regex.match(time_pattern, input.time)
}

roles contains role if {
	some role in data.registry.agents[agent].roles
}

# Patterns are plain names, or a service with all its actions: "payments.*".
matches(pattern, name) if pattern == name

matches(pattern, name) if {
	endswith(pattern, ".*")
	startswith(name, trim_suffix(pattern, "*"))
}

deny contains malformed("agent.id is not a name") if agent == ""

deny contains malformed("action is not a name") if action == ""

deny contains malformed("resource is not a type and an id") if resource.type == ""

deny contains malformed("arguments is not an object") if not arguments_given

deny contains malformed("time is not a UTC time of this century") if not now

malformed(message) := {"code": "malformed_request", "message": message}
