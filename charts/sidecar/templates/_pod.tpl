{{/* The parts of a pod: for templates/workload.yaml, the test, and for the workload's own chart. */}}

{{- define "sidecar.containerSecurityContext" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "sidecar.podSecurityContext" -}}
fsGroup: {{ int64 .Values.users.socketGroup }}
# Only when the volume is new: at each start it would open the ledger's own files to the group.
fsGroupChangePolicy: OnRootMismatch
runAsNonRoot: true
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* For the workload's container, so that it is another user than the sidecar. */}}
{{- define "sidecar.workloadSecurityContext" -}}
{{ include "sidecar.containerSecurityContext" . }}
runAsUser: {{ int64 .Values.users.workload }}
runAsGroup: {{ int64 .Values.users.workload }}
{{- end -}}

{{/* The decision socket: read-only is enough to ask, and nobody can put another socket in its place. */}}
{{- define "sidecar.workloadVolumeMounts" -}}
- name: {{ ternary "sidecar-door" "sidecar-socket" .Values.egress.gateway.enabled }}
  mountPath: /run/sidecar
  readOnly: true
  {{- if .Values.egress.gateway.enabled }}
  subPath: door # the workload is Envoy, which asks for others and not for itself
  {{- end }}
{{- if include "sidecar.authzenSocket" . }}
- {name: sidecar-authzen, mountPath: /run/sidecar-authzen, subPath: door, readOnly: true}
{{- end }}
{{- end -}}

{{- define "sidecar.workloadEnv" -}}
- name: DECISION_SIDECAR
  value: {{ include "sidecar.address" . | quote }}
{{- end -}}

