{{/* Where the Secrets and ConfigMaps that are named lie: a volume's name and its path. Whole directories, never a
     subPath: only so does the kubelet put new files there when a certificate is renewed. */}}
{{- define "collector.mounts" -}}
{{- $mounts := dict }}
{{- with .Values }}
{{- if eq .tls.mode "spiffe" }}{{ $_ := set $mounts "spiffe" "/run/spiffe" }}
{{- else }}{{ $_ := set $mounts "tls" "/etc/collector/tls" }}
{{- end }}
{{- if .tls.clientCa.secretName }}{{ $_ := set $mounts "client-ca" "/etc/collector/client-ca" }}{{ end }}
{{- if .logKey.secretName }}{{ $_ := set $mounts "log-key" "/etc/collector/log" }}{{ end }}
{{- if and (eq .storage.kind "s3") .storage.s3.credentialsSecret }}{{ $_ := set $mounts "s3" "/etc/collector/s3" }}{{ end }}
{{- if eq .index.kind "postgres" }}{{ $_ := set $mounts "postgres" "/etc/collector/postgres" }}{{ end }}
{{- if .timestamps.urls }}{{ $_ := set $mounts "timestamps" "/etc/collector/timestamps" }}{{ end }}
{{- end }}
{{- $mounts | toJson }}
{{- end }}

{{- define "collector.volumes" -}}
{{- $mounts := include "collector.mounts" . | fromJson }}
{{- with .Values }}
{{- $secrets := dict "tls" (include "collector.tlsSecret" $) "client-ca" .tls.clientCa.secretName "log-key" .logKey.secretName "s3" .storage.s3.credentialsSecret "postgres" .index.postgres.secretName }}
{{- range $volume := keys $mounts | sortAlpha }}
{{- if eq $volume "spiffe" }}
- name: spiffe
  csi: {driver: {{ $.Values.tls.spiffe.driver }}, readOnly: true}
{{- else if eq $volume "timestamps" }}
- name: timestamps
  configMap: {name: {{ $.Values.timestamps.rootsConfigMap }}, defaultMode: 0444}
{{- else }}
- name: {{ $volume }}
  secret: {secretName: {{ get $secrets $volume }}, defaultMode: 0440}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
