package agents_test

import data.agents

monday_noon := "2026-11-23T12:00:00.000000000Z"

sunday_noon := "2026-11-22T12:00:00Z"

ask(agent, action, type, id, arguments) := {
	"agent": {"id": agent, "proof": "asserted", "attributes": {}},
	"action": action,
	"resource": {"type": type, "id": id},
	"arguments": arguments,
	"context": {},
	"purpose": "quarterly review of open items",
	"time": monday_noon,
}

at(request, time) := object.union(request, {"time": time})

decide(request) := decision if {
	decision := agents.decision with input as request
}

effect(request) := decide(request).effect

codes(request) := [reason.code | some reason in decide(request).reasons]

kinds(request) := [duty.kind | some duty in decide(request).obligations]

pay(amount, currency) := ask("billing-agent", "payments.transfer", "account", "acct-17", {
	"amount": amount,
	"currency": currency,
})

# --- requests that are not requests ---

test_malformed_denied if {
	some odd in [{}, [], "x", 7, null, {"agent": "billing-agent"}, {"agent": {"id": 7}, "action": [], "resource": {"type": 1, "id": 2}}]
	decision := decide(odd)
	decision.effect == "DENY"
	"malformed_request" in {reason.code | some reason in decision.reasons}
}

test_no_input_denied if {
	agents.decision.effect == "DENY"
}

test_each_field_is_named if {
	messages := {reason.message | some reason in decide({}).reasons}
	messages == {
		"agent.id is not a name",
		"action is not a name",
		"resource is not a type and an id",
		"arguments is not an object",
		"time is not a UTC time of this century",
		"this agent is not in the registry",
	}
}

test_odd_times_denied if {
	every time in [
		"2026-02-29T12:00:00Z", "2026-04-31T12:00:00Z", "2026-13-01T12:00:00Z", "2026-11-23T24:00:00Z", "1999-11-23T12:00:00Z",
		"2026-11-23T12:00:00+01:00", "2026-11-23 12:00:00Z", "2026-11-23T12:00:60Z", "", 7, null, "2026-11-23T12:00:00.0000000001Z",
	] {
		effect(at(pay(10, "EUR"), time)) == "DENY"
		codes(at(pay(10, "EUR"), time)) == ["malformed_request"]
	}
}

test_leap_day_is_a_day if effect(at(ask("support-agent", "tickets.create", "ticket", "t", {}), "2028-02-29T12:00:00Z")) == "ALLOW"

test_nothing_said_is_denied if {
	decision := agents.decision with input as pay(10, "EUR")
		with data.registry as {"agents": {"billing-agent": {"roles": []}}}
		with data.agents.scopes.deny as set()
	decision.effect == "DENY"
	[reason.code | some reason in decision.reasons] == ["no_decision"]
}

# --- scopes ---

test_unknown_agent if codes(ask("stranger", "crm.read", "customer", "c-1", {})) == ["unknown_agent"]

test_known_agent_without_scope if codes(ask("research-agent", "deploy.rollout", "service", "web", {"environment": "test"})) == ["no_scope"]

test_scope_by_service if effect(ask("support-agent", "tickets.update", "ticket", "t-1", {})) == "ALLOW"

test_scope_needs_resource_type if codes(ask("support-agent", "tickets.update", "invoice", "t-1", {})) == ["no_scope"]

test_scope_is_no_prefix_match if codes(ask("support-agent", "ticketsx.update", "ticket", "t-1", {})) == ["no_scope"]

test_scope_by_id if {
	effect(ask("billing-agent", "db.query", "table", "billing.invoices", {"columns": ["total"]})) == "ALLOW"
	codes(ask("billing-agent", "db.query", "table", "hr.salaries", {"columns": ["total"]})) == ["no_scope"]
}

