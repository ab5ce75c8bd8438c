# Acting for somebody: nobody can give leave for what they may not do themselves. That scopes only narrow along the chain, that it is
# signed, valid and given to this agent, the sidecar has checked before.
package agents.delegation

import data.agents.scopes

deny contains {"code": "delegator_no_scope", "message": message} if {
	is_array(input.delegation)
	some leave in input.delegation
	count(scopes.granted_to(leave.from.roles)) == 0
	message := sprintf("no role of %s, who gave leave, grants this action on this resource", [leave.from.id])
}
