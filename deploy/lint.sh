#!/usr/bin/env bash
# Renders and checks what lies in deploy/ with the tools of those who read it: helm, Kubernetes' schemas, promtool,
# systemd-analyze. Tools that are not installed are built or fetched once, into $ISK_TEST_CACHE; that needs Go and Python.
set -euo pipefail
cd "$(dirname "$0")/.."
helm_version=3.22.0
promtool_version=0.313.3
kubernetes_validate_version=1.37.0
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

rendered=$(mktemp -d)
trap 'rm -rf "$rendered"' EXIT
"$helm" lint --strict deploy/helm/isk
"$helm" template isk deploy/helm/isk >"$rendered/defaults.yaml"
"$helm" template isk deploy/helm/isk -f deploy/kustomize/values.yaml >"$rendered/kustomize.yaml"
"$helm" template isk deploy/helm/isk --set persistence.enabled=false,externalHostname=isk.example.com \
    --set externalS3Url=https://s3.example.com --set-json 'networkPolicy.from=[{"podSelector":{}}]' \
    --set tls.secretName=isk-tls,tls.clientCertificates=true \
    --set-json 'env=[{"name":"ISK_LOG","value":"debug"}]' >"$rendered/others.yaml"
"$validate/bin/kubernetes-validate" --strict --quiet "$rendered"/*.yaml
"$promtool" check rules deploy/prometheus/alerts.yaml
if command -v systemd-analyze >/dev/null 2>&1; then
    # It also wants the program to be there; that one complaint is about this machine.
    complaints=$(systemd-analyze verify deploy/systemd/isk.service 2>&1 | grep -v 'Command /usr/local/bin/isk is not executable' || true)
    [ -z "$complaints" ] || { echo "$complaints" >&2; exit 1; }
else
    echo "lint: systemd-analyze is not here; the unit was not looked at"
fi
echo "lint: deploy/ is well-formed. Nothing was built or run: that takes a container engine."
