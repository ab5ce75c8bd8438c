# What agents may do: customers are read by whoever has the role, small refunds are made, larger ones wait for a person.
# Roles come from registry.json, which no agent can influence; a field of the wrong type makes a rule undefined, and
# what no rule allows is denied.
package agents

default decision := {
	"effect": "DENY",
	"reasons": [{"code": "not_granted", "message": "no rule allows this"}],
}

decision := {
	"effect": "ALLOW",
	"reasons": [{"code": "reader", "message": "this role may read customers"}],
} if {
	reads_customers
}

decision := {
	"effect": "ALLOW",
	"reasons": [{"code": "small_refund", "message": "refunds up to 100 EUR need nobody"}],
} if {
	refund
	input.arguments.amount <= 100
}

decision := {
	"effect": "REQUIRE_APPROVAL",
	"reasons": [{"code": "large_refund", "message": "somebody of finance approves refunds of more than 100 EUR"}],
	"approval": {"count": 1, "roles": ["finance-lead"], "expires_seconds": 3600},
} if {
	refund
	input.arguments.amount > 100
	not approved
}

# What was approved is told on the second asking; who approved, and how many, the sidecar has held to the terms above.
decision := {
	"effect": "ALLOW",
	"reasons": [{"code": "approved_refund", "message": "a refund that somebody of finance approved"}],
} if {
	refund
	input.arguments.amount > 100
	approved
}

reads_customers if {
	"billing" in input.agent.roles
	input.action == "crm.read"
	input.resource.type == "customer"
}

refund if {
	"billing" in input.agent.roles
	input.action == "payments.refund"
	input.resource.type == "account"
	input.arguments.currency == "EUR"
	is_number(input.arguments.amount)
	input.arguments.amount > 0
	input.arguments.amount <= 5000
}

approved if count(input.approvals) > 0
