#!/bin/sh
# Installs git-gitops, its man page and its completions from a release:
#	curl -fsSL https://github.com/git-gitops/git-gitops/releases/latest/download/install.sh | sh
#	… | sh -s -- --version 1.2.3 --prefix /opt/git-gitops
# Without --prefix it goes to /usr/local for root, and else to ~/.local. GITOPS_DOWNLOAD_BASE is a
# mirror of https://github.com/git-gitops/git-gitops/releases: plain files, latest/download/NAME and
# download/vVERSION/NAME.
{ # A shell reads up to the closing brace before it runs anything: a script that was cut runs not at all.
set -eu

project=https://github.com/git-gitops/git-gitops
base=${GITOPS_DOWNLOAD_BASE:-$project/releases}

say() { printf 'install.sh: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

usage() {
	cat <<'END'
Installs git-gitops, its man page and its completions.

install.sh [--version VERSION] [--prefix DIR] [--skip-signature]

  --version VERSION  this release instead of the newest
  --prefix DIR       into DIR/bin and DIR/share (default: /usr/local for root, else ~/.local)
  --skip-signature   verify the checksum alone, also when cosign is on PATH

GITOPS_DOWNLOAD_BASE: the URL of a mirror of the releases.
END
}

main() {
	version='' prefix='' skip_signature=''
	while [ $# -gt 0 ]; do
		case $1 in
		--version=*) version=${1#*=} ;;
		--prefix=*) prefix=${1#*=} ;;
		--version | --prefix)
			[ $# -gt 1 ] || die "$1 needs a value"
			if [ "$1" = --version ]; then version=$2; else prefix=$2; fi
			shift
			;;
		--skip-signature) skip_signature=yes ;;
		-h | --help) usage && return ;;
		*) usage >&2 && die "unknown word: $1" ;;
		esac
		shift
	done
	version=${version#v}
	case $version in *[!0-9A-Za-z.+-]*) die "no version: $version" ;; esac
	platform
	if [ -z "$prefix" ]; then
		if [ "$(id -u)" -eq 0 ]; then prefix=/usr/local; else prefix=${HOME:?}/.local; fi
	fi
	[ ! -e "$prefix/share/git-gitops/packaged-as" ] ||
		die "a package manager has installed git-gitops in $prefix: upgrade it there, or name another --prefix"
	have curl || have wget || die "needs curl or wget"
	have tar || die "needs tar"

	staged=''
	tmp=$(mktemp -d)
	trap 'rm -rf "$tmp" ${staged:+"$staged"}' EXIT
	trap 'exit 129' HUP
	trap 'exit 130' INT
	trap 'exit 143' TERM

	from=latest/download
	[ -z "$version" ] || from=download/v$version
	get "$from/checksums.txt" || die "cannot get the checksums of ${version:-the newest release}"
	find_archive
	verify_signature
	get "download/v$version/$archive" || die "cannot get $archive"
	actual=$(sha256 "$tmp/$archive")
	[ "$actual" = "$sum" ] || die "$archive is not what was released: its SHA-256 is $actual, and checksums.txt says $sum"
	tar -xzf "$tmp/$archive" -C "$tmp" git-gitops man/git-gitops.1 man/gitops.1 \
		completions/git-gitops.bash completions/git-gitops.zsh completions/git-gitops.fish || die "cannot unpack $archive"

	place git-gitops bin/git-gitops 755 || die "cannot write to $prefix/bin; another folder: --prefix DIR"
	if ! { place man/git-gitops.1 share/man/man1/git-gitops.1 644 &&
		place man/gitops.1 share/man/man1/gitops.1 644 &&
		place completions/git-gitops.bash share/bash-completion/completions/git-gitops 644 &&
		place completions/git-gitops.zsh share/zsh/site-functions/_git-gitops 644 &&
		place completions/git-gitops.fish share/fish/vendor_completions.d/git-gitops.fish 644; }; then
		say "could not write the man page and the completions to $prefix/share"
	fi
	say "installed git-gitops $version as $prefix/bin/git-gitops"
	advise
}

# platform sets os and arch, in the words of the archives' names.
platform() {
	os=$(uname -s) arch=$(uname -m)
	case $os in
	Linux) os=linux ;;
	Darwin) os=darwin ;;
	*) die "no release for $os here; for Windows, unpack the .zip from $project/releases" ;;
	esac
	case $arch in
	x86_64 | amd64) arch=amd64 ;;
	aarch64 | arm64) arch=arm64 ;;
	ppc64le | s390x) ;;
	*) die "no release for the architecture $arch; build it: $project" ;;
	esac
}

