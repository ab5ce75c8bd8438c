{{- define "collector.fullname" -}}
{{- $name := .Values.nameOverride | default .Chart.Name }}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride | trunc 48 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}{{ .Release.Name | trunc 48 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name $name | trunc 48 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "collector.selector" -}}
app.kubernetes.io/name: {{ .Values.nameOverride | default .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "collector.labels" -}}
{{ include "collector.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: collector
app.kubernetes.io/part-of: decision-sidecar
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "collector.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- define "collector.origin" -}}
{{ .Values.origin | default (printf "%s.%s.svc/log" (include "collector.fullname" .) .Release.Namespace) }}
{{- end }}

{{- define "collector.tlsSecret" -}}
{{ .Values.tls.secretName | default (printf "%s-tls" (include "collector.fullname" .)) }}
{{- end }}

{{/* The names under which sidecars find the Service, and those besides. A JSON list. */}}
{{- define "collector.dnsNames" -}}
{{- $name := include "collector.fullname" . }}
{{- $ns := .Release.Namespace }}
{{- $own := list (printf "%s.%s.svc" $name $ns) (printf "%s.%s.svc.cluster.local" $name $ns) (printf "%s.%s" $name $ns) $name }}
{{- concat $own .Values.tls.dnsNames | toJson }}
{{- end }}

{{/* Values that only together make no sense; one message each, which names them. */}}
{{- define "collector.check" -}}
{{- with .Values }}
{{- if and (eq .tls.mode "secret") (not .tls.secretName) }}{{ fail "tls.secretName is not set: tls.mode secret needs the name of a Secret with tls.crt and tls.key" }}{{ end }}
{{- if and (eq .tls.mode "certManager") (not .tls.certManager.issuerRef.name) }}{{ fail "tls.certManager.issuerRef.name is not set: name the Issuer that tls.mode certManager asks" }}{{ end }}
{{- if and (eq .tls.mode "spiffe") .tls.clientCa.secretName }}{{ fail "tls.clientCa.secretName is set, but with tls.mode spiffe the Workload API says whom to believe: leave it out" }}{{ end }}
{{- if and .enrolSpiffe (not .tls.clientCa.secretName) (ne .tls.mode "spiffe") }}{{ fail "enrolSpiffe needs callers' certificates: set tls.clientCa.secretName, or tls.mode to spiffe" }}{{ end }}
{{- if and (eq .storage.kind "s3") (not .storage.s3.bucket) }}{{ fail "storage.s3.bucket is not set: name the bucket, which must have Object Lock" }}{{ end }}
{{- if and (ne .storage.kind "s3") (or .storage.s3.bucket .storage.retentionDays) }}{{ fail "storage.s3.bucket or storage.retentionDays is set, but storage.kind is files, which has no Object Lock: set it to s3" }}{{ end }}
{{- if and (eq .index.kind "postgres") (not .index.postgres.secretName) }}{{ fail "index.postgres.secretName is not set: name the Secret with the key connection" }}{{ end }}
{{- if and (ne .index.kind "postgres") .index.postgres.secretName }}{{ fail "index.postgres.secretName is set, but index.kind is sqlite: set it to postgres" }}{{ end }}
{{- if and .timestamps.urls (not .timestamps.rootsConfigMap) }}{{ fail "timestamps.rootsConfigMap is not set: without their roots no answer of timestamps.urls can be believed" }}{{ end }}
{{- if and (not .persistence.enabled) (or (ne .storage.kind "s3") (ne .index.kind "postgres") (not .logKey.secretName)) }}{{ fail "persistence.enabled is false, and that would lose the log: first set storage.kind s3, index.kind postgres and logKey.secretName" }}{{ end }}
{{- if and .ingress.enabled (not .ingress.host) }}{{ fail "ingress.host is not set: name the host of the log" }}{{ end }}
{{- end }}
{{- end }}

{{/* TCP ports that the configured parties are reached on, once each, as a JSON list. */}}
{{- define "collector.egressPorts" -}}
{{- $ports := list }}
{{- $urls := concat .Values.timestamps.urls (compact (list .Values.webhook)) }}
{{- range .Values.witnesses }}{{ $urls = append $urls (last (splitList " " .)) }}{{ end }}
{{- if eq .Values.storage.kind "s3" }}{{ $urls = append $urls (.Values.storage.s3.endpoint | default "https://aws") }}{{ end }}
{{- range $urls }}
{{- $at := urlParse . }}
{{- $named := regexFind ":[0-9]+$" $at.host | trimPrefix ":" }}
{{- $ports = append $ports (int ($named | default (ternary "80" "443" (eq $at.scheme "http")))) }}
{{- end }}
{{- if eq .Values.index.kind "postgres" }}{{ $ports = append $ports (int .Values.index.postgres.port) }}{{ end }}
{{- uniq $ports | sortAlpha | toJson }}
{{- end }}
