package agents_test

import data.agents

ask(action, arguments) := {
	"agent": {"id": "billing-agent", "roles": ["billing"]},
	"action": action,
	"resource": {"type": "customer", "id": "acme-42"},
	"arguments": arguments,
}

refund(amount) := object.union(
	ask("payments.refund", {"amount": amount, "currency": "EUR"}),
	{"resource": {"type": "account", "id": "acct-17"}},
)

test_strangers_may_nothing if {
	agents.decision.effect == "DENY" with input as {"agent": {"id": "stranger"}, "action": "crm.read"}
}

test_customers_are_read if agents.decision.effect == "ALLOW" with input as ask("crm.read", {})

test_nothing_is_deleted if agents.decision.effect == "DENY" with input as ask("crm.delete", {})

test_small_refunds_are_made if agents.decision.effect == "ALLOW" with input as refund(100)

test_large_refunds_wait if agents.decision.effect == "REQUIRE_APPROVAL" with input as refund(100.01)

test_huge_refunds_are_not_made if agents.decision.effect == "DENY" with input as refund(5000.01)

test_an_amount_in_words_is_no_amount if agents.decision.effect == "DENY" with input as refund("100")

test_money_is_not_taken if agents.decision.effect == "DENY" with input as refund(-1)

test_approved_refunds_are_made if {
	agents.decision.effect == "ALLOW" with input as object.union(refund(1200), {"approvals": [{"approver": "ann"}]})
}
