# What a PEP over AuthZEN asks in the tests: the Todo scenario, and the fixture of the certification, by other words.
package agents

default decision := {"effect": "DENY", "reasons": [{"code": "not_granted", "message": "no rule grants this"}]}

decision := {"effect": "ALLOW", "reasons": [{"code": "granted", "message": "a rule grants it"}], "obligations": []} if {
	input.context.door.kind == "authzen"
	granted
}

decision := {"effect": "REQUIRE_APPROVAL", "reasons": [{"code": "two", "message": "somebody must agree"}]} if {
	input.action == "share"
	count(input.approvals) == 0
}

granted if {
	input.action == "share"
	count(input.approvals) > 0
}

user := input.arguments.subject.id

# --- the Todo scenario

people := {
	"CiRmZDA2MTRkMy1jMzlhLTQ3ODEtYjdiZC04Yjk2ZjVhNTEwMGQSBWxvY2Fs": {"email": "rick@the-citadel.com", "roles": {"admin", "evil_genius"}},
	"CiRmZDE2MTRkMy1jMzlhLTQ3ODEtYjdiZC04Yjk2ZjVhNTEwMGQSBWxvY2Fs": {"email": "morty@the-citadel.com", "roles": {"editor"}},
	"CiRmZDI2MTRkMy1jMzlhLTQ3ODEtYjdiZC04Yjk2ZjVhNTEwMGQSBWxvY2Fs": {"email": "summer@the-smiths.com", "roles": {"editor"}},
	"CiRmZDM2MTRkMy1jMzlhLTQ3ODEtYjdiZC04Yjk2ZjVhNTEwMGQSBWxvY2Fs": {"email": "beth@the-smiths.com", "roles": {"viewer"}},
	"CiRmZDQ2MTRkMy1jMzlhLTQ3ODEtYjdiZC04Yjk2ZjVhNTEwMGQSBWxvY2Fs": {"email": "jerry@the-smiths.com", "roles": {"viewer"}},
}

roles := people[user].roles

owns if {
	"editor" in roles
	input.arguments.resource.properties.ownerID == people[user].email
}

granted if {
	input.action in {"can_read_user", "can_read_todos"}
	people[user]
}

granted if {
	input.action == "can_create_todo"
	roles & {"admin", "editor"} != set()
}

granted if {
	input.action == "can_update_todo"
	"evil_genius" in roles
}

granted if {
	input.action == "can_delete_todo"
	"admin" in roles
}

granted if {
	input.action in {"can_update_todo", "can_delete_todo"}
	owns
}

# --- the certification's fixture

archived if input.arguments.resource.properties.status == "archived"

granted if {
	input.resource.type == "record"
	input.action == "read"
	user in {"alice", "bob"}
}

granted if {
	input.resource.type == "record"
	input.action == "write"
	user == "alice"
	not archived
}

granted if {
	input.resource.type == "record"
	input.action == "write"
	input.arguments.subject.properties.role == "admin"
}

granted if {
	input.resource.type == "record"
	input.action == "delete"
	user == "alice"
	input.arguments.action.properties.soft == true
}

# --- the API gateways' scenario: routes by name

granted if {
	input.resource.type == "route"
	input.resource.id in {"/users/{userId}", "/todos"}
	input.action == "GET"
	people[user]
}

granted if {
	input.resource.type == "route"
	input.action in {"POST", "PUT", "DELETE"}
	input.resource.id in {"/todos", "/todos/{todoId}"}
	roles & {"admin", "evil_genius", "editor"} != set()
}
