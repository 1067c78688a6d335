{{/* What every object of the release is called and found by. */}}
{{- define "keywatch.name" -}}
{{- if contains "keywatch" .Release.Name -}}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{- else -}}{{ printf "%s-keywatch" .Release.Name | trunc 40 | trimSuffix "-" }}{{- end -}}
{{- end -}}

{{- define "keywatch.selector" -}}
app.kubernetes.io/name: keywatch
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .name }}
{{- end -}}

{{- define "keywatch.labels" -}}
{{ include "keywatch.podLabels" . }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{/* Without the chart's own version: pods would start anew with every change of a dashboard. */}}
{{- define "keywatch.podLabels" -}}
{{ include "keywatch.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The ServiceAccount of a component: its own where it has one, else that of all. */}}
{{- define "keywatch.account" -}}
{{- if .it.serviceAccount -}}
{{ .it.serviceAccount.name | default (printf "%s-%s" (include "keywatch.name" .root) .component) }}
{{- else -}}
{{ .root.Values.serviceAccount.name | default (include "keywatch.name" .root) }}
{{- end -}}
{{- end -}}

{{/* What every pod is and where it goes: what a component says itself replaces what is said for all. root; name; it. */}}
{{- define "keywatch.placement" -}}
automountServiceAccountToken: false
securityContext: {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .it.priorityClassName | default .root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .it.nodeSelector | default .root.Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .it.tolerations | default .root.Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .it.affinity | default .root.Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* One container, its probes and what it mounts. root; name; it: the component's values; args; port: of metrics and
     probes; http: of what else it answers, or 0; config: the ConfigMap; env: more of it. */}}
{{- define "keywatch.pod" -}}
serviceAccountName: {{ include "keywatch.account" . }}
terminationGracePeriodSeconds: {{ .it.graceS }}
{{ include "keywatch.placement" . }}
{{- with .it.topologySpreadConstraints | default .root.Values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range . }}
  -
    {{- toYaml . | nindent 4 }}
    {{- if not .labelSelector }}
    labelSelector:
      matchLabels: {{- include "keywatch.selector" $ | nindent 8 }}
    {{- end }}
  {{- end }}
{{- end }}
containers:
  - name: keywatch
    {{- include "keywatch.container" . | nindent 4 }}
    args: {{- toYaml .args | nindent 6 }}
    ports:
      - {name: metrics, containerPort: {{ .port }}}
      {{- if .http }}
      - {name: http, containerPort: {{ .http }}}
      {{- end }}
    {{- if .http }}
    lifecycle: # it goes on answering until proxies and Services know that it ends
      preStop: {exec: {command: [sleep, "5"]}}
    {{- end }}
    startupProbe:
      httpGet: {path: /readyz, port: metrics}
      periodSeconds: 5
      failureThreshold: {{ div (int .it.startS) 5 }}
    readinessProbe:
      httpGet: {path: /readyz, port: metrics}
      periodSeconds: 10
      failureThreshold: 3
    livenessProbe:
      httpGet: {path: /livez, port: metrics}
      periodSeconds: 20
      timeoutSeconds: 5
      failureThreshold: 6
    resources: {{- toYaml (.resources | default .it.resources) | nindent 6 }}
    volumeMounts:
      - {name: config, mountPath: /etc/keywatch, readOnly: true}
      {{- include "keywatch.mounts" . | nindent 6 }}
      {{- include "keywatch.extraMounts" . | nindent 6 }}
volumes:
  - {name: config, configMap: {name: {{ .config }}}}
  {{- include "keywatch.volumes" . | nindent 2 }}
  {{- include "keywatch.extraVolumes" . | nindent 2 }}
{{- end -}}

{{- define "keywatch.container" -}}
{{- $image := .root.Values.image }}
{{- if $image.digest }}
image: "{{ $image.repository }}@{{ $image.digest }}"
{{- else }}
image: "{{ $image.repository }}:{{ $image.tag | default .root.Chart.AppVersion }}"
{{- end }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
env:
  {{- if .config }}
  - {name: KEYWATCH_CONFIG, value: /etc/keywatch/keywatch.toml}
  {{- end }}
  - {name: KEYWATCH_LOG_JSON, value: "true"}
  - {name: KEYWATCH_KAFKA__BROKERS, value: {{ .root.Values.kafka.brokers | quote }}}
  - {name: KEYWATCH_KAFKA__PARTITIONS, value: {{ .root.Values.kafka.partitions | quote }}}
  - {name: KEYWATCH_KAFKA__DECLARE_TOPICS, value: "false"}
  {{- with .it.kafkaUser }}
  - {name: KEYWATCH_KAFKA__SECURITY, value: {{ $.root.Values.kafka.security }}}
  {{- if $.root.Values.kafka.ca.secretName }}
  - {name: KEYWATCH_KAFKA__CA_FILE, value: /run/secrets/keywatch/kafka_ca}
  {{- end }}
  {{- if .certSecret | default $.root.Values.kafka.clientCert.secretName }}
  - {name: KEYWATCH_KAFKA__CERT_FILE, value: /run/secrets/keywatch/kafka_cert}
  - {name: KEYWATCH_KAFKA__KEY_FILE, value: /run/secrets/keywatch/kafka_key}
  {{- end }}
  {{- if contains "SASL" $.root.Values.kafka.security }}
  - {name: KEYWATCH_KAFKA__SASL_MECHANISM, value: {{ $.root.Values.kafka.saslMechanism }}}
  - {name: KEYWATCH_KAFKA__USERNAME, value: {{ .username | quote }}}
  - {name: KEYWATCH_KAFKA__PASSWORD_FILE, value: /run/secrets/keywatch/kafka_password}
  {{- end }}
  {{- end }}
  {{- with .it.sessionKey }}
  {{- if .secretName }}
  - {name: KEYWATCH_CONSOLE__SESSION_KEY_FILE, value: /run/secrets/keywatch/session_key}
  {{- end }}
  {{- end }}
  - {name: KEYWATCH_CLICKHOUSE__URL, value: {{ .root.Values.clickhouse.url | quote }}}
  - {name: KEYWATCH_CLICKHOUSE__DATABASE, value: {{ .root.Values.clickhouse.database | quote }}}
  {{- if .root.Values.clickhouse.ca.secretName }}
  - {name: KEYWATCH_CLICKHOUSE__CA_FILE, value: /run/secrets/keywatch/clickhouse_ca}
  {{- end }}
  {{- if .it.username }}
  - {name: KEYWATCH_CLICKHOUSE__USERNAME, value: {{ .it.username | quote }}}
  {{- end }}
  {{- range .it.secrets }}
  {{- if .setting }}
  - {name: {{ .setting }}, value: {{ printf "/run/secrets/keywatch/%s" .file }}}
  {{- end }}
  {{- end }}
  {{- with .env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with .root.Values.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with .it.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "keywatch.mounts" -}}
- {name: secrets, mountPath: /run/secrets/keywatch, readOnly: true}
- {name: tmp, mountPath: /tmp}
- {name: compiled, mountPath: /var/cache/keywatch}
{{- end -}}

{{- define "keywatch.volumes" -}}
- name: secrets
  projected:
    defaultMode: 288 # 0440
    sources:
      {{- range .it.secrets }}
      - secret: {name: {{ .secretName }}, items: [{key: {{ .key }}, path: {{ .file }}}]}
      {{- end }}
      {{- with .root.Values.clickhouse.ca }}
      {{- if .secretName }}
      - secret: {name: {{ .secretName }}, items: [{key: {{ .key }}, path: clickhouse_ca}]}
      {{- end }}
      {{- end }}
      {{- with .it.kafkaUser }}
      {{- if $.root.Values.kafka.ca.secretName }}
      - secret: {name: {{ $.root.Values.kafka.ca.secretName }}, items: [{key: {{ $.root.Values.kafka.ca.key }}, path: kafka_ca}]}
      {{- end }}
      {{- $cert := .certSecret | default $.root.Values.kafka.clientCert.secretName }}
      {{- if $cert }}
      {{- $keys := $.root.Values.kafka.clientCert }}
      - secret: {name: {{ $cert }}, items: [{key: {{ $keys.cert }}, path: kafka_cert}, {key: {{ $keys.key }}, path: kafka_key}]}
      {{- end }}
      {{- if contains "SASL" $.root.Values.kafka.security }}
      - secret: {name: {{ .secretName }}, items: [{key: {{ .key }}, path: kafka_password}]}
      {{- end }}
      {{- end }}
      {{- with .it.sessionKey }}
      {{- if .secretName }}
      - secret: {name: {{ .secretName }}, items: [{key: {{ .key }}, path: session_key}]}
      {{- end }}
      {{- end }}
- {name: tmp, emptyDir: {sizeLimit: 256Mi}}
- {name: compiled, emptyDir: {sizeLimit: 512Mi}}
{{- end -}}

{{/* Volumes of one's own: those of all and the component's. */}}
{{- define "keywatch.extraVolumes" -}}
{{- with .root.Values.extraVolumes }}
{{- toYaml . | nindent 0 }}
{{- end }}
{{- with .it.extraVolumes }}
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end -}}

