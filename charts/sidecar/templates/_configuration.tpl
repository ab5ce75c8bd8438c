{{/* The sidecar's own configuration, as `sidecar serve --config` reads it. Strings are JSON's, which TOML reads too. */}}

{{- define "sidecar.toml" -}}
{{- $v := .Values -}}
{{- $files := has $v.identity.kind (list "certManager" "secret") -}}
data_dir = "/var/lib/sidecar/ledger"
listen = {{ ternary (include "sidecar.address" .) "unix:/run/sidecar/sidecar.sock" (eq $v.api.listen "tls") | toJson }}
metrics = {{ printf "%s:%d" $v.metrics.host (int $v.metrics.port) | toJson }}
log_level = {{ $v.log.level | toJson }}
enforcement = {{ $v.enforcement | toJson }}
{{- if include "sidecar.development" . }}
dev = true
{{- end }}
require = {{ $v.require | toJson }}
{{- if or $v.registry.json $v.registry.configMap }}
registry = "/etc/sidecar-registry/registry.json"
{{- end }}
engine = {{ $v.policy.engine | toJson }}
entrypoint = {{ $v.policy.entrypoint | toJson }}
{{- if eq $v.policy.engine "opa" }}
opa_room = "/run/opa"
{{- end }}
evaluate_timeout = {{ $v.limits.evaluateTimeoutSeconds | toJson }}
max_request_bytes = {{ int64 $v.limits.maxRequestBytes }}
idempotency_seconds = {{ int64 $v.limits.idempotencySeconds }}
approval_seconds = {{ int64 $v.limits.approvalSeconds }}
signature_window = {{ $v.limits.signatureWindowSeconds | toJson }}
permit_seconds = {{ int64 $v.limits.permitSeconds }}
segment_seconds = {{ $v.ledger.segmentSeconds | toJson }}
ledger_max_mib = {{ int64 $v.ledger.maxMiB }}
ledger_keep_seconds = {{ $v.ledger.keepSeconds | toJson }}
ledger_keep_mib = {{ int64 $v.ledger.keepMiB }}
{{- with $v.custody.custodians }}
custodians = [{{ range $i, $name := keys . | sortAlpha }}{{ if $i }}, {{ end }}{{ printf "/etc/sidecar/%s.pem" $name | toJson }}{{ end }}]
{{- end }}
custody_mode = {{ $v.custody.mode | toJson }}
{{- if $v.retention.authority }}
authority = "/etc/sidecar/authority.pub"
{{- end }}
retention = {{ $v.retention.profile | toJson }}

[policy]
max_staleness = {{ $v.policy.maxStalenessSeconds | toJson }}
stale = {{ $v.policy.stale | toJson }}
gate.min_coverage = {{ $v.policy.gate.minCoverage | toJson }}
gate.expectations = {{ $v.policy.gate.expectations }}
gate.allow_builtins = {{ $v.policy.gate.allowBuiltins | toJson }}
{{- with $v.policy.git }}
{{- if .url }}

[policy.source]
period = {{ .periodSeconds | toJson }}
git.url = {{ .url | toJson }}
git.ref = {{ .ref | toJson }}
git.subdirectory = {{ .subdirectory | toJson }}
git.timeout = {{ .timeoutSeconds | toJson }}
git.depth = {{ int64 .depth }}
{{- if .caCertificate }}
git.tls_ca_file = "/etc/sidecar/git-ca.crt"
{{- end }}
{{- if eq .auth "token" }}
git.token_file = "/etc/sidecar-git/token"
{{- else if eq .auth "password" }}
git.username = {{ .username | toJson }}
git.password_file = "/etc/sidecar-git/password"
{{- else if eq .auth "ssh" }}
git.ssh_key_file = "/etc/sidecar-git/ssh-privatekey"
git.known_hosts_file = "/etc/sidecar-git/known_hosts"
{{- end }}

[policy.trust]
allow_rollback = {{ .allowRollback }}
{{- if .allowedSigners }}
allowed_signers = "/etc/sidecar/allowed_signers"
{{- end }}
{{- end }}
{{- end }}
{{- with $v.egress.door }}
{{- if .gateway }}

[doors.envoy]
gateway = {{ .gateway | toJson }}
agent = {{ .agent | toJson }}
headers = {{ .headers | toJson }}
listen = "unix:/run/sidecar-door/door/envoy.sock"
{{- end }}
{{- end }}
{{- with $v.authzen }}
{{- if .gateway }}

