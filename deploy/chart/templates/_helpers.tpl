{{- define "patd.name" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}{{- if not (contains "patd" .Release.Name) }}-patd{{ end -}}
{{- end }}

{{- define "patd.selector" -}}
app.kubernetes.io/name: patd
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "patd.labels" -}}
{{ include "patd.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: patd-{{ .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "patd.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default (.Chart.AppVersion | replace "+" "-") }}
{{- end -}}
{{- end }}

{{- define "patd.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "patd.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Secrets are mounted as whole volumes: files mounted by subPath would not change with them. */}}
{{- define "patd.secretMounts" -}}
{{- if .Values.hashKey.existingSecret }}
- {name: hash-key, mountPath: /etc/patd/hash-key, readOnly: true}
{{- end }}
{{- if eq .Values.store "postgresql" }}
{{- if .Values.postgresql.passwordSecret.name }}
- {name: database-password, mountPath: /etc/patd/database-password, readOnly: true}
{{- end }}
{{- if .Values.postgresql.caSecret.name }}
- {name: database-ca, mountPath: /etc/patd/database-ca, readOnly: true}
{{- end }}
{{- end }}
{{- end }}

{{- define "patd.secretVolumes" -}}
{{- if .Values.hashKey.existingSecret }}
- name: hash-key
  secret:
    secretName: {{ .Values.hashKey.existingSecret }}
    defaultMode: 0440
    items: [{key: {{ .Values.hashKey.key | quote }}, path: hash.key}]
{{- end }}
{{- if eq .Values.store "postgresql" }}
{{- if .Values.postgresql.passwordSecret.name }}
- name: database-password
  secret:
    secretName: {{ .Values.postgresql.passwordSecret.name }}
    defaultMode: 0440
    items: [{key: {{ .Values.postgresql.passwordSecret.key | quote }}, path: password}]
{{- end }}
{{- if .Values.postgresql.caSecret.name }}
- name: database-ca
  secret:
    secretName: {{ .Values.postgresql.caSecret.name }}
    defaultMode: 0440
    items: [{key: {{ .Values.postgresql.caSecret.key | quote }}, path: ca.crt}]
{{- end }}
{{- end }}
{{- end }}

{{- define "patd.storeEnv" -}}
{{- if .Values.hashKey.existingSecret }}
- {name: PATD_HASH_KEY_FILE, value: /etc/patd/hash-key/hash.key}
{{- end }}
{{- if eq .Values.store "postgresql" }}
- {name: PATD_DATABASE_URL, value: {{ .Values.postgresql.url | quote }}}
{{- if .Values.postgresql.passwordSecret.name }}
- {name: PATD_DATABASE_PASSWORD_FILE, value: /etc/patd/database-password/password}
{{- end }}
{{- end }}
{{- end }}
