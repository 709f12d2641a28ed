#!/usr/bin/env bash
# Renders and checks what lies in deploy/ with the tools of those who read it: helm, Kubernetes' schemas and those of
# Prometheus' operator, promtool, systemd-analyze. Tools that are not installed are built or fetched once, into $ISK_TEST_CACHE; that needs Go and Python.
set -euo pipefail
cd "$(dirname "$0")/.."
helm_version=3.22.0
promtool_version=0.313.3
kubernetes_validate_version=1.37.0
operator_version=0.85.0
cache=${ISK_TEST_CACHE:-$HOME/.cache/isk-tests}/deploy-tools

tool() { # tool <name> <version> <Go package>: prints its path
    if command -v "$1" >/dev/null 2>&1; then command -v "$1"; return; fi
    local folder=$cache/$1-$2
    if [ ! -x "$folder/$1" ]; then
        echo "lint: building $1 $2 once, into $folder" >&2
        # Not `go install`: it refuses a program whose own module replaces others.
        mkdir -p "$folder/module"
        (cd "$folder/module" && { [ -f go.mod ] || go mod init tools; } && go get "$3@v$2" && go build -o "$folder/$1" "$3") >&2
    fi
    echo "$folder/$1"
}

helm=$(tool helm $helm_version helm.sh/helm/v3/cmd/helm)
promtool=$(tool promtool $promtool_version github.com/prometheus/prometheus/cmd/promtool)
validate=$cache/kubernetes-validate-$kubernetes_validate_version
if [ ! -x "$validate/bin/kubernetes-validate" ]; then
    python3 -m venv "$validate"
    "$validate/bin/pip" install --quiet "kubernetes-validate==$kubernetes_validate_version"
