#!/bin/sh
# Installs, upgrades and unpacks what make snapshot has put into dist/, from a file server of our
# own. Needs Debian or Ubuntu, python3 and curl, and changes nothing outside a temporary folder.
set -eu
cd "$(dirname "$0")/.."

fail() { echo "release-test: $*" >&2; exit 1; }
step() { echo "release-test: $*"; }
[ -f dist/checksums.txt ] || fail "no dist/checksums.txt: make snapshot"

tmp=$(mktemp -d)
server=''
trap 'rm -rf "$tmp"; [ -z "$server" ] || kill "$server"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
arch=$(dpkg --print-architecture)
[ "$arch" != ppc64el ] || arch=ppc64le
set -- dist/git-gitops_*_linux_"$arch".tar.gz
version=${1#dist/git-gitops_}
version=${version%_linux_*}

step "every archive and package is in the checksums, and is what they say"
(cd dist && sed 's|  install.sh|  ../scripts/install.sh|' checksums.txt | sha256sum --quiet -c)
for want in $(for os in linux darwin windows; do for a in amd64 arm64; do echo "${os}_$a"; done; done) linux_ppc64le linux_s390x; do
	end=tar.gz
	case $want in windows*) end=zip ;; esac
	grep -q "  git-gitops_${version}_$want.$end\$" dist/checksums.txt || fail "no archive for $want"
	case $want in
	linux*) for end in deb rpm apk; do grep -q "  git-gitops_${version}_$want.$end\$" dist/checksums.txt || fail "no $end for $want"; done ;;
	esac
done

step "the archive: what is in it"
tar -tzf "$1" | sort >"$tmp/list"
sort >"$tmp/want" <<'END'
CHANGELOG.md
README.md
completions/git-gitops.bash
completions/git-gitops.fish
completions/git-gitops.zsh
git-gitops
licences.txt
man/git-gitops.1
man/gitops.1
END
diff "$tmp/want" "$tmp/list" || fail "the archive holds something else"
python3 -c 'import sys, zipfile; assert "git-gitops.exe" in zipfile.ZipFile(sys.argv[1]).namelist()' "dist/git-gitops_${version}_windows_amd64.zip"

step "the package: where its files go"
dpkg-deb -I "dist/git-gitops_${version}_linux_$arch.deb" | grep -q 'Depends: git$' || fail "the package does not depend on git"
dpkg-deb -x "dist/git-gitops_${version}_linux_$arch.deb" "$tmp/root"
(cd "$tmp/root" && find . -type f | sort) >"$tmp/list"
sort >"$tmp/want" <<'END'
./usr/bin/git-gitops
./usr/share/bash-completion/completions/git-gitops
./usr/share/doc/git-gitops/licences.txt
./usr/share/fish/vendor_completions.d/git-gitops.fish
./usr/share/git-gitops/packaged-as
./usr/share/man/man1/git-gitops.1
./usr/share/man/man1/gitops.1
./usr/share/zsh/vendor-completions/_git-gitops
END
diff "$tmp/want" "$tmp/list" || fail "the package holds something else"
PATH=$tmp/root/usr/bin:$PATH
git gitops --version | grep -qx "git-gitops version $version" || fail "the package's program is of another version"
! git gitops upgrade --version 9.9.9 2>"$tmp/said" || fail "a packaged program was upgraded"
grep -q 'installed by apt' "$tmp/said" || fail "it said: $(cat "$tmp/said")"

step "the package, installed and removed by dpkg in a root of its own"
mkdir -p "$tmp/dpkg/var/lib/dpkg/updates" "$tmp/dpkg/var/lib/dpkg/info" "$tmp/dpkg/var/lib/dpkg/triggers" && : >"$tmp/dpkg/var/lib/dpkg/status"
dpkg --root="$tmp/dpkg" --log=/dev/null --force-not-root --force-depends -i "dist/git-gitops_${version}_linux_$arch.deb" >"$tmp/said" 2>&1 || fail "$(cat "$tmp/said")"
[ -x "$tmp/dpkg/usr/bin/git-gitops" ] || fail "dpkg installed no program"
dpkg --root="$tmp/dpkg" --log=/dev/null --force-not-root -P git-gitops >"$tmp/said" 2>&1 || fail "$(cat "$tmp/said")"
[ ! -e "$tmp/dpkg/usr/bin/git-gitops" ] || fail "dpkg left the program"

step "install.sh, from a file server"
mkdir -p "$tmp/www/latest" "$tmp/www/download"
ln -s "$PWD/dist" "$tmp/www/latest/download"
ln -s "$PWD/dist" "$tmp/www/download/v$version"
python3 - "$tmp/www" "$tmp/port" <<'END' &
import functools, http.server, os, sys
class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=sys.argv[1]))
with open(sys.argv[2] + ".new", "w") as f:
    print(server.server_port, file=f)
os.rename(sys.argv[2] + ".new", sys.argv[2])
server.serve_forever()
END
server=$!
while [ ! -f "$tmp/port" ]; do kill -0 "$server" && sleep 0.1; done
GITOPS_DOWNLOAD_BASE=http://127.0.0.1:$(cat "$tmp/port")
export GITOPS_DOWNLOAD_BASE
sh scripts/install.sh --prefix "$tmp/prefix"
PATH=$tmp/prefix/bin:$PATH
git gitops --version | grep -qx "git-gitops version $version" || fail "install.sh installed another version"
[ "$(git gitops --version | wc -l)" -eq 2 ] || fail "--version says more than two lines"
git gitops completion bash | cmp -s - "$tmp/prefix/share/bash-completion/completions/git-gitops" || fail "the completions are of another version"
if command -v man >/dev/null; then
	MANPATH=$tmp/prefix/share/man git gitops --help | grep -q 'pipelines that share a branch' || fail "git gitops --help shows no manual page"
fi

step "upgrade"
make -s build BIN="$tmp/prefix/bin/git-gitops" VERSION=0.0.0
! git gitops upgrade --check || fail "upgrade --check found nothing"
git gitops upgrade
git gitops upgrade --check
cmp -s "$tmp/prefix/bin/git-gitops" "$tmp/root/usr/bin/git-gitops" || fail "the upgraded program is not the packaged one"

step "make build makes the same program, byte by byte"
make -s build BIN="$tmp/built" VERSION="$version"
cmp "$tmp/built" "$tmp/root/usr/bin/git-gitops"
step ok
