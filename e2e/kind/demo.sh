#!/usr/bin/env bash
# demo.sh [--keep]: the story of make demo on a kind cluster of its own, with a real kubelet and Istio's own images. make kind-demo runs it.
# It makes a cluster, tells the story, and removes the cluster and the images that it has built, also when it fails or is interrupted; --keep
# leaves them there. It knows no other cluster: its kubeconfig is a file of its own. What stays are images that docker has pulled, and docker's
# network kind.
#
# Variables:
#   CLUSTER      the cluster's name (isthmus-demo)
#   KIND_IMAGE   image of its node (of kind v0.33.0)
#   KIND_CONFIG  a configuration for kind create cluster (none)
#   GATEWAY_API  the Gateway API's CRDs, as file or URL (standard channel, v1.6.3)
#   ISTIO_HUB, ISTIO_TAG  where Istio's images are, and which (what istioctl says)
#   ISTIO_FILE   an IstioOperator on top of istio.yaml (none)
#   IMAGES       pull (as anybody does), or local: Istio's four images are in docker already, as ISTIO_HUB/pilot:ISTIO_TAG and so on, and the
#                cluster pulls nothing
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd -P)
cluster=${CLUSTER:-isthmus-demo}
node=${KIND_IMAGE:-kindest/node:v1.36.4@sha256:099e049362a1526b2db71494e1947aae99bd16290d7c895f2b7ea312e3cbfaed}
crds=${GATEWAY_API:-https://github.com/kubernetes-sigs/gateway-api/releases/download/v1.6.3/standard-install.yaml}
images=${IMAGES:-pull}
built=("isthmus:$cluster" story/orders story/caller story/plain-gateway story/native-gateway)
story=$root/e2e/story/manifests
keep=
case ${1:-} in
'') ;;
--keep) keep=yes ;;
*) echo "usage: $0 [--keep]" >&2; exit 2 ;;
esac

start=$(date +%s)
say() { printf '[%3d s] %s\n' "$(($(date +%s) - start))" "$*"; }
tell() { printf '   %s\n' "$*"; }
die() { echo "kind-demo: $*" >&2; exit 1; }

# What is missing, all at once.
lack=
need() {
	command -v "$1" >/dev/null 2>&1 && return
	echo "kind-demo: there is no $1 in PATH: $2" >&2
	lack=yes
}
need go 'install Go 1.26 or newer, https://go.dev/doc/install'
need docker 'install Docker Engine or Docker Desktop, https://docs.docker.com/get-docker'
need kind 'go install sigs.k8s.io/kind@v0.33.0, and put what go env GOPATH says, with /bin, into PATH'
need kubectl 'install it, https://kubernetes.io/docs/tasks/tools'
need istioctl 'install that of Istio 1.31 or newer, https://istio.io/latest/docs/setup/additional-setup/download-istio-release'
[ -z "$lack" ] || exit 1
sh "$root/.ci/need" go
arch=$(docker version --format '{{.Server.Arch}}' 2>/dev/null) || die "docker does not answer: start it, or see what docker version says"
case $images in
pull) ;;
local) [ -n "${ISTIO_HUB:-}" ] && [ -n "${ISTIO_TAG:-}" ] || die "IMAGES=local needs ISTIO_HUB and ISTIO_TAG, which name the images" ;;
*) die "IMAGES is $images, and may be pull or local" ;;
esac

# free ends it where the cluster's name is taken: what this script makes it deletes by that name.
free() {
	local all
	all=$(kind get clusters 2>/dev/null) || die "kind does not tell which clusters there are: see what kind get clusters says"
	! grep -qxF -- "$cluster" <<<"$all" ||
		die "there is a cluster $cluster already: kind delete cluster --name $cluster removes it, or choose another name by CLUSTER"
}
free