test_scope_by_exact_id if {
	decision := agents.decision with input as ask("a", "files.read", "file", "/etc/motd", {})
		with data.registry.agents as {"a": {"roles": ["r"]}}
		with data.registry.roles as {"r": {"scopes": [{"action": "files.read", "resource": "file", "ids": ["/etc/motd"]}]}}
	decision.effect == "ALLOW"
}

test_granting_scope_is_told if {
	decide(ask("support-agent", "tickets.create", "ticket", "t", {})).granted_by == [{
		"role": "support", "action": "tickets.*", "resource": "ticket",
	}]
}

# --- payments ---

test_payment_within_limit if effect(pay(1000, "EUR")) == "ALLOW"

test_payment_above_limit if {
	effect(pay(1000.01, "EUR")) == "REQUIRE_APPROVAL"
	codes(pay(1000.01, "EUR")) == ["amount_over_limit"]
	kinds(pay(1000.01, "EUR")) == ["log_level", "notify"]
}

test_payment_above_cap if {
	codes(pay(50001, "EUR")) == ["amount_over_cap"]
	kinds(pay(50001, "EUR")) == []
	decide(pay(50001, "EUR")).reasons[0].message == "the amount is above the hard cap of 50000 EUR for this agent's roles"
}

test_payment_amounts_that_are_none if {
	every amount in [0, -5, "100", null, [1000], {"value": 1}, true] {
		codes(pay(amount, "EUR")) == ["amount_missing"]
	}
}

test_payment_currencies if {
	codes(pay(10, "JPY")) == ["currency_not_allowed"]
	codes(pay(10, 978)) == ["currency_not_allowed"]
}

test_refund_limits_are_the_roles_own if {
	refund := ask("support-agent", "payments.refund", "account", "acct-1", {"amount": 51, "currency": "EUR"})
	codes(refund) == ["amount_over_limit"]
	codes(ask("support-agent", "payments.refund", "account", "acct-1", {"amount": 501, "currency": "EUR"})) == ["amount_over_cap"]
}

test_all_refusals_are_told_in_order if {
	codes(ask("stranger", "payments.transfer", "account", "acct-1", {})) == ["amount_missing", "currency_not_allowed", "unknown_agent"]
}

# --- hours ---

test_transfer_on_sunday_needs_approval if {
	codes(at(pay(10, "EUR"), sunday_noon)) == ["outside_hours"]
	effect(at(pay(10, "EUR"), sunday_noon)) == "REQUIRE_APPROVAL"
}

test_hours_begin_and_end if {
	effect(at(pay(10, "EUR"), "2026-11-23T07:00:00Z")) == "ALLOW"
	effect(at(pay(10, "EUR"), "2026-11-23T18:59:59.999999999Z")) == "ALLOW"
	effect(at(pay(10, "EUR"), "2026-11-23T19:00:00Z")) == "REQUIRE_APPROVAL"
	effect(at(pay(10, "EUR"), "2026-11-23T06:59:59Z")) == "REQUIRE_APPROVAL"
}

test_export_at_night_denied if {
	request := ask("support-agent", "crm.export", "customer", "all", {"destination": "x@example.com"})
	effect(request) == "ALLOW"
	codes(at(request, "2026-11-23T23:00:00Z")) == ["outside_hours"]
	effect(at(request, "2026-11-23T23:00:00Z")) == "DENY"
}

# --- sensitive data ---

query(agent, columns) := ask(agent, "db.query", "table", "billing.customers", {"columns": columns})

test_pii_masked_without_clearance if {
	decision := decide(query("research-agent", ["Email", "country", "SSN"]))
	decision.effect == "ALLOW"
	decision.obligations == [{"kind": "mask_fields", "parameters": {"fields": ["email", "ssn"]}}]
}

test_pii_with_clearance if decide(query("billing-agent", ["email"])).obligations == []

test_health_denied if codes(query("billing-agent", ["email", "diagnosis"])) == ["health_data"]

test_columns_must_be_named if {
	every columns in [["*"], [], "email", null, [7], ["a", "t.*"]] {
		codes(query("research-agent", columns)) == ["columns_not_named"]
	}
}