# find_archive sets archive, version and sum from the checksums.
find_archive() {
	while read -r sum archive; do
		archive=${archive#\*} # of sha256sum --binary
		found=${archive#git-gitops_}
		found=${found%"_${os}_$arch.tar.gz"}
		case $found in '' | *[!0-9A-Za-z.+-]*) continue ;; esac
		if [ "$archive" = "git-gitops_${found}_${os}_$arch.tar.gz" ] && [ "${version:-$found}" = "$found" ]; then
			version=$found
			return
		fi
	done <"$tmp/checksums.txt"
	die "checksums.txt names no archive for $os/$arch${version:+ of version $version}"
}

# verify_signature checks who made the checksums, where cosign can tell. A mirror cannot turn that
# off.
verify_signature() {
	if [ -n "$skip_signature" ] || ! have cosign; then
		return
	fi
	get "download/v$version/checksums.txt.sigstore.json" ||
		die "cannot get the signature, which cosign should verify; to trust the checksum alone: --skip-signature"
	cosign verify-blob --bundle "$tmp/checksums.txt.sigstore.json" \
		--certificate-identity "$project/.github/workflows/release.yml@refs/tags/v$version" \
		--certificate-oidc-issuer https://token.actions.githubusercontent.com "$tmp/checksums.txt" >"$tmp/cosign" 2>&1 || {
		cat "$tmp/cosign" >&2
		die "checksums.txt was not signed by the release of version $version (--skip-signature trusts the checksum alone)"
	}
}

# get FILE fetches BASE/FILE to the temporary folder, and tries passing errors again. status is the
# last answer.
get() {
	for pause in 1 2 4 no; do
		status=''
		if fetch "$base/$1" "$tmp/${1##*/}"; then
			return
		fi
		case $status in
		408 | 429) ;;
		4??) break ;;
		esac
		[ "$pause" = no ] || sleep "$pause"
	done
	[ "$status" != 000 ] || status='' # curl's word for none
	say "${1##*/}: ${status:+answered $status, }$(tail -n 1 "$tmp/error")"
	return 1
}

fetch() {
	if have curl; then
		case $base in https:*) set -- "$@" --proto-redir =https ;; esac
		url=$1 file=$2
		shift 2
		# By stdin, because a URL can hold a password, and everybody sees arguments.
		status=$(printf 'url = "%s"\n' "$url" | curl -K - -fsSL -o "$file" -w '%{http_code}' --connect-timeout 30 --max-time 600 "$@" 2>"$tmp/error")
		return
	fi
	case $base in *@*) die "wget would show the password in GITOPS_DOWNLOAD_BASE to everybody: install curl" ;; esac
	code=0
	wget -S -O "$2" "$1" 2>"$tmp/error" || code=$?
	status=$(sed -n 's|.*HTTP/[0-9.]* \([0-9][0-9][0-9]\).*|\1|p' "$tmp/error" | tail -n 1)
	return "$code"
}

sha256() {
	if have sha256sum; then
		set -- "$(sha256sum <"$1")"
	elif have shasum; then
		set -- "$(shasum -a 256 <"$1")"
	elif have openssl; then
		set -- "$(openssl dgst -sha256 -r <"$1")"
	else
		die "needs sha256sum, shasum or openssl to verify what it downloads"
	fi
	printf '%s\n' "${1%% *}"
}

# place MEMBER DESTINATION MODE puts an unpacked file in its place, which has the old or the new one
# at every moment.
place() {
	to=$prefix/$2
	staged=$to.new.$$
	mkdir -p "${to%/*}" && cp "$tmp/$1" "$staged" && chmod "$3" "$staged" && mv -f "$staged" "$to" || return
	staged=''
}

advise() {
	have git || say "git is missing: git-gitops needs 2.31 or newer"
	case :$PATH: in
	*":$prefix/bin:"*) ;;
	*) say "put it on PATH, here and in your profile: export PATH=\"$prefix/bin:\$PATH\"" && return ;;
	esac
	found=$(command -v git-gitops)
	[ "$found" = "$prefix/bin/git-gitops" ] || say "another one comes first on PATH: $found"
}

main "$@"
}