mkdir -p "$root/bin"
work=$(mktemp -d "$root/bin/kind-demo.XXXXXX")
job=
made=
cleanup() {
	status=$?
	trap '' INT TERM HUP
	if [ -n "$job" ]; then # interrupted
		kill -- "-$job" 2>/dev/null || :
		wait "$job" 2>/dev/null || :
	fi
	[ "$status" != 130 ] || keep=
	if [ "$status" != 0 ] && [ "$status" != 130 ] && [ -s "$KUBECONFIG" ]; then
		echo "kind-demo: it went wrong here: $scene" >&2
		kubectl get pods -A >&2 || :
		"$work/isthmus" status -n edge >&2 || :
		kubectl logs -n isthmus-system deployment/isthmus-controller --tail=20 >&2 || :
	fi
	if [ -n "$keep" ] && [ -n "$made" ]; then
		say "The cluster stays: export KUBECONFIG=$work/kubeconfig. To remove it:"
		tell "kind delete cluster --name $cluster; docker rmi ${built[*]}; rm -r $work"
		exit "$status"
	fi
	if [ -n "$made" ]; then
		say "Removing cluster $cluster."
		kind delete cluster --name "$cluster" --kubeconfig "$work/kubeconfig" >"$work/log" 2>&1 || {
			cat "$work/log" >&2
			echo "kind-demo: cluster $cluster is still there: kind delete cluster --name $cluster removes it" >&2
			[ "$status" != 0 ] || status=1
		}
	fi
	docker rmi "${built[@]}" >/dev/null 2>&1 || :
	rm -rf "$work"
	[ "$status" != 0 ] || say "Done. Nothing of it is left."
	exit "$status"
}
export KUBECONFIG=$work/kubeconfig
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

# run WHAT COMMAND...: says what it does, and every ten seconds that it is still at it; shows what the command said when it fails.
run() {
	say "$1"
	scene=$1
	shift
	set -m # a process group of its own, which can be ended with all that is in it
	"$@" >"$work/log" 2>&1 </dev/null &
	job=$!
	set +m
	tick=0
	while kill -0 "$job" 2>/dev/null; do
		sleep 1
		tick=$((tick + 1))
		[ $((tick % 10)) != 0 ] || say "  still at it. $(tail -n 1 "$work/log" | tr -d '\r' | cut -c1-110)"
	done
	code=0
	wait "$job" || code=$?
	job=
	[ "$code" = 0 ] || { tail -n 30 "$work/log" >&2; die "$scene failed: $1 ended with $code"; }
}

apply() { kubectl apply -f "$1" >/dev/null; }
available() { kubectl wait -n "$1" --for=condition=Available "deployment/$2" --timeout=300s; }

build() {
	cd "$root"
	mkdir -p "$work/images/bin" "$work/host"
	CGO_ENABLED=0 go build -ldflags='-s -w' -o "$work/" ./cmd/isthmus
	CGO_ENABLED=0 GOOS=linux GOARCH="$arch" go build -ldflags='-s -w' -o "$work/images/bin/isthmus" ./cmd/isthmus
	cd e2e
	CGO_ENABLED=0 go build -ldflags='-s -w' -o "$work/kind" ./kind
	CGO_ENABLED=0 GOOS=linux GOARCH="$arch" go build -ldflags='-s -w' -o "$work/images/story" ./kind
}

package() {
	docker build -t "isthmus:$cluster" -f "$root/manifests/Dockerfile" "$work/images" || return
	for i in orders caller plain-gateway native-gateway; do
		docker build -t "story/$i" --target "$i" -f "$root/e2e/kind/Dockerfile" "$work/images" || return
	done
}

load() {
	local all=("${built[@]}")
	if [ "$images" = local ]; then
		for i in pilot install-cni ztunnel proxyv2; do all+=("$ISTIO_HUB/$i:$ISTIO_TAG"); done
	fi
	kind load docker-image --name "$cluster" "${all[@]}"
}

