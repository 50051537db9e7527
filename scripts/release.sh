#!/usr/bin/env bash
# Builds what a release is made of, and refuses to if a check fails:
#
#   scripts/release.sh [DIR]      default: ./dist
#
#   DIR/lbd-linux-amd64, -arm64   static binaries
#   DIR/lbd.cdx.json              what is in them (CycloneDX)
#   DIR/THIRD_PARTY.md            licences
#   DIR/SHA256SUMS
#
# VERSION=v1.2.3 names the release; the commit otherwise. It needs Go and git only.
#
# Each binary is built twice, the second time from a copy of the commit in another
# directory and with an empty build cache, and the two must not differ in a bit.
# govulncheck wants its modules and the database at vuln.go.dev: where one cannot be
# reached the release says so and goes on; for every other failure it ends.
set -euo pipefail
case ${1-} in
-h | --help)
	sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0"
	exit 0
	;;
esac
cd "$(dirname "$0")/.."

GO=${GO:-go}
OUT=$(realpath -m "${1:-dist}")
VERSION=${VERSION:-$(git describe --tags --always --dirty)}
PLATFORMS=${PLATFORMS:-linux/amd64 linux/arm64}
GOVULNCHECK=golang.org/x/vuln/cmd/govulncheck@v1.1.4 # later ones want a module that the module proxy refuses

say() { echo "release: $*"; }
fail() { say "$*" >&2; exit 1; }

tmp=$(mktemp -d)
trap 'chmod -R u+w "$tmp"; rm -rf "$tmp"' EXIT

# build GOOS/GOARCH FILE: the build of the Makefile. -buildvcs=false, since a copy
# without .git would differ; the version says which commit it is.
build() {
	GOOS=${1%/*} GOARCH=${1#*/} CGO_ENABLED=0 $GO build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$VERSION" -o "$2" ./cmd/lbd
}

# unreachable says that a log tells of a network, and not of a fault.
unreachable() {
	grep -qiE 'no such host|could not resolve|dial tcp|i/o timeout|connection refused|403 Forbidden|404 Not Found|proxyconnect' "$1"
}

unchecked() {
	say "WARNING: $1 could not be reached; NOT CHECKED for known vulnerabilities:"
	tail -n 2 "$tmp/vuln" | sed 's/^/  /'
}

# vulnerabilities runs govulncheck as a program of its own, since go run tells every
# exit code as 1. 3 is that it has found something; any other is that it could not look.
vulnerabilities() {
	local code=0
	if ! GOBIN=$tmp $GO install "$GOVULNCHECK" >"$tmp/vuln" 2>&1; then
		unreachable "$tmp/vuln" || { cat "$tmp/vuln" >&2; fail "govulncheck could not be built"; }
		unchecked govulncheck
		return
	fi
	"$tmp/govulncheck" ./cmd/lbd >"$tmp/vuln" 2>&1 || code=$?
	case $code in
	0) say "govulncheck: nothing known" ;;
	3)
		cat "$tmp/vuln" >&2
		fail "govulncheck found something"
		;;
	*)
		unreachable "$tmp/vuln" || { cat "$tmp/vuln" >&2; fail "govulncheck could not look (exit $code)"; }
		unchecked "its database"
		;;
	esac
}

[ -n "$(git status --porcelain)" ] && say "WARNING: the working tree differs from the commit; only the commit is rebuilt for comparison"

$GO mod verify
$GO mod tidy -diff || fail "go.mod is not tidy"
vulnerabilities

$GO run ./scripts/bom licences >"$tmp/THIRD_PARTY.md"
cmp -s "$tmp/THIRD_PARTY.md" THIRD_PARTY.md || fail "THIRD_PARTY.md is stale; want go run ./scripts/bom licences > THIRD_PARTY.md"

mkdir -p "$OUT" "$tmp/elsewhere/a-longer-path"
git archive HEAD | tar -x -C "$tmp/elsewhere/a-longer-path"
for p in $PLATFORMS; do
	file=$OUT/lbd-${p/\//-}
	build "$p" "$file"
	(cd "$tmp/elsewhere/a-longer-path" && GOCACHE=$tmp/cache build "$p" "$tmp/again")
	if cmp -s "$file" "$tmp/again"; then
		say "$p: reproducible"
	elif [ -n "$(git status --porcelain)" ]; then
		say "$p: differs from the commit, as the working tree does"
	else
		fail "$p: two builds of one commit differ"
	fi
done

first=${PLATFORMS%% *}
$GO run ./scripts/bom cyclonedx "$OUT/lbd-${first/\//-}" >"$OUT/lbd.cdx.json"
cp THIRD_PARTY.md "$OUT/"
(cd "$OUT" && sha256sum lbd-* lbd.cdx.json THIRD_PARTY.md >SHA256SUMS)
say "$VERSION is in $OUT"
