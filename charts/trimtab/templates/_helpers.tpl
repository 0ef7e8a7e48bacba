{{/* Name of every object of the release. */}}
{{- define "trimtab.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 53 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 53 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What the Deployment selects; never changes over the life of a release. */}}
{{- define "trimtab.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "trimtab.labels" -}}
{{ include "trimtab.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "trimtab.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "trimtab.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed when serviceAccount.create is false; set it to an existing ServiceAccount" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "trimtab.image" -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}

{{/* What the operator may do to our resources and to their children, in each namespace that it looks after. */}}
{{- define "trimtab.rules" -}}
# Read both resources; a patch sets and takes off the operator's finalizer. Specs are never written.
- apiGroups: [trimtab.dev]
  resources: [inferencepools, routingpolicies]
  verbs: [get, list, watch, patch]
- apiGroups: [trimtab.dev]
  resources: [inferencepools/status, routingpolicies/status]
  verbs: [patch]
# Where OwnerReferencesPermissionEnforcement is on, children with blockOwnerDeletion need this.
- apiGroups: [trimtab.dev]
  resources: [inferencepools/finalizers, routingpolicies/finalizers]
  verbs: [update]
# Children: applied server-side (create and patch), pruned when no longer desired.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services, configmaps]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
# GPUs by Dynamic Resource Allocation.
- apiGroups: [resource.k8s.io]
  resources: [resourceclaimtemplates]
  verbs: [get, list, create, patch, delete]
# Replicas on several nodes.
- apiGroups: [leaderworkerset.x-k8s.io]
  resources: [leaderworkersets]
  verbs: [get, list, create, patch, delete]
# GPUs are counted from pods, those that end included. A pod that drains gets a label (patch); one whose time to drain is
# over has its grace shortened (delete).
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, patch, delete]
# Events of ours; those of autoscalers about pods without a node are read.
- apiGroups: [""]
  resources: [events]
  verbs: [create, list]
# Autoscalers of others, which may drive a pool by its /scale: the rebalancer leaves such pools to them.
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [list]
- apiGroups: [keda.sh]
  resources: [scaledobjects]
  verbs: [list]
{{- end -}}

{{/* What it may do outside of namespaces: the NodePools and ComputeClasses of pools in those modes. */}}
{{- define "trimtab.nodeRules" -}}
- apiGroups: [karpenter.sh]
  resources: [nodepools]
  verbs: [get, list, create, patch, delete]
- apiGroups: [cloud.google.com]
  resources: [computeclasses]
  verbs: [get, list, create, patch, delete]
{{- end -}}
