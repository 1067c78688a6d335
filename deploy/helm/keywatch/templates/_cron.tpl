{{/* A job by the clock. root; name; it: its values; config; args; env; retries; deadlineS: it is ended then;
     out: where it connects to besides DNS, as networkPolicy.egress has it. */}}
{{- define "keywatch.cron" -}}
apiVersion: batch/v1
kind: CronJob
metadata:
  name: {{ include "keywatch.name" .root }}-{{ .name }}
  labels: {{- include "keywatch.labels" . | nindent 4 }}
spec:
  schedule: {{ .it.schedule | quote }}
  concurrencyPolicy: Forbid
  startingDeadlineSeconds: 3600
  successfulJobsHistoryLimit: 1
  failedJobsHistoryLimit: 3
  jobTemplate:
    metadata:
      labels: {{- include "keywatch.labels" . | nindent 8 }}
    spec:
      backoffLimit: {{ .retries }}
      activeDeadlineSeconds: {{ .deadlineS }}
      template:
        metadata: {{- include "keywatch.podMetadata" . | nindent 10 }}
        spec:
          restartPolicy: Never
          serviceAccountName: {{ include "keywatch.account" . }}
          {{- include "keywatch.placement" . | nindent 10 }}
          containers:
            - name: keywatch
              {{- include "keywatch.container" . | nindent 14 }}
              args: {{- toYaml .args | nindent 16 }}
              resources: {{- toYaml .it.resources | nindent 16 }}
              volumeMounts:
                - {name: config, mountPath: /etc/keywatch, readOnly: true}
                {{- include "keywatch.mounts" . | nindent 16 }}
                {{- include "keywatch.extraMounts" . | nindent 16 }}
          volumes:
            - {name: config, configMap: {name: {{ include "keywatch.name" .root }}}}
            {{- include "keywatch.volumes" . | nindent 12 }}
            {{- include "keywatch.extraVolumes" . | nindent 12 }}
{{- if .root.Values.networkPolicy.enabled }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "keywatch.name" .root }}-{{ .name }}
  labels: {{- include "keywatch.labels" . | nindent 4 }}
spec:
  podSelector:
    matchLabels: {{- include "keywatch.selector" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
  ingress: []
  egress:
    {{- include "keywatch.dns" .root | nindent 4 }}
    {{- range .out }}
    - ports: [{port: {{ .port }}}]
      {{- with .to }}
      to: {{- toYaml . | nindent 8 }}
      {{- end }}
    {{- end }}
{{- end }}
{{- end -}}
