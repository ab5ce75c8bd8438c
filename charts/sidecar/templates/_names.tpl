{{/* Names and labels. Every template takes this chart's own context: "." here, .Subcharts.sidecar in a chart that depends on it. */}}

{{- define "sidecar.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What every pod with this sidecar has, and what the NetworkPolicy and the disruption budget go by. */}}
{{- define "sidecar.podLabels" -}}
decision-sidecar/of: {{ include "sidecar.fullname" . }}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "sidecar.labels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- define "sidecar.serviceAccountName" -}}
{{- default (ternary (include "sidecar.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "sidecar.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{/* "true" where this chart is installed by itself and no workload is named. */}}
{{- define "sidecar.trial" -}}
{{- if and .Chart.IsRoot (not .Values.workload.image) }}true{{ end -}}
{{- end -}}

{{/* "true" where this chart renders the workload. */}}
{{- define "sidecar.renders" -}}
{{- if or .Chart.IsRoot .Values.workload.image }}true{{ end -}}
{{- end -}}

{{- define "sidecar.development" -}}
{{- if kindIs "bool" .Values.development -}}
{{- if .Values.development }}true{{ end -}}
{{- else -}}
{{- include "sidecar.trial" . -}}
{{- end -}}
{{- end -}}

{{/* What agents of the pod are told, in DECISION_SIDECAR. */}}
{{- define "sidecar.address" -}}
{{- if eq .Values.api.listen "tls" -}}
127.0.0.1:{{ .Values.api.port }}
{{- else -}}
unix:/run/sidecar/sidecar.sock
{{- end -}}
{{- end -}}

{{/* "true" where AuthZEN's door is a socket of the workload; where it is a port of the pod. */}}
{{- define "sidecar.authzenSocket" -}}
{{- if and .Values.authzen.gateway (eq .Values.authzen.listen "socket") }}true{{ end -}}
{{- end -}}

{{- define "sidecar.authzenTls" -}}
{{- if and .Values.authzen.gateway (eq .Values.authzen.listen "tls") }}true{{ end -}}
{{- end -}}
