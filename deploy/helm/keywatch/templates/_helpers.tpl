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
{{ include "keywatch.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{/* One container, its probes and what it mounts. root; name; it: the component's values; args; port: of metrics and
     probes; http: of what else it answers, or 0; config: the ConfigMap; env: more of it. */}}
{{- define "keywatch.pod" -}}
serviceAccountName: {{ include "keywatch.name" .root }}
automountServiceAccountToken: false
terminationGracePeriodSeconds: {{ .it.graceS }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "keywatch.selector" . | nindent 8 }}
containers:
  - name: keywatch
    {{- include "keywatch.container" . | nindent 4 }}
    args: {{- toYaml .args | nindent 6 }}
    ports:
      - {name: metrics, containerPort: {{ .port }}}
      {{- if .http }}
      - {name: http, containerPort: {{ .http }}}
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
    resources: {{- toYaml .it.resources | nindent 6 }}
    volumeMounts:
      - {name: config, mountPath: /etc/keywatch, readOnly: true}
      {{- include "keywatch.mounts" . | nindent 6 }}
      {{- with .root.Values.extraVolumeMounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
volumes:
  - {name: config, configMap: {name: {{ .config }}}}
  {{- include "keywatch.volumes" . | nindent 2 }}
  {{- with .root.Values.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "keywatch.container" -}}
image: "{{ .root.Values.image.repository }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}"
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

{{/* The keywatch.toml of a component. */}}
{{- define "keywatch.toml" -}}
{{ if eq .name "console" }}{{ .root.Values.console.config }}{{ else }}{{ .root.Values.config }}{{ end }}
{{ .root.Values.policy }}
{{- if eq .name "responder" }}
{{ .root.Values.responder.config }}
{{- end }}
{{- end -}}

{{/* Metadata of a pod: a changed keywatch.toml of its own starts it anew, another's doesn't. */}}
{{- define "keywatch.podMetadata" -}}
labels: {{- include "keywatch.labels" . | nindent 2 }}
annotations:
  checksum/config: {{ include "keywatch.toml" . | sha256sum }}
  {{- with .root.Values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
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
