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
time_pattern := `^20[0-9]{2}-[01][0-9]-[0-3][0-9]T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?Z$`

now := time.parse_rfc3339_ns(input.time) if {
	is_string(input.time)
	regex.match(time_pattern, input.time)
	day_exists(substring(input.time, 2, 2), substring(input.time, 5, 2), substring(input.time, 8, 2))
}

# not in the expression, which would be four times as large: Wasm compiles it for each decision
day_exists(_, month, day) if {
	to_number(day) >= 1
	to_number(day) <= days[month]
}

day_exists(year, "02", "29") if to_number(year) % 4 == 0

days := {
	"01": 31, "02": 28, "03": 31, "04": 30, "05": 31, "06": 30,
	"07": 31, "08": 31, "09": 30, "10": 31, "11": 30, "12": 31,
}

# Of the sidecar's registry of principals, which the agent cannot influence, and of data.json.
roles contains role if {
	is_array(input.agent.roles)
	some role in input.agent.roles
}

roles contains role if {
	some role in data.registry.agents[agent].roles
}

known if count(roles) > 0

known if data.registry.agents[agent]

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
