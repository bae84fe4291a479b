#!/usr/bin/env bash
# Builds the reference and runs the black-box tests. See README.md.
#
#   run.sh [--slow] [go test arguments]
#
# MILEPOST_BIN=reference puts etcd on both sides.
set -euo pipefail
cd "$(dirname "$0")"

: "${COMPAT_CACHE:=${TMPDIR:-/tmp}/milepost-compat-cache}"
: "${MILEPOST_BIN:=$(cd ../.. && pwd)/target/ci/milepost}"
mkdir -p "$COMPAT_CACHE"
COMPAT_CACHE=$(cd "$COMPAT_CACHE" && pwd)
export COMPAT_CACHE MILEPOST_BIN

if [ "${1:-}" = --slow ]; then
    shift
    : "${COMPAT_OPS:=60000}" "${COMPAT_KUBE_ROUNDS:=100}" "${KILL_ROUNDS:=200}" "${COMPAT_WATCHERS:=100000}"
    : "${CLUSTER_SLOW:=1}"
    export COMPAT_OPS COMPAT_KUBE_ROUNDS KILL_ROUNDS COMPAT_WATCHERS CLUSTER_SLOW
    limit=90m
else
    # The same requests each time: a change is judged by what it changed. The slow suite draws its own.
    : "${COMPAT_SEED:=20261121}"
    export COMPAT_SEED
    limit=10m
fi

started=$(date +%s)
step() {
    echo "== $1 ($(($(date +%s) - started)) s)"
}

step "vet"
go vet -p 1 ./...
step "reference"
CGO_ENABLED=0 go build -p 1 -trimpath -buildvcs=false -o "$COMPAT_CACHE/refetcd" ./refetcd
CGO_ENABLED=0 go build -p 1 -trimpath -buildvcs=false -o "$COMPAT_CACHE/refctl" ./refctl
if [ "$MILEPOST_BIN" = reference ]; then
    MILEPOST_BIN=$COMPAT_CACHE/refetcd
fi
step "tests of $MILEPOST_BIN"
# One package at a time: they measure, and the machine may be small. Never from
# the cache: the server under test is not among what Go's test cache looks at.
# -v, because the tables of what was asked are part of the result.
mapfile -t packages < <(go list ./... | grep -v '/cluster$')
failed=0
go test -v -p 1 -parallel 8 -count 1 -timeout "$limit" "$@" "${packages[@]}" | grep -v '^=== ' || failed=1
# Also after a failure: one run is to tell of everything.
step "clusters"
go test -v -parallel 8 -count 1 -timeout "$limit" "$@" ./cluster | grep -v '^=== ' || failed=1
step "done"
exit "$failed"
