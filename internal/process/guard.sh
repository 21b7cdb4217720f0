# Ends what one of our commands has started, and all below it, when that command is gone without having
# ended it. Each line of its input lists the processes that run then, a process group as -PID. The
# command holds the other end, which its own end closes.
#
# TERM lets git remove what it has begun; KILL follows for what is left after half a second.

started=
while read -r line; do started=$line; done
[ -n "$started" ] || exit 0

# family adds to the processes that are given all that descend from them.
family() {
	if [ -r /proc/self/stat ]; then
		for file in /proc/[0-9]*/stat; do # PID (NAME) STATE PPID …
			read -r line <"$file" || continue
			state=${line##*) }
			parent=${state#* }
			echo "${line%% *} ${parent%% *}"
		done
	else
		ps -A -o pid= -o ppid=
	fi 2>/dev/null | {
		pairs=$(cat)
		found=" $* "
		grown=yes
		while [ -n "$grown" ]; do
			grown=
			while read -r pid parent; do
				case $found in *" $pid "*) continue ;; esac
				case $found in *" $parent "*) found="$found$pid " grown=yes ;; esac
			done <<-PAIRS
				$pairs
			PAIRS
		done
		echo "$found"
	}
}

send() {
	for pid in $all; do kill -s "$1" -- "$pid"; done
} 2>/dev/null

alive() {
	for pid in $all; do kill -s 0 -- "$pid" && return; done
	return 1
} 2>/dev/null

# shellcheck disable=SC2086 # a list of numbers
all=$(family $started)
send TERM
# shellcheck disable=SC2086 # a list of numbers
all=$(family $all) # what was started since
send TERM
for _ in 1 2 3 4 5; do
	alive || exit 0
	sleep 0.1
done
send KILL
