{{/* What the schema cannot say, or says badly. Each message: the cause, and the mend. */}}

{{- define "sidecar.gitPort" -}}
{{- $url := .Values.policy.git.url -}}
{{- if $url -}}
{{- $authority := regexReplaceAll "^[a-z]+://([^/]*).*$" $url "${1}" -}}
{{- if hasPrefix "file://" $url -}}
{{- else if and (contains "://" $url) (regexMatch ":[0-9]+$" $authority) -}}
{{ regexFind "[0-9]+$" $authority }}
{{- else if hasPrefix "https://" $url -}}
443
{{- else -}}
22
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "sidecar.mebibytes" -}}
{{- $number := regexFind "^[0-9]+" . | int64 -}}
{{- if hasSuffix "Ti" . }}{{ mul $number 1048576 }}{{ else if hasSuffix "Gi" . }}{{ mul $number 1024 }}{{ else }}{{ $number }}{{ end -}}
{{- end -}}

{{/* (list "what it is" "its text" "PUBLIC KEY"): a private key must never come into a ConfigMap. The text is never said. */}}
{{- define "sidecar.pem" -}}
{{- $what := index . 0 -}}{{- $text := index . 1 -}}{{- $kind := index . 2 -}}
{{- if contains "PRIVATE KEY-----" $text -}}
  {{- fail (printf "%s holds a private key, which a ConfigMap would show to everybody: give the %s, and make a new key if this was installed anywhere" $what (ternary "public key (*.pub.pem)" "certificate alone" (eq $kind "PUBLIC KEY"))) -}}
{{- end -}}
{{- if not (contains (printf "-----BEGIN %s-----" $kind) $text) -}}
  {{- fail (printf "%s is no PEM with BEGIN %s; give the file's text (--set-file)" $what $kind) -}}
{{- end -}}
{{- end -}}

