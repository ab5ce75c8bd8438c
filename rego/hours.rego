# When: some actions have hours, in UTC, judged by the request's own time. Several windows may cover one action; each one counts.
package agents.hours

import data.agents.request

windows contains window if {
	some window in data.registry.hours
	some pattern in window.actions
	request.matches(pattern, request.action)
}

inside(window) if {
	time.weekday(request.now) in window.days
	[hour, minute, _] := time.clock(request.now)
	clock := sprintf("%02d:%02d", [hour, minute])
	clock >= window.from
	clock < window.to
}

outside contains window if {
	some window in windows
	not inside(window)
}

deny contains reason(window) if {
	some window in outside
	window.outside != "REQUIRE_APPROVAL"
}

approve contains reason(window) if {
	some window in outside
	window.outside == "REQUIRE_APPROVAL"
}

reason(window) := {"code": "outside_hours", "message": message} if {
	days := concat(", ", window.days)
	message := sprintf("allowed from %s to %s UTC on %s", [window.from, window.to, days])
}
