{{/* "true" where somebody can be proved who asks: see test.keySecret and test.certificateSecret. */}}
{{- define "sidecar.tests" -}}
{{- $v := .Values -}}
{{- $key := or (include "sidecar.development" .) (not (has "signature" $v.require)) $v.test.keySecret -}}
{{- $certificate := or (include "sidecar.development" .) (not (has "mtls" $v.require)) $v.test.certificateSecret -}}
{{- $reached := or (ne $v.api.listen "tls") (ne $v.identity.kind "spiffe") -}}
{{- if and $v.test.enabled $key $certificate $reached }}true{{ end -}}
{{- end -}}

{{/* The values of the test's pod, as JSON: a ledger of its own, which ends with it and is shipped nowhere. */}}
{{- define "sidecar.tested" -}}
{{- $name := include "sidecar.fullname" . -}}
{{- $v := deepCopy .Values -}}
{{- $_ := set $v "fullnameOverride" (printf "%s-test" $name) -}}
{{- $_ := set $v.ledger "volume" "emptyDir" -}}
{{- $_ := set $v.personal.copy "enabled" false -}}
{{- $_ := set $v.ledger "keepSeconds" 0 -}}
{{- $_ := set $v.ledger "keepMiB" 0 -}}
{{- range $setting := list "address" "logKey" "caCertificate" "tokenSecret" "acceptLossConfigMap" -}}
{{- $_ := set $v.collector $setting "" -}}
{{- end -}}
{{- $_ := set $v.egress "door" (dict "gateway" "" "agent" "" "headers" list) -}}
{{- range list "redirect" "gateway" -}}
{{- $_ := set (get $v.egress .) "enabled" false -}}
{{- end -}}
{{- $_ := set $v.authzen "gateway" "" -}}
{{- range list "agent" "url" -}}
{{- $_ := set $v.authzen . "" -}}
{{- end -}}
{{- $_ := set $v.authzen "from" list -}}
{{- if $v.registry.json -}}
{{- $_ := set $v "registry" (dict "json" "" "configMap" (printf "%s-registry" $name)) -}}
{{- end -}}
{{- if eq $v.identity.kind "certManager" -}}
{{- $_ := set $v.identity "kind" "secret" -}}
{{- $_ := set $v.identity "secret" (printf "%s-identity" $name) -}}
{{- end -}}
{{- toJson $v -}}
{{- end -}}