istio() {
	istioctl install -y -f "$root/e2e/kind/istio.yaml" ${ISTIO_FILE:+-f "$ISTIO_FILE"} ${ISTIO_HUB:+--set hub="$ISTIO_HUB"} \
		${ISTIO_TAG:+--set tag="$ISTIO_TAG" --set values.global.variant=}
}

install() {
	cat >"$work/kustomization.yaml" <<-END || return
		resources: [../../manifests]
		images: [{name: isthmus.invalid/isthmus, newName: isthmus, newTag: $cluster}]
	END
	kubectl apply -k "$work" && available isthmus-system isthmus-controller
}

cast() {
	for i in shop callers edge; do apply "$story/$i.yaml" || return; done
	kubectl create namespace customers || return
	"$work/kind" certificate gateway.edge.svc native-gateway.edge.svc >"$work/certificate" && apply "$work/certificate" &&
		apply "$root/e2e/kind/customer.yaml" &&
		available shop orders && available edge gateway && available edge native-gateway &&
		kubectl wait -n edge --for=condition=Ready pod/impostor --timeout=120s &&
		kubectl wait -n customers --for=condition=Ready pod/customer --timeout=120s
}

# call NAMESPACE/POD SCHEME HOST: lets that pod, a caller, ask for path /orders/$n, and has the answer in $status; 0 is none.
n=0
call() {
	n=$((n + 1))
	since=$(date -u +%Y-%m-%dT%H:%M:%SZ)
	answer=$(kubectl create --raw "/api/v1/namespaces/${1%/*}/pods/${1#*/}:8080/proxy/call?url=$2%3A%2F%2F$3%2Forders%2F$n" -f /dev/null) || answer=
	status=$(printf '%s' "$answer" | sed -n 's/^{"status":\([0-9]*\).*/\1/p')
}

# expect STATUS NAMESPACE/POD SCHEME HOST: calls until that is the answer, for a minute: istiod and the proxies take a moment.
expect() {
	scene="a request of $2 to $4, which is to get $1"
	tries=0
	while call "$2" "$3" "$4"; [ "${status:-none}" != "$1" ]; do
		tries=$((tries + 1))
		[ "$tries" -lt 60 ] || die "$2 > $4: got ${status:-no answer}, not $1: $answer"
		sleep 1
	done
	say "$2 > $4: $status"
	hops
}

# hops tells who saw that request: the ztunnels when a connection was opened or refused, the waypoint always.
hops() {
	sleep 1 # they write a moment later
	kubectl logs -n istio-system -l app=ztunnel --tail=-1 --since-time="$since" 2>/dev/null | awk '
		function get(name) {
			if (!match($0, "[ \t]" name "=\"[^\"]*\"")) return ""
			return substr($0, RSTART + length(name) + 3, RLENGTH - length(name) - 4)
		}
		function who(side, id) {
			id = get(side ".identity")
			sub("spiffe://[^/]*/", "", id)
			return get(side ".namespace") "/" get(side ".workload") (id == "" ? "" : " as " id)
		}
		/connection (opened|failed|complete)/ && (/ src.namespace="(edge|shop)"/ || / dst.namespace="(edge|shop)"/) && !/dst.workload="istiod/ {
			line = "ztunnel, " get("direction") ": " who("src") " > " who("dst") (/ dst.hbone_addr=/ ? ", HBONE" : ", plaintext") (/ error=/ ? ", " get("error") : "")
			if (!seen[line]++) print "     " line
		}' || :
	kubectl logs -n shop -l gateway.networking.k8s.io/gateway-name=waypoint --tail=-1 --since-time="$since" 2>/dev/null |
		grep -F "\"/orders/$n\"" | awk '
		function get(name) {
			if (!match($0, "\"" name "\": *(\"[^\"]*\"|[0-9]+|null)")) return ""
			s = substr($0, RSTART, RLENGTH)
			sub("^\"" name "\": *\"?", "", s); sub("\"$", "", s)
			return s == "null" ? "" : s
		}
		{ print "     waypoint: " get("peer") " asked for " get("path") ": " get("status") ", " get("details") (get("policy") == "" ? "" : ", " get("policy")) }' || :
}