export(arguments) := ask("support-agent", "crm.export", "customer", "all", arguments)

test_export_inside if effect(export({"destination": "reports@Corp.Example.com"})) == "ALLOW"

test_export_outside_denied_unless_declared if {
	codes(export({"destination": "x@partner.test"})) == ["personal_data_leaves"]
	codes(export({"destination": "x@partner.test", "contains_personal_data": false})) == ["external_export"]
	codes(export({"destination": "x@example.com@partner.test", "contains_personal_data": true})) == ["personal_data_leaves"]
	codes(export({"destination": 7})) == ["personal_data_leaves"]
}

test_export_needs_destination if codes(export({})) == ["destination_missing"]

test_export_needs_purpose if codes(object.union(export({"destination": "x@example.com"}), {"purpose": " why? "})) == ["purpose_missing"]

mail(arguments) := ask("support-agent", "email.send", "mailbox", "support@example.com", arguments)

test_mail if {
	effect(mail({"to": ["a@example.com"], "attachments": ["r.pdf"]})) == "ALLOW"
	effect(mail({"to": ["a@customer.test"]})) == "ALLOW"
	kinds(mail({"to": ["a@customer.test"]})) == ["log_level"]
	codes(mail({"to": ["a@customer.test"], "attachments": ["r.pdf"]})) == ["external_attachment"]
	codes(mail({"to": "a@customer.test"})) == ["destination_missing"]
	codes(mail({})) == ["destination_missing"]
}

test_mail_only_from_the_teams_mailbox if {
	codes(ask("support-agent", "email.send", "mailbox", "ceo@example.com", {"to": ["a@example.com"]})) == ["no_scope"]
}

test_secrets_in_arguments if {
	every text in [
		"-----BEGIN RSA PRIVATE KEY-----", "key AKIAABCDEFGHIJKLMNOP", "ghp_abcdefghijklmnopqrstuvwxyz012345",
		"xoxb-1234567890-abc", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NSJ9.x", "Password: hunter22",
	] {
		codes(ask("support-agent", "tickets.create", "ticket", "t", {"body": [{"text": text}]})) == ["secret_in_arguments"]
	}
}

test_secret_by_name if {
	codes(ask("support-agent", "tickets.create", "ticket", "t", {"login": {"Password": "x"}})) == ["secret_in_arguments"]
	effect(ask("support-agent", "tickets.create", "ticket", "t", {"login": {"password": ""}, "token_count": "7"})) == "ALLOW"
}

test_reading_secrets_needs_approval if {
	request := ask("ops-agent", "secrets.read", "secret", "platform/db", {})
	codes(request) == ["secret_access"]
	kinds(request) == ["notify"]
	codes(ask("ops-agent", "secrets.read", "secret", "finance/db", {})) == ["no_scope"]
}

fetch(url) := ask("research-agent", "web.fetch", "url", url, {})

test_fetch if {
	every url in ["https://example.org", "https://Example.org:443/a?b", "https://a.b.example.org/#x"] {
		effect(fetch(url)) == "ALLOW"
	}
	every url in ["http://example.org/", "https://user@example.org/", "ftp://x.y/", "example.org", "https://example.org:8443/", "https://[::1]/"] {
		codes(fetch(url)) == ["url_not_allowed"]
	}
	every url in ["https://169.254.169.254/latest", "https://localhost/", "https://metadata.google.internal/", "https://intranet/", "https://0x7f.1/"] {
		codes(fetch(url)) == ["internal_address"]
	}
}

write(path) := ask("research-agent", "files.write", "file", path, {"text": "x"})

test_files if {
	effect(write("/workspace/report.md")) == "ALLOW"
	every path in ["/etc/passwd", "/workspace/../etc/passwd", "/workspace//x", "workspace/x", "/workspace/./x", "/workspace/a\\b"] {
		codes(write(path)) == ["path_not_writable"]
	}
}

# --- changes ---