{{/* Native sidecars, in the order of their start: the workload starts when the last of them is ready to decide. */}}
{{- define "sidecar.initContainers" -}}
{{- include "sidecar.checked" . -}}
{{- if .Values.egress.redirect.enabled }}
# The rules by which Envoy is the only way out. The one container with a capability, and it ends before another starts.
- name: egress
  image: {{ .Values.egress.redirect.image | quote }}
  command:
    - nft
    - --define
    - door={{ int .Values.egress.redirect.port }}
    - --define
    - doors={ {{ include "sidecar.loopbackPorts" . }} }
    - --define
    - trusted={ {{ int64 .Values.users.sidecar }}, {{ int64 .Values.users.envoy }} }
    - --file
    - /etc/egress/egress.nft
  securityContext:
    allowPrivilegeEscalation: false
    capabilities: {drop: [ALL], add: [NET_ADMIN]}
    privileged: false
    readOnlyRootFilesystem: true
    runAsNonRoot: false
    runAsUser: 0
    seccompProfile: {type: RuntimeDefault}
  resources:
    requests: {cpu: 10m, memory: 16Mi}
    limits: {memory: 64Mi}
  volumeMounts:
    - {name: sidecar-egress, mountPath: /etc/egress, readOnly: true}
{{ end -}}
{{- if eq .Values.policy.engine "opa" }}
# Starts an OPA for each policy that the sidecar puts into the room. Its user's group is the sidecar's, and no other's.
- name: opa
  image: {{ include "sidecar.image" . | quote }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args: [opa, --room, /run/opa]
  restartPolicy: Always
  securityContext:
    {{- include "sidecar.containerSecurityContext" . | nindent 4 }}
    runAsUser: {{ int64 .Values.users.opa }}
    runAsGroup: {{ int64 .Values.users.sidecar }}
  resources:
    {{- toYaml .Values.opa.resources | nindent 4 }}
  volumeMounts:
    - {name: sidecar-opa, mountPath: /run/opa}
{{ end -}}
- name: sidecar
  image: {{ include "sidecar.image" . | quote }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args: [serve, --config, /etc/sidecar/sidecar.toml, --init]
  restartPolicy: Always
  ports:
    - {name: metrics, containerPort: {{ int .Values.metrics.port }}, protocol: TCP}
    {{- if include "sidecar.authzenTls" . }}
    - {name: authzen, containerPort: {{ int .Values.authzen.port }}, protocol: TCP}
    {{- end }}
  # Ready: a policy is in force, callers can be proved, the ledger takes the next entry.
  startupProbe:
    httpGet: {path: /readyz, port: metrics}
    periodSeconds: 2
    timeoutSeconds: 2
    failureThreshold: 150
  readinessProbe:
    httpGet: {path: /readyz, port: metrics}
    periodSeconds: 5
    timeoutSeconds: 2
    failureThreshold: 2
  livenessProbe:
    httpGet: {path: /healthz, port: metrics}
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: 6
  securityContext:
    {{- include "sidecar.containerSecurityContext" . | nindent 4 }}
    runAsUser: {{ int64 .Values.users.sidecar }}
    runAsGroup: {{ int64 .Values.users.sidecar }}
  resources:
    {{- toYaml .Values.resources | nindent 4 }}
  volumeMounts:
    - {name: sidecar-ledger, mountPath: /var/lib/sidecar}
    {{- if .Values.personal.copy.enabled }}
    - {name: sidecar-subjects, mountPath: /var/lib/sidecar-subjects}
    {{- end }}
    - {name: sidecar-socket, mountPath: /run/sidecar}
    - {name: sidecar-configuration, mountPath: /etc/sidecar, readOnly: true}
    - {name: sidecar-tmp, mountPath: /tmp}
    {{- if .Values.egress.door.gateway }}
    - {name: sidecar-door, mountPath: /run/sidecar-door}
    {{- end }}
    {{- if include "sidecar.authzenSocket" . }}
    - {name: sidecar-authzen, mountPath: /run/sidecar-authzen}
    {{- end }}
    {{- if eq .Values.policy.engine "opa" }}
    - {name: sidecar-opa, mountPath: /run/opa}
    {{- end }}
    {{- if or .Values.registry.json .Values.registry.configMap }}
    - {name: sidecar-registry, mountPath: /etc/sidecar-registry, readOnly: true}
    {{- end }}
    {{- if .Values.policy.git.secret }}
    - {name: sidecar-git, mountPath: /etc/sidecar-git, readOnly: true}
    {{- end }}
    {{- if .Values.collector.tokenSecret }}
    - {name: sidecar-collector, mountPath: /etc/sidecar-collector, readOnly: true}
    {{- end }}
    {{- if .Values.collector.acceptLossConfigMap }}
    - {name: sidecar-loss, mountPath: /etc/sidecar-loss, readOnly: true}
    {{- end }}
    {{- if eq .Values.identity.kind "spiffe" }}
    - {name: sidecar-spiffe, mountPath: /run/spiffe, readOnly: true}
    {{- else if ne .Values.identity.kind "none" }}
    - {name: sidecar-identity, mountPath: /run/identity, readOnly: true}
    {{- end }}
{{- if .Values.egress.redirect.enabled }}
# It starts when the sidecar has made its door, and the workload when it runs. It alone has the credentials.
- name: envoy
  image: {{ .Values.egress.redirect.envoy.image | quote }}
  command: [envoy, --config-path, /etc/envoy/envoy.yaml, --disable-hot-restart]
  restartPolicy: Always
  securityContext:
    {{- include "sidecar.containerSecurityContext" . | nindent 4 }}
    runAsUser: {{ int64 .Values.users.envoy }}
    runAsGroup: {{ int64 .Values.users.envoy }}
  resources:
    {{- toYaml .Values.egress.redirect.envoy.resources | nindent 4 }}
  volumeMounts:
    - {name: sidecar-door, mountPath: /run/sidecar, subPath: door, readOnly: true}
    - {name: sidecar-envoy, mountPath: /run/envoy} # its admin's socket
    - {name: sidecar-gateway, mountPath: /etc/envoy, readOnly: true}
    # Not the pod's, where egress.redirect.hosts lead to Envoy itself: it resolves the services' names for all.
    - {name: sidecar-gateway, mountPath: /etc/hosts, subPath: hosts, readOnly: true}
{{- end }}
{{- end -}}

{{/* TCP ports of loopback that the workload may reach under egress.redirect. */}}
{{- define "sidecar.loopbackPorts" -}}
{{- $ports := prepend .Values.egress.redirect.loopbackPorts .Values.egress.redirect.port -}}
{{- if eq .Values.api.listen "tls" }}{{ $ports = append $ports .Values.api.port }}{{ end -}}
{{- range $i, $port := $ports }}{{ if $i }}, {{ end }}{{ int $port }}{{ end -}}
{{- end -}}

{{/* Of the pod's spec, where egress.redirect is on: names that lead to Envoy, by an address that is nobody's (RFC 5737). */}}
{{- define "sidecar.hostAliases" -}}
{{- if and .Values.egress.redirect.enabled .Values.egress.redirect.hosts -}}
- ip: 192.0.2.1
  hostnames: {{ toJson .Values.egress.redirect.hosts }}
{{- end -}}
{{- end -}}

{{/* All volumes but the ledger's, where that is a claim for each replica. */}}
{{- define "sidecar.volumes" -}}
- name: sidecar-socket
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
- name: sidecar-tmp
  emptyDir: {sizeLimit: 1Gi}
{{- if eq .Values.policy.engine "opa" }}
- name: sidecar-opa
  emptyDir: {medium: Memory, sizeLimit: 64Mi}
{{- end }}
- name: sidecar-configuration
  configMap: {name: {{ include "sidecar.fullname" . }}}
{{- if .Values.egress.door.gateway }}
- name: sidecar-door
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
{{- end }}
{{- if include "sidecar.authzenSocket" . }}
- name: sidecar-authzen
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
{{- end }}
{{- if .Values.egress.redirect.enabled }}
- name: sidecar-egress
  configMap: {name: {{ include "sidecar.fullname" . }}-egress, items: [{key: egress.nft, path: egress.nft}]}
- name: sidecar-envoy
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
- name: sidecar-gateway
  projected:
    defaultMode: 0440
    sources:
      - configMap:
          name: {{ include "sidecar.fullname" . }}-egress
          items: [{key: envoy.yaml, path: envoy.yaml}, {key: hosts, path: hosts}]
      {{- with .Values.egress.redirect.envoy.credentialSecret }}
      - secret: {name: {{ . }}, items: [{key: credential.yaml, path: credential.yaml}]}
      {{- end }}
{{- end }}
{{- if or .Values.registry.json .Values.registry.configMap }}
- name: sidecar-registry
  configMap: {name: {{ default (printf "%s-registry" (include "sidecar.fullname" .)) .Values.registry.configMap }}}
{{- end }}
{{- if .Values.policy.git.secret }}
- name: sidecar-git
  secret: {secretName: {{ .Values.policy.git.secret }}, defaultMode: 0440}
{{- end }}
{{- if .Values.collector.tokenSecret }}
- name: sidecar-collector
  secret: {secretName: {{ .Values.collector.tokenSecret }}, defaultMode: 0440}
{{- end }}
{{- if .Values.collector.acceptLossConfigMap }}
- name: sidecar-loss
  configMap: {name: {{ .Values.collector.acceptLossConfigMap }}}
{{- end }}
{{- if eq .Values.identity.kind "spiffe" }}
- name: sidecar-spiffe
  csi: {driver: {{ .Values.identity.spiffe.csiDriver }}, readOnly: true}
{{- else if eq .Values.identity.kind "certManager" }}
- name: sidecar-identity
  secret: {secretName: {{ include "sidecar.fullname" . }}-identity, defaultMode: 0440}
{{- else if eq .Values.identity.kind "secret" }}
- name: sidecar-identity
  secret: {secretName: {{ .Values.identity.secret }}, defaultMode: 0440}
{{- end }}
{{- if eq .Values.ledger.volume "ephemeral" }}
- name: sidecar-ledger
  ephemeral:
    volumeClaimTemplate:
      metadata:
        labels:
          {{- include "sidecar.podLabels" . | nindent 10 }}
      spec:
        {{- include "sidecar.claim" .Values.ledger | nindent 8 }}
{{- else if eq .Values.ledger.volume "emptyDir" }}
- name: sidecar-ledger
  emptyDir: {sizeLimit: {{ .Values.ledger.size }}}
{{- end }}
{{- end -}}

{{/* Of a StatefulSet, where ledger.volume is perReplica; else empty. */}}
{{- define "sidecar.volumeClaimTemplates" -}}
{{- if eq .Values.ledger.volume "perReplica" -}}
- metadata:
    name: sidecar-ledger
    labels:
      {{- include "sidecar.podLabels" . | nindent 6 }}
  spec:
    {{- include "sidecar.claim" .Values.ledger | nindent 4 }}
{{- if .Values.personal.copy.enabled }}
- metadata:
    name: sidecar-subjects
    labels:
      {{- include "sidecar.podLabels" . | nindent 6 }}
  spec:
    {{- include "sidecar.claim" .Values.personal.copy | nindent 4 }}
{{- end }}
{{- end -}}
{{- end -}}

{{/* Of something with size and storageClass. */}}
{{- define "sidecar.claim" -}}
accessModes: [ReadWriteOnce]
{{- with .storageClass }}
storageClassName: {{ . }}
{{- end }}
resources:
  requests: {storage: {{ .size }}}
{{- end -}}
