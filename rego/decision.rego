# The decision: every rule is heard, one refusal is enough, an approval is next, and only what a scope grants is allowed.
#
#   {"effect": "ALLOW" | "DENY" | "REQUIRE_APPROVAL",
#    "reasons": [{"code", "message"}], "obligations": [{"kind", "parameters"}], "granted_by": [{"role", "action", "resource"}],
#    "approval": {"count", "roles", "expires_seconds"}}, the last with REQUIRE_APPROVAL alone.
#
# Reasons and obligations are sorted, so that the same request always gets the same bytes.
package agents

import data.agents.approval
import data.agents.changes
import data.agents.delegation
import data.agents.hours
import data.agents.payments
import data.agents.request
import data.agents.scopes
import data.agents.sensitive

denials := (((((request.deny | scopes.deny) | payments.deny) | hours.deny) | sensitive.deny) | changes.deny) | delegation.deny

approvals := ((payments.approve | hours.approve) | sensitive.approve) | changes.approve

duties := (payments.obligations | sensitive.obligations) | changes.obligations

# Only if no rule at all had something to say, which none of the rules above lets happen.
default decision := {
	"effect": "DENY",
	"reasons": [{"code": "no_decision", "message": "no rule allowed this"}],
	"obligations": [],
	"granted_by": [],
}

# METADATA
# description: May this agent do this? Always defined.
# entrypoint: true
decision := {
	"effect": "DENY",
	"reasons": sort(denials),
	"obligations": [],
	"granted_by": sort(scopes.granted),
} if {
	count(denials) > 0
} else := {
	"effect": "REQUIRE_APPROVAL",
	"reasons": sort(approvals),
	"obligations": sort(duties),
	"granted_by": sort(scopes.granted),
	"approval": approval.terms,
} if {
	count(approvals) > 0
	not approval.approved
} else := {
	"effect": "ALLOW",
	"reasons": [{"code": "approved", "message": sprintf("approved by %s", [concat(" and ", sort(approval.given))])}],
	"obligations": sort(duties),
	"granted_by": sort(scopes.granted),
} if {
	count(approvals) > 0
	count(scopes.granted) > 0
} else := {
	"effect": "ALLOW",
	"reasons": [{"code": "granted", "message": "a role of this agent grants this action on this resource"}],
	"obligations": sort(duties),
	"granted_by": sort(scopes.granted),
} if {
	count(scopes.granted) > 0
}
