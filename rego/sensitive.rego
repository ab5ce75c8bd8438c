# Data that may not travel: personal and health columns, exports and mail to the outside, secrets in arguments, addresses inside.
package agents.sensitive

import data.agents.request
import data.agents.scopes

# --- columns of a query ---

queried if request.action == "db.query"

columns contains lower(column) if {
	queried
	is_array(request.arguments.columns)
	some column in request.arguments.columns
	is_string(column)
}

uncleared[class] contains column if {
	some column in columns
	class := data.registry.sensitive.columns[column]
	not class in scopes.clearances
}

deny contains {"code": "columns_not_named", "message": "a query must name its columns in arguments.columns"} if {
	queried
	not columns_named
}

columns_named if {
	is_array(request.arguments.columns)
	count(request.arguments.columns) > 0
	every column in request.arguments.columns {
		is_string(column)
		not contains(column, "*")
	}
}

deny contains {"code": "health_data", "message": "health data is not for this agent"} if {
	count(uncleared.health) > 0
}

obligations contains {"kind": "mask_fields", "parameters": {"fields": sort(uncleared.pii)}} if {
	count(uncleared.pii) > 0
}

# --- leaving the house ---

exported if request.action == "crm.export"

mailed if request.action == "email.send"

leaving if exported

leaving if mailed

destinations contains address if {
	exported
	address := request.arguments.destination
}

destinations contains address if {
	mailed
	is_array(request.arguments.to)
	some address in request.arguments.to
}

deny contains {"code": "destination_missing", "message": "arguments must say where the data goes"} if {
	leaving
	count(destinations) == 0
}

external contains address if {
	some address in destinations
	not inside(address)
}

inside(address) if {
	is_string(address)
	parts := split(address, "@")
	count(parts) == 2
	lower(parts[1]) in data.registry.sensitive.internal_domains
}

deny contains {"code": "personal_data_leaves", "message": message} if {
	exported
	count(external) > 0
	object.get(request.arguments, "contains_personal_data", true) != false
	message := "an export outside must declare contains_personal_data: false"
}

approve contains {"code": "external_export", "message": "an export to an outside address needs an approval"} if {
	exported
	count(external) > 0
}

approve contains {"code": "external_attachment", "message": "attachments to outside addresses need an approval"} if {
	mailed
	count(external) > 0
	object.get(request.arguments, "attachments", []) != []
}

obligations contains {"kind": "log_level", "parameters": {"level": "full"}} if count(external) > 0

# --- purpose ---

deny contains {"code": "purpose_missing", "message": "this action needs a purpose of at least ten characters"} if {
	request.action in data.registry.sensitive.purpose_required
	count(request.purpose) < 10
}

# --- secrets ---

# Each expression, and what a text must hold, in lower case, for it to match at all: looking for that first is a tenth
# of the cost, above all in Wasm, which compiles an expression anew for each decision that uses it.
secret_patterns := {
	`-----BEGIN [A-Z ]*PRIVATE KEY`: ["-----begin "],
	`\bAKIA[0-9A-Z]{16}\b`: ["akia"],
	`\bgh[pousr]_[A-Za-z0-9]{30,}`: ["ghp_", "gho_", "ghu_", "ghs_", "ghr_"],
	`\bxox[abprs]-[A-Za-z0-9-]{10,}`: ["xox"],
	`\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.`: ["eyj"],
	`(?i)\b(password|passwd|secret|api_?key|token)\s*[=:]\s*[^\s]{6,}`: ["=", ":"],
}

secret_names := {"password", "passwd", "secret", "api_key", "apikey", "access_token", "private_key"}

deny contains secret_found if {
	some value
	walk(request.arguments, [_, value])
	is_string(value)
	some pattern, marks in secret_patterns
	some mark in marks
	contains(lower(value), mark)
	regex.match(pattern, value)
}

deny contains secret_found if {
	some path, value
	walk(request.arguments, [path, value])
	count(path) > 0
	name := path[count(path) - 1]
	is_string(name)
	lower(name) in secret_names
	is_string(value)
	value != ""
}

secret_found := {"code": "secret_in_arguments", "message": "the arguments look as if they carry a secret; pass a reference"}

approve contains {"code": "secret_access", "message": "reading a secret needs an approval"} if request.action == "secrets.read"

obligations contains {"kind": "notify", "parameters": {"channel": "security"}} if request.action == "secrets.read"

# --- fetching and writing ---

fetched if request.action == "web.fetch"

host := lower(found[0][1]) if {
	fetched
	found := regex.find_all_string_submatch_n(`^https://([A-Za-z0-9.-]+)(:443)?(/|\?|#|$)`, request.resource.id, 1)
	count(found) == 1
}

deny contains {"code": "url_not_allowed", "message": "only https URLs with a plain host name can be fetched"} if {
	fetched
	not host
}

# Names only: an address in digits, or a name that means this machine or its network, reaches what agents must not.
deny contains {"code": "internal_address", "message": "addresses inside the network are not for fetching"} if {
	regex.match(`^[0-9.]+$|^0x|^localhost$|\.(localhost|local|internal)$|^[^.]*$`, host)
}

written if request.action == "files.write"

deny contains {"code": "path_not_writable", "message": message} if {
	written
	not writable
	message := sprintf("files can be written below %s", [concat(" and ", data.registry.files.writable)])
}

writable if {
	some prefix in data.registry.files.writable
	startswith(request.resource.id, prefix)
	not regex.match(`(^|/)\.\.?(/|$)|//|[\\\x00-\x1f]`, request.resource.id)
}