fi
definitions=$cache/prometheus-operator-$operator_version
if [ ! -d "$definitions" ]; then
    # They lie in the operator's own module.
    module=$(go mod download -json "github.com/prometheus-operator/prometheus-operator@v$operator_version" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
    mkdir "$definitions.partly"
    cp "$module"/example/prometheus-operator-crd/*_{servicemonitors,prometheusrules}.yaml "$definitions.partly"
    mv "$definitions.partly" "$definitions"
fi

rendered=$(mktemp -d)
trap 'rm -rf "$rendered"' EXIT
chart=deploy/helm/isk

render() { # render <name> <helm's arguments>
    "$helm" template isk $chart "${@:2}" >"$rendered/$1.yaml"
}
refused() { # refused <part of the message> <helm's arguments>
    local said
    if said=$("$helm" template isk $chart "${@:2}" 2>&1); then
        echo "lint: the chart takes ${*:2}" >&2
        exit 1
    fi
    grep -qF -- "$1" <<<"$said" || { printf 'lint: the chart refuses %s, but not by "%s":\n%s\n' "${*:2}" "$1" "$said" >&2; exit 1; }
}

"$helm" lint --strict --quiet $chart
render defaults
render secret --set existingSecret=isk-config --set 'secretFiles={isk-kafka,isk-registry}'
render others --set persistence.enabled=false,externalHostname=isk.example.com \
    --set externalS3Url=https://s3.example.com --set-json 'networkPolicy.from=[{"podSelector":{}}]' \
    --set tls.secretName=isk-tls,tls.clientCertificates=true \
    --set-json 'env=[{"name":"ISK_LOG","value":"debug"}]'
render replicas --set replicas=3,shared.create=true,shared.storageClass=nfs,service.sessionAffinity=ClientIP
render autoscaling --set autoscaling.enabled=true,shared.existingClaim=isk --set podDisruptionBudget.maxUnavailable=null,podDisruptionBudget.minAvailable=50%
render ingress --set ingress.enabled=true,ingress.className=nginx,ingress.catalogHost=isk.example.com,ingress.s3Host=isk-s3.example.com \
    --set ingress.tlsSecretName=isk-ingress-tls \
    --set-json 'networkPolicy.egress=[{"to":[{"ipBlock":{"cidr":"10.0.0.0/8"}}],"ports":[{"port":9092,"protocol":"TCP"}]}]'
"$helm" template isk $chart -s templates/monitoring.yaml --set prometheusRule.enabled=true >"$rendered/rule"
"$helm" template isk $chart --set serviceMonitor.enabled=true,prometheusRule.enabled=true,replicas=3,shared.create=true,tls.secretName=isk-tls \
    --set-json 'serviceMonitor.tlsConfig={"ca":{"secret":{"name":"isk-tls","key":"ca.crt"}},"serverName":"isk"}' \
    --set-json 'serviceMonitor.authorization={"credentials":{"name":"isk-metrics","key":"token"}}' \
    --set-json 'serviceMonitor.labels={"release":"prometheus"},prometheusRule.labels={"release":"prometheus"}' >"$rendered/monitored"

# What the templates say of each variant, in one word that must (or, behind a "!", must not) be there.
has() { # has <name> <words>
    local word
    for word in "${@:2}"; do
        if [ "${word#!}" = "$word" ]; then
            grep -qF -- "$word" "$rendered/$1.yaml" || { echo "lint: $1 has no $word" >&2; exit 1; }
        elif grep -qF -- "${word#!}" "$rendered/$1.yaml"; then
            echo "lint: $1 has ${word#!}" >&2
            exit 1
        fi
    done
}
has defaults 'replicas: 1' 'kind: NetworkPolicy' '!ISK_SHARED_DIR' '!PodDisruptionBudget' '!topologySpreadConstraints' '!Egress'
has secret 'secretName: isk-config' '/etc/isk-secrets/isk-kafka' '!kind: Secret'
has others 'scheme: HTTPS' '!volumeClaimTemplates' 'ISK_TLS_CLIENT_CA_FILE'
has replicas 'replicas: 3' ISK_SHARED_DIR ReadWriteMany 'claimName: "isk-shared"' PodDisruptionBudget 'maxUnavailable: 1' topology.kubernetes.io/zone 'sessionAffinity: ClientIP'
has autoscaling HorizontalPodAutoscaler 'claimName: "isk"' 'minAvailable: 50%' '!ReadWriteMany' '!  replicas:'
has ingress 'kind: Ingress' '"https://isk-s3.example.com"' Egress 'port: 53' 'port: 9092'

needs='set shared.existingClaim or shared.create'
refused "$needs" --set replicas=2
refused "$needs" --set autoscaling.enabled=true
refused 'either existingClaim or create' --set shared.create=true,shared.existingClaim=isk
refused 'maxReplicas is below minReplicas' --set autoscaling.enabled=true,shared.create=true,autoscaling.maxReplicas=1
refused 'catalogHost and s3Host are both needed' --set ingress.enabled=true,ingress.catalogHost=isk.example.com
refused 'must differ' --set ingress.enabled=true,ingress.catalogHost=isk.example.com,ingress.s3Host=isk.example.com
# Names that the chart does not have, and values of another type.
refused "'replica'" --set replica=2
refused "'storageclass'" --set shared.storageclass=nfs
refused '/replicas' --set replicas=0
refused '/podDisruptionBudget' --set podDisruptionBudget.minAvailable=1
refused '/externalHostname' --set externalHostname=https://isk.example.com
refused '/service/sessionAffinity' --set service.sessionAffinity=Cookie

if command -v kubectl >/dev/null 2>&1; then
    for folder in deploy/kustomize deploy/kustomize/replicas; do
        kubectl kustomize --enable-helm --helm-command "$helm" "$folder" >"$rendered/kustomize-${folder##*/}.yaml"
    done
    has kustomize-kustomize 'secretName: isk-config' 'namespace: isk' 'kind: NetworkPolicy' '!kind: Secret' '!PodDisruptionBudget'
    has kustomize-replicas 'replicas: 3' PodDisruptionBudget ReadWriteMany ISK_SHARED_DIR 'namespace: isk'
else
    echo "lint: kubectl is not here; deploy/kustomize was not looked at"
fi
"$validate/bin/kubernetes-validate" --strict --quiet "$rendered"/*.yaml
"$validate/bin/python" deploy/lint_monitoring.py "$definitions" "$rendered/monitored"

alerts=deploy/prometheus/alerts.yaml
"$promtool" check rules $alerts
sed -n '/^spec:/,$p' "$rendered/rule" | sed '1d; s/^  //' | "$promtool" check rules /dev/stdin
"$promtool" test rules deploy/prometheus/alerts_test.yaml
for alert in $(sed -n 's/^ *- alert: //p' $alerts); do
    grep -q "alertname=\"$alert\"" deploy/prometheus/alerts_test.yaml || { echo "lint: no test lets $alert fire" >&2; exit 1; }
done
if command -v systemd-analyze >/dev/null 2>&1; then
    # It also wants the program to be there; that one complaint is about this machine.
    complaints=$(systemd-analyze verify deploy/systemd/isk.service 2>&1 | grep -v 'Command /usr/local/bin/isk is not executable' || true)
    [ -z "$complaints" ] || { echo "$complaints" >&2; exit 1; }
else
    echo "lint: systemd-analyze is not here; the unit was not looked at"
fi
echo "lint: deploy/ is well-formed. Nothing was built or run: that takes a container engine."
