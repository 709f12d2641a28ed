{{- define "isk.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 63 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "isk.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "isk.labels" -}}
{{ include "isk.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "isk.secret" -}}
{{- .Values.existingSecret | default (include "isk.name" .) -}}
{{- end }}

{{- define "isk.scheme" -}}
{{- if .Values.tls.secretName }}HTTPS{{ else }}HTTP{{ end -}}
{{- end }}

{{/* The claim that replicas share; empty where they share none. */}}
{{- define "isk.shared" -}}
{{- if and .Values.shared.existingClaim .Values.shared.create }}
{{- fail "shared: either existingClaim or create, not both" }}
{{- end }}
{{- if .Values.shared.create }}{{ include "isk.name" . }}-shared{{ else }}{{ .Values.shared.existingClaim }}{{ end -}}
{{- end }}

{{/* Says "yes" where there may be more than one replica; those must share a volume. */}}
{{- define "isk.several" -}}
{{- if or .Values.autoscaling.enabled (gt (int .Values.replicas) 1) }}
{{- if not (include "isk.shared" .) }}
{{- fail "replicas, autoscaling: several ISKs serve together only with a volume that all of them write: set shared.existingClaim or shared.create" }}
{{- end }}
{{- if and .Values.autoscaling.enabled (lt (int .Values.autoscaling.maxReplicas) (int .Values.autoscaling.minReplicas)) }}
{{- fail "autoscaling: maxReplicas is below minReplicas" }}
{{- end }}
{{- "yes" }}
{{- end }}
{{- end }}

{{/* Where clients reach both ports, but for a proxy. */}}
{{- define "isk.hostname" -}}
{{- .Values.externalHostname | default (printf "%s.%s.svc" (include "isk.name" .) .Release.Namespace) }}
{{- end }}

{{/* The gateway's URL where a proxy stands before it. */}}
{{- define "isk.s3url" -}}
{{- with .Values.ingress }}
{{- if .enabled }}
{{- if not (and .catalogHost .s3Host) }}
{{- fail "ingress: catalogHost and s3Host are both needed" }}
{{- end }}
{{- if eq .catalogHost .s3Host }}
{{- fail "ingress: catalogHost and s3Host must differ: both ports serve from the root of their paths" }}
{{- end }}
{{- $.Values.externalS3Url | default (printf "%s://%s" (ternary "http" "https" (empty .tlsSecretName)) .s3Host) }}
{{- else }}
{{- $.Values.externalS3Url }}
{{- end }}
{{- end }}
{{- end }}