{{- define "sidecar.checked" -}}
{{- $v := .Values -}}
{{- range $name, $text := $v.custody.custodians -}}
  {{- if not (regexMatch "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$" $name) -}}
    {{- fail (printf "custody.custodians: %s is no name; take a-z, 0-9 and -, as auditor" $name) -}}
  {{- end -}}
  {{- include "sidecar.pem" (list (printf "custody.custodians.%s" $name) $text "PUBLIC KEY") -}}
{{- end -}}
{{- with $v.retention.authority -}}{{- include "sidecar.pem" (list "retention.authority" . "PUBLIC KEY") -}}{{- end -}}
{{- with $v.collector.caCertificate -}}{{- include "sidecar.pem" (list "collector.caCertificate" . "CERTIFICATE") -}}{{- end -}}
{{- with $v.policy.git.caCertificate -}}{{- include "sidecar.pem" (list "policy.git.caCertificate" . "CERTIFICATE") -}}{{- end -}}
{{- with $v.registry.json -}}
  {{- if hasKey (fromJson .) "Error" -}}{{- fail (printf "registry.json is no JSON (%s); give the text of a file of `sidecar agents add` (--set-file registry.json=registry.json)" (get (fromJson .) "Error")) -}}{{- end -}}
{{- end -}}
{{- if contains "PRIVATE KEY-----" $v.policy.git.allowedSigners -}}
  {{- fail "policy.git.allowedSigners holds a private key, which a ConfigMap would show to everybody: give lines as ssh-keygen's allowed_signers has them" -}}
{{- end -}}
{{- $development := include "sidecar.development" . -}}
{{- $renders := include "sidecar.renders" . -}}
{{- if not $development -}}
  {{- if not $v.custody.custodians -}}
    {{- fail "custody.custodians is empty, so nobody could ever check the ledger: give the public key of `sidecar keys custodian` (--set-file custody.custodians.auditor=auditor.pub.pem), or development=true to try it out" -}}
  {{- end -}}
  {{- if not (or $v.registry.json $v.registry.configMap $v.policy.git.url) -}}
    {{- fail "registry is not set, so no agent could be proved: give a file of `sidecar agents add` (--set-file registry.json=registry.json), registry.configMap, or policy.git.url of a repository with a registry.json; or development=true to try it out" -}}
  {{- end -}}
{{- end -}}
{{- if and $v.registry.json $v.registry.configMap -}}
  {{- fail "registry.json and registry.configMap are both set; leave one of the two out" -}}
{{- end -}}
{{- if regexMatch "^(https://[^/]*@|ssh://[^/]*:[^/]*@)" $v.policy.git.url -}}
  {{- fail "policy.git.url holds credentials, which a ConfigMap would show to everybody: put them into a Secret (policy.git.auth, policy.git.secret), and renew them if this was installed anywhere" -}}
{{- end -}}
{{- if $v.policy.git.url -}}
  {{- if not (or $v.policy.git.allowedSigners $v.policy.git.acceptUnsigned) -}}
    {{- fail "policy.git.allowedSigners is empty, so whoever can push decides what agents may do: give the keys whose commits count (--set-file policy.git.allowedSigners=allowed_signers), or say policy.git.acceptUnsigned=true" -}}
  {{- end -}}
  {{- if and $v.policy.git.allowedSigners $v.policy.git.acceptUnsigned -}}
    {{- fail "policy.git.allowedSigners and policy.git.acceptUnsigned are both set; leave one of the two out" -}}
  {{- end -}}
  {{- if and (ne $v.policy.git.auth "none") (not $v.policy.git.secret) -}}
    {{- fail (printf "policy.git.auth is %s, but policy.git.secret names no Secret with it" $v.policy.git.auth) -}}
  {{- end -}}
  {{- if and (eq $v.policy.git.auth "ssh") (ne (int64 $v.users.sidecar) 10010) -}}
    {{- fail (printf "policy.git.auth is ssh, which knows only the image's own user, but users.sidecar is %d; leave it at 10010, or use https" (int64 $v.users.sidecar)) -}}
  {{- end -}}
  {{- if and (eq $v.policy.git.auth "password") (not $v.policy.git.username) -}}
    {{- fail "policy.git.auth is password, but policy.git.username is empty; set it" -}}
  {{- end -}}
{{- else -}}
  {{- if eq $v.policy.engine "opa" -}}
    {{- fail "policy.engine is opa, but policy.git.url is empty: the starter policy is for wasm; name a repository, or leave policy.engine out" -}}
  {{- end -}}
  {{- if or $v.policy.git.allowedSigners $v.policy.git.secret (ne $v.policy.git.auth "none") $v.policy.git.ref -}}
    {{- fail "policy.git has settings, but policy.git.url is empty: name the repository" -}}
  {{- end -}}
{{- end -}}
{{- if and $v.policy.git.secret (eq $v.policy.git.auth "none") -}}
  {{- fail "policy.git.secret is set, but policy.git.auth is none; say what the Secret holds: token, password or ssh" -}}
{{- end -}}
{{- if and (has "mtls" $v.require) (ne $v.api.listen "tls") -}}
  {{- fail "require names mtls, but agents come by a unix socket, where there is no certificate; set api.listen=tls" -}}
{{- end -}}
{{- if and (eq $v.api.listen "tls") (eq $v.identity.kind "none") -}}
  {{- fail "api.listen is tls, but identity.kind is none; set it to spiffe, certManager or secret" -}}
{{- end -}}
{{- if and (eq $v.identity.kind "secret") (not $v.identity.secret) -}}
  {{- fail "identity.kind is secret, but identity.secret names no Secret (with tls.crt, tls.key and ca.crt)" -}}
{{- end -}}
{{- if and $v.identity.secret (ne $v.identity.kind "secret") -}}
  {{- fail (printf "identity.secret is set, but identity.kind is %s; set identity.kind=secret" $v.identity.kind) -}}
{{- end -}}
{{- if and (eq $v.identity.kind "certManager") (not $v.identity.certManager.issuerRef.name) -}}
  {{- fail "identity.kind is certManager, but identity.certManager.issuerRef.name is empty; name the issuer" -}}
{{- end -}}
{{- if and (eq $v.identity.kind "spiffe") $v.collector.address (not $v.identity.spiffe.trustDomain) -}}
  {{- fail "identity.spiffe.trustDomain is empty: name the collector's trust domain, or anybody with an SVID could be the collector" -}}
{{- end -}}
{{- if $v.collector.address -}}
  {{- if not $v.collector.logKey -}}
    {{- fail "collector.logKey is empty: without the log's key (collector/log.vkey) anybody could be the collector" -}}
  {{- end -}}
  {{- if and (ne $v.identity.kind "spiffe") (not $v.collector.caCertificate) -}}
    {{- fail "collector.caCertificate is empty: give the CA of the collector's certificate (--set-file collector.caCertificate=ca.pem), or identity.kind=spiffe" -}}
  {{- end -}}
  {{- if and (eq $v.identity.kind "spiffe") $v.collector.caCertificate -}}
    {{- fail "collector.caCertificate and identity.kind=spiffe are both set, and the collector is known by one of them; leave one out" -}}
  {{- end -}}
  {{- if and (eq $v.identity.kind "none") (not $v.collector.tokenSecret) -}}
    {{- fail "nothing lets this sidecar into the collector: set collector.tokenSecret (of `sidecar collector register`), or an identity that a rule of the collector lets in" -}}
  {{- end -}}
{{- else if or $v.collector.logKey $v.collector.caCertificate $v.collector.tokenSecret $v.collector.acceptLossConfigMap -}}
  {{- fail "collector has settings, but collector.address is empty: name it as host:port" -}}
{{- else if or (gt (float64 $v.ledger.keepSeconds) 0.0) (gt (int64 $v.ledger.keepMiB) 0) -}}
  {{- fail "ledger.keepSeconds and ledger.keepMiB need collector.address: only what the collector has may go" -}}
{{- end -}}
{{- if and $v.collector.address (lt (float64 $v.terminationGracePeriodSeconds) (addf $v.collector.lingerSeconds 15)) -}}
  {{- fail (printf "terminationGracePeriodSeconds %d leaves no time for collector.lingerSeconds %v and the 15 s before it, in which calls end and the last segment is sealed; make it larger" (int $v.terminationGracePeriodSeconds) $v.collector.lingerSeconds) -}}
{{- end -}}
{{- if $v.collector.tokenSecret -}}
  {{- if ne $v.ledger.volume "perReplica" -}}
    {{- fail (printf "collector.tokenSecret is good for one ledger, but with ledger.volume=%s each new pod begins another; set ledger.volume=perReplica, or let an identity in (identity.kind)" $v.ledger.volume) -}}
  {{- end -}}
  {{- if and $renders (gt (int $v.workload.replicas) 1) -}}
    {{- fail (printf "collector.tokenSecret is good for one ledger, but workload.replicas is %d; let an identity in (identity.kind)" (int $v.workload.replicas)) -}}
  {{- end -}}
{{- end -}}
{{- if and (ne $v.retention.profile "default") (not $v.retention.authority) -}}
  {{- fail (printf "retention.profile is %s, but retention.authority is empty: give the public key of who alone may allow pruning (--set-file retention.authority=authority.pub.pem)" $v.retention.profile) -}}
{{- end -}}
{{- if and $renders (eq $v.workload.kind "Deployment") (eq $v.ledger.volume "perReplica") -}}
  {{- fail "ledger.volume is perReplica, which replicas of a Deployment cannot have; set workload.kind=StatefulSet, or ledger.volume=ephemeral for a ledger that ends with its pod" -}}
{{- end -}}
{{- $room := include "sidecar.mebibytes" $v.ledger.size | int64 -}}
{{- if lt $room (add (int64 $v.ledger.maxMiB) (div (int64 $v.ledger.maxMiB) 10)) -}}
  {{- fail (printf "ledger.size %s has no room for ledger.maxMiB %d and a tenth more, for receipts and the policies' repository; make it larger, or ledger.maxMiB smaller" $v.ledger.size (int64 $v.ledger.maxMiB)) -}}
{{- end -}}
{{- if and (or $v.personal.fields $v.personal.copy.enabled) (not $v.personal.subject) -}}
  {{- fail "personal.subject is empty: name what says whose the personal fields are" -}}
{{- end -}}
{{- if and $v.personal.copy.enabled (ne $v.ledger.volume "perReplica") -}}
  {{- fail (printf "personal.copy is for keys that outlive a pod's volume, but with ledger.volume=%s they end with the pod; set ledger.volume=perReplica" $v.ledger.volume) -}}
{{- end -}}
{{- include "sidecar.checkedEgress" . -}}
{{- include "sidecar.checkedAuthzen" . -}}
{{- $users := list $v.users.workload $v.users.sidecar $v.users.opa $v.users.envoy -}}
{{- if ne (len (uniq $users)) 4 -}}
  {{- fail "users.workload, users.sidecar, users.opa and users.envoy must differ: a process with the sidecar's user id can read its memory, its ledger and its key" -}}
{{- end -}}
{{- if has $v.users.socketGroup $users -}}
  {{- fail "users.socketGroup must be none of the four users' ids: it is the group that all of them have" -}}
{{- end -}}
{{- include "sidecar.checkedVolumes" . -}}
{{- range $v.workload.volumeMounts -}}
  {{- if hasPrefix "sidecar-" .name -}}
    {{- fail (printf "workload.volumeMounts: %s is the sidecar's own: the workload has its socket, and nothing else of it" .name) -}}
  {{- end -}}
{{- end -}}
{{- if regexMatch "(^|/)[.][.](/|$)" $v.policy.git.subdirectory -}}
  {{- fail (printf "policy.git.subdirectory %s leaves the repository; give a path without .." $v.policy.git.subdirectory) -}}
{{- end -}}
{{- range $v.workload.env -}}
  {{- if contains "PRIVATE KEY-----" (toString .value) -}}
    {{- fail (printf "workload.env: %s holds a private key, which the release and each process below would show; mount it as a file (workload.volumes, workload.volumeMounts), and make a new one if this was installed anywhere" .name) -}}
  {{- end -}}
  {{- if dig "valueFrom" "secretKeyRef" false . -}}
    {{- fail (printf "workload.env: %s takes a Secret into the environment, where each process below it and each crash report has it; mount it as a file (workload.volumes, workload.volumeMounts)" .name) -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{/* The workload's own volumes show it nothing that is the sidecar's, or Envoy's beside it. */}}
{{- define "sidecar.checkedVolumes" -}}
{{- $v := .Values -}}
{{- $theirs := dict "identity.secret" $v.identity.secret "policy.git.secret" $v.policy.git.secret "collector.tokenSecret" $v.collector.tokenSecret "egress.redirect.envoy.credentialSecret" $v.egress.redirect.envoy.credentialSecret "identity.kind=certManager" (printf "%s-identity" (include "sidecar.fullname" .)) -}}
{{- range $volume := $v.workload.volumes -}}
  {{- if hasPrefix "sidecar-" .name -}}
    {{- fail (printf "workload.volumes: %s is a name of the sidecar's own volumes; take one that does not begin with sidecar-" .name) -}}
  {{- end -}}
  {{- $claim := dig "persistentVolumeClaim" "claimName" "" . -}}
  {{- if regexMatch "^sidecar-(ledger|subjects)-" $claim -}}
    {{- fail (printf "workload.volumes: %s is the claim %s, which is the sidecar's: who has the ledger has its key; leave it out" .name $claim) -}}
  {{- end -}}
  {{- if hasKey . "hostPath" -}}
    {{- fail (printf "workload.volumes: %s is a hostPath, and the node holds the sidecar's volumes and sockets; take another kind" .name) -}}
  {{- end -}}
  {{- $secrets := list (dig "secret" "secretName" "" .) -}}
  {{- range dig "projected" "sources" list . -}}{{- $secrets = append $secrets (dig "secret" "name" "" .) -}}{{- end -}}
  {{- range $setting, $secret := $theirs -}}
    {{- if and $secret (has $secret $secrets) -}}
      {{- fail (printf "workload.volumes: %s shows the workload the Secret %s, which is not for it (%s); leave it out, or give the workload one of its own" $volume.name $secret $setting) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{- define "sidecar.checkedAuthzen" -}}
{{- $a := .Values.authzen -}}
{{- if and (not $a.gateway) (or $a.agent $a.url $a.from) -}}
  {{- fail "authzen has settings, but authzen.gateway is empty: name the registered executor that the PEP is" -}}
{{- end -}}
{{- if include "sidecar.authzenTls" . -}}
  {{- if eq .Values.identity.kind "none" -}}
    {{- fail "authzen.listen is tls, but identity.kind is none; set it to spiffe, certManager or secret, or authzen.listen=socket if the workload is the PEP" -}}
  {{- end -}}
  {{- if and .Values.networkPolicy.enabled (not $a.from) -}}
    {{- fail "authzen.from is empty, so no PEP could come: give who may, as [{podSelector: {matchLabels: {app: todo-backend}}}]" -}}
  {{- end -}}
  {{- if has (int $a.port) (list (int .Values.metrics.port) (int .Values.api.port) (int .Values.egress.redirect.port)) -}}
    {{- fail (printf "authzen.port %d is another port of the pod's already; take one that is free" (int $a.port)) -}}
  {{- end -}}
{{- end -}}
{{- if include "sidecar.authzenSocket" . -}}
  {{- if $a.from -}}
    {{- fail "authzen.from is for authzen.listen=tls: on a socket nobody comes but the workload; leave it out" -}}
  {{- end -}}
  {{- if .Values.egress.gateway.enabled -}}
    {{- fail "authzen.listen is socket, but with egress.gateway the workload is Envoy, and no PEP; set authzen.listen=tls" -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{- define "sidecar.checkedEgress" -}}
{{- $r := .Values.egress.redirect -}}{{- $g := .Values.egress.gateway -}}{{- $door := .Values.egress.door -}}
{{- if and $r.enabled $g.enabled -}}
  {{- fail "egress.redirect and egress.gateway are both enabled: Envoy is in the workload's pod, or in one of its own; leave one out" -}}
{{- end -}}
{{- if and (or $r.enabled $g.enabled) (not $door.gateway) -}}
  {{- fail "egress.door.gateway is empty, so Envoy could ask nobody: name the registered executor that Envoy is" -}}
{{- end -}}
{{- if and $door.gateway (not (or $r.enabled $g.enabled)) -}}
  {{- fail "egress.door.gateway is set, but nothing of ours asks there: set egress.redirect.enabled or egress.gateway.enabled" -}}
{{- end -}}
{{- if and (not $door.gateway) (or $door.agent $door.headers) -}}
  {{- fail "egress.door has settings, but egress.door.gateway is empty: name the registered executor that Envoy is" -}}
{{- end -}}
{{- if $r.enabled -}}
  {{- range $name, $value := dict "image" $r.image "envoy.image" $r.envoy.image "envoy.configuration" $r.envoy.configuration -}}
    {{- if not $value -}}{{- fail (printf "egress.redirect.%s is empty, which egress.redirect.enabled needs: values.yaml says what it is" $name) -}}{{- end -}}
  {{- end -}}
  {{- if not $door.agent -}}
    {{- fail "egress.door.agent is empty, and with egress.redirect callers show Envoy no certificate: name the agent of this workload" -}}
  {{- end -}}
  {{- if regexMatch `failure_mode_allow['"]?\s*:\s*['"]?(?i:true|yes|on|y)\b` $r.envoy.configuration -}}
    {{- fail "egress.redirect.envoy.configuration has failure_mode_allow: true, so without an answer everything is allowed: set it to false" -}}
  {{- end -}}
  {{- if not (contains "envoy.filters.http.ext_authz" $r.envoy.configuration) -}}
    {{- fail "egress.redirect.envoy.configuration has no filter envoy.filters.http.ext_authz, so nothing would be asked: begin with charts/envoy/envoy.yaml" -}}
  {{- end -}}
  {{- if or (contains "generic_secret" $r.envoy.configuration) (contains "PRIVATE KEY-----" $r.envoy.configuration) -}}
    {{- fail "egress.redirect.envoy.configuration holds a credential, which a ConfigMap would show to everybody: put it into the Secret of egress.redirect.envoy.credentialSecret, as charts/envoy/credential.yaml, and make a new one if this was installed anywhere" -}}
  {{- end -}}
  {{- if not (contains (printf "port_value: %d" (int $r.port)) $r.envoy.configuration) -}}
    {{- fail (printf "egress.redirect.envoy.configuration has no listener with port_value: %d; set egress.redirect.port to the port it has" (int $r.port)) -}}
  {{- end -}}
{{- end -}}
{{- if $g.enabled -}}
  {{- if not .Values.workload.image -}}
    {{- fail "egress.gateway is enabled, but workload.image is empty: this release's workload must be Envoy" -}}
  {{- end -}}
  {{- if not $g.agents -}}
    {{- fail "egress.gateway.agents is empty, so no pod would be held: give the labels of the agents' pods" -}}
  {{- end -}}
  {{- if not .Values.networkPolicy.enabled -}}
    {{- fail "egress.gateway is NetworkPolicies, but networkPolicy.enabled is false; leave one of the two out" -}}
  {{- end -}}
{{- end -}}
{{- end -}}
