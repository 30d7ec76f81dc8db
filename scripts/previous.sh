#!/usr/bin/env bash
# The broker of the previous commit, for the tests of a rolling upgrade: tests/foreign/test_upgrade.py.
#
#   scripts/previous.sh build     builds it, unless that was done before; prints nothing on standard output
#   scripts/previous.sh find      prints where it is, or says why there is none and ends with 1
#
# The previous commit is HEAD if something was changed since, else the one before; TIDELOG_PREVIOUS=<revision> names another.
# Binaries are kept by commit in ${TIDELOG_CACHE:-$HOME/.cache/tidelog}/previous, the newest few. Dependencies are those that
# `make build` has compiled; our own crates are compiled with few optimisations, which makes it a minute or two.
# Where there is none to be had, as in a clone without history, `build` says so and ends with 0: tests that need it are skipped.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=${TIDELOG_CACHE:-$HOME/.cache/tidelog}/previous
kept=3
reason=$folder/reason

none() { printf 'no binary of the previous commit: %s\n' "$*" >&2; exit "$missing"; }

case ${1:-} in
  build) missing=0 ;;
  find) missing=1 ;;
  *) printf 'usage: %s build|find\n' "$0" >&2; exit 2 ;;
esac

# A commit, not a state of the files: a checkout that is another repository's folder has none.
[ "$(git -C "$repo" rev-parse --show-toplevel 2>/dev/null)" = "$repo" ] || none "$repo is no git repository"
revision=${TIDELOG_PREVIOUS:-}
if [ -z "$revision" ]; then
  if [ -n "$(git -C "$repo" status --porcelain)" ]; then revision=HEAD; else revision=HEAD~1; fi
fi
commit=$(git -C "$repo" rev-parse --verify --quiet "$revision^{commit}") || none "git knows no $revision here (a clone without history?)"
binary=$folder/$commit/tidelog

if [ "$1" = find ]; then
  [ -x "$binary" ] || none "$commit is not built: $(cat "$reason.$commit" 2>/dev/null || echo 'run make previous')"
  printf '%s\n' "$binary"
  exit 0
fi

mkdir -p "$folder"
exec 9>"$folder/lock"
flock 9
# The newest stay; this one is the newest.
prune() {
  find "$folder" -mindepth 2 -maxdepth 2 -name tidelog -printf '%T@ %h\n' | sort -rn | tail -n "+$((kept + 1))" | cut -d' ' -f2- |
    xargs -r -d '\n' rm -rf
}
if [ -x "$binary" ]; then
  touch "$binary"
  exit 0
fi

# Always the same folder, so that what cargo compiled for one commit makes way for that of the next. Files are of today: cargo
# takes older ones for those that it has compiled.
source=$folder/source
rm -rf "$source" && mkdir "$source"
git -C "$repo" archive "$commit" | tar -x -m -C "$source"
quick=()
for crate in protocol storage replication broker client driver; do
  quick+=(--config "profile.release.package.tidelog-$crate.opt-level=1")
done
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-${TIDELOG_CACHE:-$HOME/.cache/tidelog}/target}
printf 'building the previous commit, %s\n' "$(git -C "$repo" log -1 --format='%h %s' "$commit")" >&2
rm -f "$reason".*
# All of the workspace, as `make build` says it: with fewer crates dependencies would have other features.
if ! (cd "$source" && cargo build --release --locked --workspace --bin tidelog "${quick[@]}" >&2); then
  echo 'its build failed' >"$reason.$commit"
  none "the build of $commit failed"
fi
mkdir -p "$folder/$commit.new"
cp -f "$CARGO_TARGET_DIR/release/tidelog" "$folder/$commit.new/tidelog"
rm -rf "${folder:?}/$commit" && mv "$folder/$commit.new" "$folder/$commit"
prune