{{- define "keywatch.extraMounts" -}}
{{- with .root.Values.extraVolumeMounts }}
{{- toYaml . | nindent 0 }}
{{- end }}
{{- with .it.extraVolumeMounts }}
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end -}}

{{/* The keywatch.toml of a component: what it reads and no more, since a change of it starts the component anew. The
     policy is the responder's, who judges by it, and the console's, which shows it. component; it. */}}
{{- define "keywatch.toml" -}}
{{- if ne .component "console" }}
{{ .root.Values.config }}
{{- end }}
{{- if or (eq .component "console") (eq .component "responder") }}
{{ .root.Values.policy }}
{{- end }}
{{- with .it.config }}
{{ . }}
{{- end }}
{{- end -}}

{{/* Metadata of a pod: a changed keywatch.toml of its own starts it anew, another's doesn't. */}}
{{- define "keywatch.podMetadata" -}}
labels:
  {{- include "keywatch.podLabels" . | nindent 2 }}
  {{- with merge (dict) (.it.podLabels | default (dict)) .root.Values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  checksum/config: {{ include "keywatch.toml" . | sha256sum }}
  {{- with merge (dict) (.it.podAnnotations | default (dict)) .root.Values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* How people reach the console. */}}
{{- define "keywatch.consoleUrl" -}}
{{- $console := .Values.console -}}
{{- if .Values.dashboards.consoleUrl -}}
{{ .Values.dashboards.consoleUrl }}
{{- else if and $console.enabled $console.ingress.enabled -}}
https://{{ $console.ingress.host }}
{{- else if and $console.enabled $console.httpRoute.enabled -}}
https://{{ $console.httpRoute.host }}
{{- else -}}
http://localhost:8090
{{- end -}}
{{- end -}}

{{/* The service by which Prometheus finds a component. */}}
{{- define "keywatch.service" -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "keywatch.name" .root }}-{{ .name }}
  labels:
    {{- include "keywatch.labels" . | nindent 4 }}
    keywatch/job: {{ .job }}
spec:
  {{- if .headless }}
  clusterIP: None
  publishNotReadyAddresses: true
  {{- end }}
  selector: {{- include "keywatch.selector" . | nindent 4 }}
  ports:
    - {name: metrics, port: {{ .port }}, targetPort: metrics}
    {{- if .http }}
    - {name: http, port: {{ .http }}, targetPort: http}
    {{- end }}
{{- end -}}

{{/* The way out to DNS, for a NetworkPolicy. Policies see a connection as it reaches the pod, not the Service: OpenShift's
     DNS pods listen on 5353 behind port 53. */}}
{{- define "keywatch.dns" -}}
- ports:
    {{- range .Values.networkPolicy.dnsPorts }}
    - {port: {{ . }}, protocol: UDP}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end -}}
