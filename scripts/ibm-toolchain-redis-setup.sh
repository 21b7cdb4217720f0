#!/usr/bin/env bash
# Turns the service key of an IBM Cloud Databases for Redis instance into the settings of
# git-gitops, and tries them.
#
#   ibm-toolchain-redis-setup.sh [OPTIONS] FILE                            the key as JSON; - is standard input
#   ibm-toolchain-redis-setup.sh [OPTIONS] --instance NAME [--key NAME]   ask ibmcloud, and make the key if it is missing
#
#   --key NAME       name of the service key (git-gitops)
#   --output FILE    write the settings there, readable by you alone; - is standard output
#   --format FORMAT  how they are written (env):
#                      env            export lines, to be sourced by a shell
#                      json           one object
#                      tekton-secret  a Kubernetes Secret named git-gitops-redis, for envFrom
#                      github         NAME=value lines, for gh secret set --env-file FILE
#                      gitlab         the same, for glab variable set
#   --no-check       do not try the connection (git gitops doctor)
#
# Without --output it only says what it found, with the secrets masked. No secret is passed in an
# argument list or kept in a temporary file.
{ set +x; } 2>/dev/null # a trace would show the secrets
set -euo pipefail
LC_ALL=C # A-Z is what it says
newline=$'\n'

fail() {
	printf 'error: %s\n' "$1" >&2
	exit "${2-1}"
}

usage() { fail "$1
for help: ${0##*/} -h" 129; }

help() {
	local line
	while IFS= read -r line; do
		case $line in
		'#!'*) ;;
		'#'*) line=${line#'#'} && printf '%s\n' "${line# }" ;;
		*) return ;;
		esac
	done <"$0"
}

# try makes a program the reader of JSON if it does what the words after its name ask for, and else
# notes why not.
try() {
	[ -z "$reader" ] || return 0
	command -v "$1" >/dev/null || return 0
	local said
	if said=$("$@" 2>&1 >/dev/null </dev/null); then
		reader=$1
	else
		said=${said##*"$newline"}
		unfit="$unfit
why: $1 is here, but cannot: ${said:-it says nothing}"
	fi
}

# query runs one of two programs that do the same, for jq and for python3, on the JSON on standard
# input. What they have against it may quote it.
query() {
	case $reader in
	jq) jq -rs "if length == 1 then .[0] else error(\"not one document\") end | $1" 2>/dev/null ;;
	python3)
		python3 -c "import json, sys
root = json.load(sys.stdin.buffer)
$2" 2>/dev/null
		;;
	esac
}

names() {
	query '.[].name' 'for key in root:
    print(key["name"])'
}

# fields are the five that are needed, one a line, empty when missing. What is no JSON, or not of
# one key, or holds a control character, fails.
fields() {
	query 'if type == "array" then (if length == 1 then .[0] else error("not one key") end) else . end
		| .credentials.connection.rediss
		| .hosts[0].hostname, .hosts[0].port, .authentication.username, .authentication.password, .certificate.certificate_base64
		| if . == null then "" elif type == "string" or type == "number" then tostring else error("not a text") end
		| if explode | any(. < 32 or . == 127) then error("control character") else . end' \
		'key = root
if isinstance(key, list):
    [key] = key
def get(value, *path):
    for step in path:
        if value is None:
            return ""
        if isinstance(step, int):
            value = value[step] if len(value) > step else None
        else:
            value = value.get(step)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError("not a text")
    text = str(value)
    if any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise ValueError("control character")
    return text
at = "credentials", "connection", "rediss"
lines = [get(key, *at, *path) for path in (
    ("hosts", 0, "hostname"), ("hosts", 0, "port"), ("authentication", "username"),
    ("authentication", "password"), ("certificate", "certificate_base64"))]
sys.stdout.buffer.write(("\n".join(lines) + "\n").encode())'
}

# ask has ibmcloud print the service key, and make it before if there is none of that name.
ask() {
	command -v ibmcloud >/dev/null || fail "ibmcloud is not installed: install it and log in, or give the key's JSON as a file"
	local list found
	list=$(ibmcloud resource service-keys --instance-name "$instance" --output json) ||
		fail "ibmcloud cannot list the service keys of $instance: log in (ibmcloud login), and target its region and resource group (ibmcloud target)"
	found=$(printf '%s\n' "$list" | names) || fail "ibmcloud did not print a list of service keys as JSON"
	case $newline$found$newline in
	*"$newline$key$newline"*) ;;
	*)
		printf 'making the service key %s\n' "$key" >&2
		ibmcloud resource service-key-create "$key" --instance-name "$instance" >/dev/null || # it prints the key
			fail "ibmcloud cannot make the service key $key of $instance"
		;;
	esac
	ibmcloud resource service-key "$key" --output json || fail "ibmcloud cannot show the service key $key"
}

# each runs a command for every setting, with its name and value.
each() {
	"$@" REDIS_HOST "$host"
	"$@" REDIS_PORT "$port"
	"$@" REDIS_USERNAME "$username"
	"$@" REDIS_PASSWORD "$password"
	"$@" REDIS_TLS true
	"$@" REDIS_TLS_CA_CERT_B64 "$certificate"
}

show_setting() {
	case $1 in
	REDIS_PASSWORD | REDIS_TLS_CA_CERT_B64) printf '%-22s ****\n' "$1" ;;
	*) printf '%-22s %s\n' "$1" "$2" ;;
	esac
}

export_setting() { export "$1=$2"; }

env_setting() {
	local quote="'" escaped="'\\''"
	printf "export %s='%s'\n" "$1" "${2//$quote/$escaped}"
}