rollout(arguments) := ask("ops-agent", "deploy.rollout", "service", "checkout", arguments)

test_changes if {
	effect(rollout({"environment": "staging"})) == "ALLOW"
	codes(rollout({"environment": "production", "rollback_to": "v41"})) == ["production_change"]
	kinds(rollout({"environment": "production", "rollback_to": "v41"})) == ["notify"]
	codes(rollout({"environment": "production"})) == ["rollback_missing"]
	codes(rollout({})) == ["rollback_missing"]
	codes(rollout({"environment": "production", "rollback_to": ""})) == ["rollback_missing"]
}

test_unnamed_environment_is_production if codes(ask("ops-agent", "infra.resize", "cluster", "c1", {})) == ["production_change"]

test_rollout_on_friday_needs_approval if {
	codes(at(rollout({"environment": "test"}), "2026-11-27T12:00:00Z")) == ["outside_hours"]
}

# --- approvals and delegations ---

approver(name, role) := {"id": name, "roles": [role], "attributes": {}, "time": monday_noon}

approved_by(request, approvers) := object.union(request, {"approvals": approvers})

test_what_an_approval_takes if {
	decide(pay(1200, "EUR")).approval == {"count": 1, "roles": ["finance-lead"], "expires_seconds": 14400}
	decide(pay(12000, "EUR")).approval.count == 2
	rollout := ask("ops-agent", "deploy.rollout", "service", "payments", {"rollback_to": "v1"})
	decide(rollout).approval == {"count": 1, "roles": ["release-manager"], "expires_seconds": 14400}
	decide(approved_by(rollout, [approver("ann", "release-manager")])).effect == "ALLOW"
	not decide(pay(10, "EUR")).approval
}

test_two_look_at_large_amounts if {
	lead := approver("ann", "finance-lead")
	effect(approved_by(pay(1200, "EUR"), [lead])) == "ALLOW"
	codes(approved_by(pay(1200, "EUR"), [lead])) == ["approved"]
	effect(approved_by(pay(12000, "EUR"), [lead])) == "REQUIRE_APPROVAL"
	effect(approved_by(pay(12000, "EUR"), [lead, lead])) == "REQUIRE_APPROVAL"
	effect(approved_by(pay(12000, "EUR"), [lead, approver("bob", "finance-lead")])) == "ALLOW"
	effect(approved_by(pay(12000, "EUR"), [lead, approver("bob", "intern")])) == "REQUIRE_APPROVAL"
}

test_nobody_approves_what_is_denied if {
	both := [approver("ann", "finance-lead"), approver("bob", "finance-lead")]
	effect(approved_by(pay(60000, "EUR"), both)) == "DENY"
}

test_what_has_no_role_of_its_own_any_approver_may_approve if {
	asked := at(ask("research-agent", "db.query", "table", "crm.customers", {"columns": ["email"]}), monday_noon)
	agents.approval.roles == set() with input as asked
	agents.approval.approved with input as approved_by(asked, [approver("cleo", "anything")])
	not agents.approval.approved with input as asked
}

test_roles_of_the_registry_count if {
	new := ask("new-agent", "invoices.read", "invoice", "i-1", {})
	codes(new) == ["unknown_agent"]
	effect(object.union(new, {"agent": {"id": "new-agent", "roles": ["finance"]}})) == "ALLOW"
	codes(object.union(new, {"agent": {"id": "new-agent", "roles": ["nothing"]}})) == ["no_scope"]
}

on_behalf_of(request, roles) := object.union(request, {"delegation": [{"from": {"id": "ursula", "kind": "user", "roles": roles}}]})

test_leave_only_for_what_one_may_do_oneself if {
	effect(on_behalf_of(pay(10, "EUR"), ["finance"])) == "ALLOW"
	codes(on_behalf_of(pay(10, "EUR"), ["support"])) == ["delegator_no_scope"]
	effect(on_behalf_of(pay(10, "EUR"), [])) == "DENY"
}
