# Money: a limit for each role and currency. Up to it the agent may act alone, above it somebody approves, above the cap nobody can.
package agents.payments

import data.agents.request

applies if request.action in data.registry.payments.actions

amount := request.arguments.amount if {
	is_number(request.arguments.amount)
	request.arguments.amount > 0
}

default currency := ""

currency := request.arguments.currency if is_string(request.arguments.currency)

limits contains limit if {
	some role in request.roles
	limit := data.registry.payments.limits[role][currency]
}

# Of several roles the most generous counts.
approval_above := max({limit.approval_above | some limit in limits})

cap := max({limit.cap | some limit in limits})

deny contains {"code": "amount_missing", "message": "arguments.amount must be a number above zero"} if {
	applies
	not amount
}

deny contains {"code": "currency_not_allowed", "message": "no role of this agent may pay in this currency"} if {
	applies
	count(limits) == 0
}

deny contains {"code": "amount_over_cap", "message": message} if {
	applies
	amount > cap
	message := sprintf("the amount is above the hard cap of %d %s for this agent's roles", [cap, currency])
}

approve contains {"code": "amount_over_limit", "message": message} if {
	applies
	amount > approval_above
	amount <= cap
	message := sprintf("amounts above %d %s need an approval", [approval_above, currency])
}

# Above it two people look.
four_eyes if {
	applies
	amount > max({limit.four_eyes_above | some limit in limits})
}

obligations contains {"kind": "log_level", "parameters": {"level": "full"}} if applies

obligations contains {"kind": "notify", "parameters": {"channel": "finance-controls"}} if {
	applies
	amount > approval_above
}
