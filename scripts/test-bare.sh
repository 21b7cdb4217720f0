#!/bin/sh
# Runs make test, or another command, on the last commit in a bare Debian that has Go, git and make
# and nothing else, as the machine of somebody new has. It needs root, Go, mmdebstrap and unshare:
#	sudo env "PATH=$PATH" sh scripts/test-bare.sh [--suite SUITE] [--valkey] [COMMAND…]
# --suite SUITE  bookworm (default), trixie or sid
# --valkey       redis-server, redis-cli and redis-sentinel are Valkey's; needs trixie or newer
# DEBIAN_MIRROR is another mirror than deb.debian.org. The system is new each time and deleted
# afterwards.
set -eu

suite=bookworm packages=git,make,ca-certificates valkey=
while [ $# -gt 0 ]; do
	case $1 in
	--suite) suite=${2:?--suite needs a value} && shift ;;
	--valkey) valkey=yes packages=$packages,valkey-server,valkey-sentinel ;;
	-*) echo "unknown option $1" >&2 && exit 2 ;;
	*) break ;;
	esac
	shift
done
[ $# -gt 0 ] || set -- make test
[ "$(id -u)" -eq 0 ] || { echo "needs root: sudo env \"PATH=\$PATH\" sh $0" >&2 && exit 1; }
for tool in mmdebstrap unshare go git; do
	command -v "$tool" >/dev/null || { echo "needs $tool" >&2 && exit 1; }
done

src=$(cd "$(dirname "$0")/.." && pwd)
(cd "$src" && go mod download)
root=$(mktemp -d "${TMPDIR:-/tmp}/test-bare.XXXXXX")
trap 'rm -rf --one-file-system "$root"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
mmdebstrap --quiet --mode=root --variant=minbase --include="$packages" "$suite" "$root" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}"
if [ -n "$valkey" ]; then
	for program in server cli sentinel; do ln -s "/usr/bin/valkey-$program" "$root/usr/local/bin/redis-$program"; done
fi
cp /etc/resolv.conf "$root/etc/"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/" # with a company's own, for the module proxy
mkdir -p "$root/usr/local/go" "$root/gomod" "$root/src"
git -c safe.directory='*' clone -q "$src" "$root/src/git-gitops"

# In namespaces of its own: mounts and processes end with the command.
# shellcheck disable=SC2016 # the inner shell's variables
unshare --mount --pid --fork sh -euc '
	root=$1 && shift
	mount --bind "$(go env GOROOT)" "$root/usr/local/go"
	mount --bind "$(go env GOMODCACHE)" "$root/gomod"
	mount -t proc proc "$root/proc"
	mount --rbind /sys "$root/sys"
	mount --rbind /dev "$root/dev"
	exec env -i TERM=dumb LANG=C.UTF-8 HOME=/root \
		PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		GOTOOLCHAIN=local GOMODCACHE=/gomod GOFLAGS="$(go env GOFLAGS)" GOPROXY="$(go env GOPROXY)" \
		GOSUMDB="$(go env GOSUMDB)" GONOSUMDB="$(go env GONOSUMDB)" \
		chroot "$root" sh -c "cd /src/git-gitops && exec \"\$@\"" sh "$@"
' sh "$root" "$@"