# quoted is a string of JSON, and of YAML. One character at a time, as versions of bash differ on
# backslashes in a replacement.
quoted() {
	local text='' char i
	for ((i = 0; i < ${#1}; i++)); do
		char=${1:i:1}
		case $char in '"' | \\) text=$text\\ ;; esac
		text=$text$char
	done
	printf '"%s"' "$text"
}

json_setting() {
	printf '%s\n  "%s": ' "$comma" "$1"
	quoted "$2"
	comma=,
}

yaml_setting() {
	printf '  %s: ' "$1"
	quoted "$2"
	printf '\n'
}

# dotenv_setting takes no value that a reader of such files may take for quotes, a variable or a
# comment.
dotenv_setting() {
	case $2 in
	*[!A-Za-z0-9_.:/+=@%,-]*) fail "$1 has a character that --format $format cannot carry: use --format json, or a password of letters and digits" ;;
	esac
	printf '%s=%s\n' "$1" "$2"
}

write() {
	case $format in
	env) each env_setting ;;
	json)
		printf '{'
		comma=''
		each json_setting
		printf '\n}\n'
		;;
	tekton-secret)
		printf 'apiVersion: v1\nkind: Secret\nmetadata:\n  name: git-gitops-redis\ntype: Opaque\nstringData:\n'
		each yaml_setting
		;;
	github | gitlab) each dotenv_setting ;;
	esac
}

# check tries the settings, and none that are here already. The environment carries them: arguments
# are for all to see.
check() (
	for name in "${!REDIS_@}"; do unset "$name"; done
	each export_setting
	cd / # its repository is not the question
	git gitops doctor
)

file='' instance='' key=git-gitops format='' output='' check=yes
while [ $# -gt 0 ]; do
	case $1 in
	-h | --help)
		help
		exit
		;;
	--no-check) check='' ;;
	--instance | --key | --format | --output)
		[ -n "${2-}" ] || usage "$1 needs a value"
		case $1 in
		--instance) instance=$2 ;;
		--key) key=$2 ;;
		--format) format=$2 ;;
		--output) output=$2 ;;
		esac
		shift
		;;
	-?*) usage "unknown option $1" ;;
	*)
		[ -z "$file" ] || usage "more than one file"
		file=$1
		;;
	esac
	shift
done
[ -n "$file$instance" ] || usage "give the JSON of a service key, or --instance NAME"
[ -z "$file" ] || [ -z "$instance" ] || usage "a file and --instance exclude each other"
[ -z "$format" ] || [ -n "$output" ] || usage "--format needs --output"
format=${format:-env}
case $format in env | json | tekton-secret | github | gitlab) ;; *) usage "unknown format $format: env, json, tekton-secret, github or gitlab" ;; esac
case $output in
'' | - | /*) ;;
*) output=./$output ;;
esac
[ ! -d "$output" ] || usage "$output is a folder"

reader='' unfit=''
try jq -n '[1] | any(. < 32)'
try python3 -c 'import json, sys; json.loads("[1]")' # python3-minimal of Debian has no json
[ -n "$reader" ] || fail "jq or python3 is needed to read JSON: install one of them$unfit"
if [ -n "$check" ] && ! git gitops --version >/dev/null 2>&1; then
	fail "git gitops is not installed, so the connection cannot be tried: put git-gitops on PATH, or give --no-check"
fi

umask 077
exec 3>&1 # where --output - goes; our own words then make way
[ "$output" != - ] || exec 1>&2

if [ -n "$instance" ]; then
	json=$(ask)
elif [ "$file" = - ]; then
	json=$(cat)
else
	[ -r "$file" ] || fail "cannot read $file"
	json=$(cat -- "$file")
fi
# Through pipes, as a here-string may be a temporary file.
values=$(printf '%s\n' "$json" | fields) ||
	fail "this is not the JSON of one service key of Databases for Redis, as ibmcloud resource service-key NAME --output json prints it"
for name in host port username password certificate; do
	values=$values$newline # empty ones at the end have been cut
	printf -v "$name" %s "${values%%"$newline"*}"
	values=${values#*"$newline"}
done

# shellcheck disable=SC2154 # they are set above
{
	missing=''
	[ -n "$host" ] || missing="$missing hosts[0].hostname"
	[ -n "$port" ] || missing="$missing hosts[0].port"
	[ -n "$username" ] || missing="$missing authentication.username"
	[ -n "$password" ] || missing="$missing authentication.password"
	[ -n "$certificate" ] || missing="$missing certificate.certificate_base64"
	[ -z "$missing" ] || fail "the service key lacks, below credentials.connection.rediss:$missing"
	case $port in *[!0-9]*) fail "the port of the service key is no number" ;; esac
	case $host in *[!A-Za-z0-9.-]*) fail "the hostname of the service key is none" ;; esac
	case $certificate in *[!A-Za-z0-9+/=]*) fail "the certificate of the service key is not base64" ;; esac
}

each show_setting
settings=$(write)
if [ -n "$check" ]; then
	printf '\n'
	check || fail "this does not work, as git gitops doctor says; nothing was written (--no-check leaves the trial out)"
fi
case $output in
'') ;;
-) printf '%s\n' "$settings" >&3 ;;
*)
	temporary=$(mktemp "$output.XXXXXX")
	trap 'rm -f -- "$temporary"' EXIT
	printf '%s\n' "$settings" >"$temporary"
	mv -f -- "$temporary" "$output"
	printf '\nwritten to %s: keep it secret, and delete it when it has served\n' "$output"
	;;
esac
