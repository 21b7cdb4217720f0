#!/bin/sh
# One pipeline: add one to the number in a file, and push that.
set -e
git clone "$REPO" work
cd work
n=$(cat counter)
sleep 0.2 # rendering, validating: what a pipeline does between clone and push
echo $((n + 1)) >counter
git commit -a -m "pipeline $1"
git push origin main
