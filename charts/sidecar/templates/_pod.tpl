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
- name: sidecar-socket
  mountPath: /run/sidecar
  readOnly: true
{{- end -}}

{{- define "sidecar.workloadEnv" -}}
- name: DECISION_SIDECAR
  value: {{ include "sidecar.address" . | quote }}
{{- end -}}

{{/* Native sidecars, in the order of their start: the workload starts when the last of them is ready to decide. */}}
{{- define "sidecar.initContainers" -}}
{{- include "sidecar.checked" . -}}
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
