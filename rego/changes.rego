# Changes to running systems: free where nobody is hurt, approved everywhere else. An environment that is not named is production.
package agents.changes

import data.agents.request

applies if {
	some pattern in data.registry.changes.actions
	request.matches(pattern, request.action)
}

harmless if {
	is_string(request.arguments.environment)
	request.arguments.environment in data.registry.changes.free_environments
}

approve contains {"code": "production_change", "message": "changes outside development, staging and test need an approval"} if {
	applies
	not harmless
}

deny contains {"code": "rollback_missing", "message": "a production rollout must name arguments.rollback_to"} if {
	request.action == "deploy.rollout"
	not harmless
	not rollback_named
}

rollback_named if {
	is_string(request.arguments.rollback_to)
	request.arguments.rollback_to != ""
}

obligations contains {"kind": "notify", "parameters": {"channel": "platform-changes"}} if {
	applies
	not harmless
}
