#!/bin/sh
# The same with the usual cure: rebase and try again until the push is accepted.
set -e
git clone "$REPO" work
cd work
n=$(cat counter)
sleep 0.2
echo $((n + 1)) >counter
git commit -a -m "pipeline $1"
until git push origin main; do
	git pull --rebase -X theirs origin main
done
