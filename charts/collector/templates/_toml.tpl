{{/* The program's own configuration. Strings are written as JSON, which TOML reads as it does its own. */}}
{{- define "collector.toml" -}}
{{- with .Values -}}
data_dir = "/var/lib/collector"
listen = "0.0.0.0:7473"
web = "0.0.0.0:7474"
origin = {{ include "collector.origin" $ | toJson }}
{{- if .logKey.secretName }}
key_file = {{ printf "/etc/collector/log/%s" .logKey.key | toJson }}
{{- end }}
storage = {{ .storage.kind | toJson }}
{{- if eq .storage.kind "s3" }}
s3.bucket = {{ .storage.s3.bucket | toJson }}
{{- range $name := list "prefix" "endpoint" "region" }}
{{- with get $.Values.storage.s3 $name }}
s3.{{ $name }} = {{ . | toJson }}
{{- end }}
{{- end }}
retention_days = {{ int .storage.retentionDays }}
{{- end }}
index = {{ .index.kind | toJson }}
{{- if eq .index.kind "postgres" }}
postgres_file = "/etc/collector/postgres/connection"
{{- end }}
{{- if eq .tls.mode "spiffe" }}
spiffe.socket = {{ printf "/run/spiffe/%s" .tls.spiffe.socket | toJson }}
{{- else }}
tls.cert_file = "/etc/collector/tls/tls.crt"
tls.key_file = "/etc/collector/tls/tls.key"
{{- if .tls.clientCa.secretName }}
tls.client_ca_file = {{ printf "/etc/collector/client-ca/%s" .tls.clientCa.key | toJson }}
{{- end }}
{{- end }}
{{- with .enrolSpiffe }}
enrol_spiffe = {{ . | toJson }}
{{- end }}
roll_call_seconds = {{ .rollCallSeconds }}
silence_seconds = {{ .silenceSeconds }}
{{- with .webhook }}
webhook = {{ . | toJson }}
{{- end }}
{{- with .witnesses }}
witnesses = {{ . | toJson }}
{{- end }}
{{- with .timestamps.urls }}
timestamp_urls = {{ . | toJson }}
timestamp_roots = ["/etc/collector/timestamps/roots.pem"]
{{- end }}
log_level = {{ .logLevel | toJson }}
{{- end }}
{{- end }}
