# What an approval takes: any approver for most, somebody with the right role for money and for running systems, and two of them
# for large amounts. The sidecar counts and checks who approves; here it is looked at once more.
package agents.approval

import data.agents.changes
import data.agents.payments

default count := 1

count := 2 if payments.four_eyes

roles contains "finance-lead" if payments.applies

roles contains "release-manager" if changes.applies

terms := {"count": count, "roles": sort(roles), "expires_seconds": 14400}

given contains approver.id if {
	is_array(input.approvals)
	some approver in input.approvals
	may_approve(approver)
}

may_approve(_) if {
	not payments.applies
	not changes.applies
}

may_approve(approver) if {
	some role in approver.roles
	role in roles
}

# count is the name of the rule above
approved if sum([1 | some _ in given]) >= count