[doors.authzen]
gateway = {{ .gateway | toJson }}
agent = {{ .agent | toJson }}
url = {{ .url | toJson }}
{{- if eq .listen "socket" }}
listen = "unix:/run/sidecar-authzen/door/authzen.sock"
{{- else }}
listen = {{ printf "0.0.0.0:%d" (int .port) | toJson }}
{{- if eq $v.identity.kind "spiffe" }}
spiffe_socket = {{ printf "/run/spiffe/%s" $v.identity.spiffe.socketName | toJson }}
{{- else }}
tls_cert_file = "/run/identity/tls.crt"
tls_key_file = "/run/identity/tls.key"
tls_client_ca_file = "/run/identity/ca.crt"
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- if $v.tracing.endpoint }}

[otel]
endpoint = {{ $v.tracing.endpoint | toJson }}
{{- end }}
{{- if $v.personal.subject }}

[personal]
subject = {{ $v.personal.subject | toJson }}
fields = {{ $v.personal.fields | toJson }}
{{- if $v.personal.copy.enabled }}
copy_file = "/var/lib/sidecar-subjects/subjects"
{{- end }}
{{- end }}
{{- if eq $v.api.listen "tls" }}
{{- if eq $v.identity.kind "spiffe" }}

[spiffe]
socket = {{ printf "/run/spiffe/%s" $v.identity.spiffe.socketName | toJson }}
{{- else }}

[tls]
cert_file = "/run/identity/tls.crt"
key_file = "/run/identity/tls.key"
{{- if has "mtls" $v.require }}
client_ca_file = "/run/identity/ca.crt"
{{- end }}
{{- end }}
{{- end }}
{{- with $v.collector }}
{{- if .address }}

[collector]
address = {{ .address | toJson }}
log_key = {{ .logKey | toJson }}
{{- if .tokenSecret }}
token_file = "/etc/sidecar-collector/token"
{{- end }}
{{- if .acceptLossConfigMap }}
accept_loss_file = "/etc/sidecar-loss/loss.note"
{{- end }}
{{- if eq $v.identity.kind "spiffe" }}
spiffe_socket = {{ printf "/run/spiffe/%s" $v.identity.spiffe.socketName | toJson }}
spiffe_trust_domain = {{ $v.identity.spiffe.trustDomain | toJson }}
{{- else if .caCertificate }}
tls_ca_file = "/etc/sidecar/collector-ca.crt"
{{- if $files }}
tls_cert_file = "/run/identity/tls.crt"
tls_key_file = "/run/identity/tls.key"
{{- end }}
{{- end }}
{{- if .serverName }}
server_name = {{ .serverName | toJson }}
{{- end }}
period = {{ .periodSeconds | toJson }}
unconfirmed_start = {{ .unconfirmedStart }}
unshipped = {{ .unshipped | toJson }}
max_unshipped_seconds = {{ .maxUnshippedSeconds | toJson }}
max_unshipped_entries = {{ int64 .maxUnshippedEntries }}
max_unshipped_mib = {{ .maxUnshippedMiB | toJson }}
linger = {{ .lingerSeconds | toJson }}
{{- end }}
{{- end }}
{{ end -}}

{{/* All files of /etc/sidecar. None is secret. */}}
{{- define "sidecar.files" -}}
sidecar.toml: |
{{- include "sidecar.toml" . | trim | nindent 2 }}
{{- range $name, $pem := .Values.custody.custodians }}
{{ $name }}.pem: {{ $pem | toJson }}
{{- end }}
{{- with .Values.retention.authority }}
authority.pub: {{ . | toJson }}
{{- end }}
{{- with .Values.policy.git.allowedSigners }}
allowed_signers: {{ . | toJson }}
{{- end }}
{{- with .Values.policy.git.caCertificate }}
git-ca.crt: {{ . | toJson }}
{{- end }}
{{- with .Values.collector.caCertificate }}
collector-ca.crt: {{ . | toJson }}
{{- end }}
{{- end -}}

{{/* Of the two containers of egress.redirect. */}}
{{- define "sidecar.egressFiles" -}}
{{- if .Values.egress.redirect.enabled -}}
egress.nft: {{ .Files.Get "files/egress.nft" | toJson }}
envoy.yaml: {{ .Values.egress.redirect.envoy.configuration | toJson }}
hosts: {{ "127.0.0.1 localhost\n::1 localhost\n" | toJson }}
{{- end -}}
{{- end -}}

{{/* What a pod is started anew for. The registry is not among it: the sidecar takes a new one up by itself. */}}
{{- define "sidecar.podAnnotations" -}}
decision-sidecar/configuration: {{ printf "%s%s" (include "sidecar.files" .) (include "sidecar.egressFiles" .) | sha256sum }}
{{- end -}}