# ready NAME: waits until that AmbientEdge is.
ready() { kubectl wait -n edge --for=condition=Ready "ambientedge/$1" --timeout=180s; }

say "kind $(kind version | cut -d' ' -f2), istioctl $(istioctl version --remote=false --short 2>/dev/null | sed -n '$s/.* //p'), Docker $(docker version --format '{{.Server.Version}}'), $arch."
run "Building isthmus and the story's programs." build
run "Making images of them." package
free # the build took a while
made=yes
run "Creating cluster $cluster of $node." kind create cluster --name "$cluster" --image "$node" --wait 180s ${KIND_CONFIG:+--config "$KIND_CONFIG"}
run "Loading the images into it." load
run "Applying the Gateway API's CRDs." kubectl apply --server-side -f "$crds"
run "Installing Istio, profile ambient." istio
run "Installing Isthmus: kubectl apply -k manifests." install
run "Setting the scene: a shop in the mesh, two gateways outside of it, an impostor, a customer." cast

echo; say "1. The gateway is outside the mesh, the shop is in it."
expect 200 customers/customer https gateway.edge.svc
tell "Anybody on the wire can read it, and the shop does not know who calls. Policy orders-callers is enforced by nobody: there is no waypoint."

echo; say "2. The shop turns to STRICT."
apply "$story/strict.yaml"
tell "ztunnel lets a plaintext connection go on that was open before. The gateway has one, and is started anew."
restart() { kubectl rollout restart -n edge deployment gateway && kubectl rollout status -n edge deployment gateway --timeout=120s; }
run "Starting the gateway anew." restart
expect 502 customers/customer https gateway.edge.svc
"$work/kind" read >"$work/before"

echo; say "3. AmbientEdge edge/public is applied. isthmus plan says before:"
"$work/isthmus" plan -f "$story/ambientedge.yaml" | sed 's/^/   /'
apply "$story/ambientedge.yaml"
run "It begins." ready public
say "Ready:"
"$work/isthmus" status -n edge | sed 's/^/   /'
expect 200 customers/customer https gateway.edge.svc

echo; say "4. A policy is added: DENY for the gateway's identity."
apply "$story/deny.yaml"
expect 403 customers/customer https gateway.edge.svc
kubectl delete -f "$story/deny.yaml" >/dev/null
expect 200 customers/customer https gateway.edge.svc

echo; say "5. An impostor, a pod in the mesh that is not the gateway, calls orders."
expect 403 edge/impostor http orders.shop.svc.cluster.local

echo; say "6. Beside it, a gateway that embeds hbone: AmbientEdge edge/native, capture Native."
apply "$story/ambientedge-native.yaml"
run "It begins." ready native
expect 200 customers/customer https native-gateway.edge.svc

echo; say "7. AmbientEdge edge/native is deleted, then edge/public."
run "The native one goes." kubectl delete -f "$story/ambientedge-native.yaml" --timeout=120s
kubectl delete -f "$story/ambientedge.yaml" --wait=false >/dev/null
scene="undo, which is to halt: policies depend on the waypoint"
for ((i = 0; ; i++)); do
	halt=$(kubectl get -n edge ambientedge/public -o jsonpath='{range .status.findings[?(@.code=="ISM307")]}{.message}{"\n"}{end}')
	[ -z "$halt" ] || break
	[ "$i" -lt 60 ] || die "undo has not halted"
	sleep 1
done
while IFS= read -r line; do tell "It halts${line#undo waits}."; done <<<"$halt"
kubectl annotate --overwrite -n edge ambientedge/public isthmus.dev/undo=confirmed >/dev/null
run "Confirmed, by annotation isthmus.dev/undo." kubectl wait -n edge --for=delete ambientedge/public --timeout=120s
run "Comparing all objects with those before the AmbientEdges." "$work/kind" same "$work/before"
say "Undone: $(cat "$work/log")."
