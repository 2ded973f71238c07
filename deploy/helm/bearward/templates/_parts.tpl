{{- /* The parts that another chart includes, each with the scope of this one: {{ include "bearward.container" .Subcharts.bearward }} */ -}}

{{- define "bearward.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 63 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "bearward.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- /* For the pod template: what the NetworkPolicy and the PodMonitor select by. */ -}}
{{- define "bearward.podLabels" -}}
bearward/inject: "true"
bearward/instance: {{ .Release.Name | quote }}
{{- end }}

{{- /* For the pod template: restarts the pods when the configuration changes, and says what to scrape. */ -}}
{{- define "bearward.podAnnotations" -}}
{{- if and .Values.rolloutOnConfigChange (not .Values.existingConfigMap) }}
bearward/config-checksum: {{ toYaml .Values.config | sha256sum }}
{{- end }}
{{- if .Values.monitoring.annotations }}
prometheus.io/scrape: "true"
prometheus.io/port: "9090"
prometheus.io/path: /metrics
{{- end }}
{{- end }}

{{- define "bearward.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}{{ else }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- /* One list element: for initContainers, or with native: false for containers. deploy/kustomize/component/sidecar.yaml
has the reasons. */ -}}
{{- define "bearward.container" -}}
- name: bearward
  image: {{ include "bearward.image" . | quote }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  {{- if .Values.native }}
  restartPolicy: Always
  {{- end }}
  args: [serve, --config, /etc/bearward/bearward.yaml]
  env:
    - name: POD_IP
      valueFrom: { fieldRef: { fieldPath: status.podIP } }
    {{- with .Values.env }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  ports:
    - { name: bearward, containerPort: 8080 }
    - { name: bearward-ops, containerPort: 9090 }
  startupProbe:
    httpGet: { path: /startupz, port: 9090 }
    periodSeconds: 1
    failureThreshold: 60
  readinessProbe:
    httpGet: { path: /readyz, port: 9090 }
    periodSeconds: 5
    failureThreshold: 2
  livenessProbe:
    httpGet: { path: /livez, port: 9090 }
    periodSeconds: 10
    timeoutSeconds: 3
    failureThreshold: 6
  {{- if .Values.native }}
  lifecycle:
    preStop:
      exec: { command: [/nodejs/bin/node, /app/dist/main.js, drain] }
  {{- end }}
  resources:
    {{- toYaml .Values.resources | nindent 4 }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    capabilities: { drop: [ALL] }
    seccompProfile: { type: RuntimeDefault }
  terminationMessagePolicy: FallbackToLogsOnError
  volumeMounts:
    - { name: bearward-config, mountPath: /etc/bearward, readOnly: true }
    {{- if .Values.secretName }}
    - { name: bearward-secrets, mountPath: /var/run/secrets/bearward, readOnly: true }
    {{- end }}
    {{- if .Values.serviceAccountToken.audience }}
    - { name: bearward-token, mountPath: /var/run/secrets/bearward-token, readOnly: true }
    {{- end }}
{{- end }}

{{- /* List elements for the volumes of the pod. */ -}}
{{- define "bearward.volumes" -}}
- name: bearward-config
  configMap: { name: {{ .Values.existingConfigMap | default (include "bearward.name" .) }} }
{{- if .Values.secretName }}
- name: bearward-secrets
  projected:
    sources:
      - secret: { name: {{ .Values.secretName }} }
{{- end }}
{{- if .Values.serviceAccountToken.audience }}
- name: bearward-token
  projected:
    sources:
      - serviceAccountToken:
          path: token
          audience: {{ .Values.serviceAccountToken.audience }}
          expirationSeconds: {{ .Values.serviceAccountToken.expirationSeconds }}
{{- end }}
{{- end }}
