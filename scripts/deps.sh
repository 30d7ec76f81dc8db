#!/usr/bin/env bash
# Installs what a fresh Debian or Ubuntu lacks. Does nothing, and asks nobody, for what is already there.
#
#   scripts/deps.sh build     what `cargo build` needs: C++ compiler, libclang, cmake, pkg-config
#   scripts/deps.sh test      what the tests need: kcat, Java, Maven, Node, Python and the clients themselves
#   scripts/deps.sh soak      what only the long forms need: a schema registry
#   scripts/deps.sh verify    what `make verify` needs: cargo-deny
#   scripts/deps.sh           all of it
#
# System packages come from apt (as root, or through sudo). Everything else goes into one folder outside
# the clone, ${TIDELOG_CACHE:-$HOME/.cache/tidelog}, where a stamp beside each part says what it was made of.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${TIDELOG_CACHE:-$HOME/.cache/tidelog}
foreign=$repo/tests/foreign
cargo_deny_version=0.20.2
registry_version=3.3.3

say() { printf 'deps: %s\n' "$*"; }
die() { printf 'deps: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# --- system packages -------------------------------------------------------------------------------------

packages=()
# want COMMAND PACKAGE...: asks for the packages unless COMMAND succeeds.
want() { if ! eval "$1" >/dev/null 2>&1; then shift; packages+=("$@"); fi; }

# A library counts as there if the loader or the compiler's own folders have it.
have_libclang() { compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' || compgen -G '/usr/lib/*/libclang*.so*' || [ -n "${LIBCLANG_PATH:-}" ]; }
# venv without ensurepip (Debian's python3 without python3-venv) makes an environment that has no pip.
have_venv() { python3 -c 'import venv, ensurepip'; }
have_ca() { [ -s /etc/ssl/certs/ca-certificates.crt ]; }

want_for_build() {
  want 'have c++ && have cc && have make' build-essential
  want 'have clang' clang
  want have_libclang libclang-dev
  want 'have cmake' cmake
  want 'have pkg-config' pkg-config
  want 'have perl' perl
  want have_ca ca-certificates
}

want_for_test() {
  want 'have kcat' kcat
  want 'have python3' python3
  want have_venv python3-venv
  want 'have node' nodejs
  want 'have npm' npm
  want 'have javac' default-jdk-headless
  want 'have mvn' maven
  want 'have ip' iproute2
  want 'have nft' nftables
}

install_packages() {
  [ ${#packages[@]} -gt 0 ] || return 0
  have apt-get || die "these Debian packages are missing and there is no apt-get to install them: ${packages[*]}"
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    have sudo || die "these packages are missing: ${packages[*]} (run as root, or install sudo)"
    as_root=(sudo)
  fi
  say "installing ${packages[*]}"
  "${as_root[@]}" apt-get update -qq </dev/null
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${packages[@]}" </dev/null
}

check_rust() { have cargo || die "no Rust toolchain found: install Rust $(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$repo/Cargo.toml") or newer first"; }

# --- clients under test ----------------------------------------------------------------------------------

# made_of FILE...: one line that changes when any of the files, or this script's way to install, changes.
made_of() { { echo 1; cat "$@"; } | sha256sum | cut -d' ' -f1; }
# current FOLDER STAMP: whether FOLDER was finished from exactly this.
current() { [ -f "$1.stamp" ] && [ -d "$1" ] && [ "$(cat "$1.stamp")" = "$2" ]; }

install_python() {
  local dir=$cache/venv stamp
  stamp="$(python3 --version) $(made_of "$foreign/requirements.txt")"
  current "$dir" "$stamp" && return 0
  say "Python clients -> $dir"
  rm -rf "$dir" "$dir.stamp"
  python3 -m venv "$dir"
  "$dir/bin/pip" install -q --disable-pip-version-check --no-input -r "$foreign/requirements.txt" </dev/null
  echo "$stamp" >"$dir.stamp"
}

install_node() {
  local dir=$cache/npm stamp
  stamp=$(made_of "$foreign/kafkajs/package.json" "$foreign/kafkajs/package-lock.json")
  current "$dir" "$stamp" && return 0
  say "KafkaJS -> $dir"
  rm -rf "$dir" "$dir.stamp"
  mkdir -p "$dir"
  cp "$foreign/kafkajs/package.json" "$foreign/kafkajs/package-lock.json" "$dir/"
  (cd "$dir" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error </dev/null)
  echo "$stamp" >"$dir.stamp"
}

# The Java client, the command-line tools, Kafka's own broker and its Connect worker: one folder of jars each, since their
# versions differ. Kafka's scripts are not in the registry; the tests start the classes as the scripts do.
install_java() {
  local part dir stamp
  for part in client tools server connect; do
    dir=$cache/java/$part
    stamp=$(made_of "$foreign/java/$part/pom.xml")
    current "$dir" "$stamp" && continue
    say "Java $part -> $dir"
    rm -rf "$dir" "$dir.stamp"
    mkdir -p "$cache/java"
    mvn -B -q -f "$foreign/java/$part/pom.xml" dependency:copy-dependencies \
      -DoutputDirectory="$dir" </dev/null
    echo "$stamp" >"$dir.stamp"
  done
}

# Apicurio Registry, 160 MB: ready to run, but on Java 21 or newer, which the test looks for by itself.
install_registry() {
  local dir=$cache/java/registry
  current "$dir" "$registry_version" && return 0
  say "Apicurio Registry $registry_version -> $dir"
  rm -rf "$dir" "$dir.stamp"
  mkdir -p "$dir"
  (cd "$dir" && mvn -B -q org.apache.maven.plugins:maven-dependency-plugin:3.8.1:unpack \
    -Dartifact="io.apicurio:apicurio-registry-app:$registry_version:tar.gz:all" -DoutputDirectory="$dir" </dev/null)
  # The plugin's own marks, for want of a project.
  rm -rf "$dir/\${project.basedir}"
  echo "$registry_version" >"$dir.stamp"
}

# --- cargo-deny ------------------------------------------------------------------------------------------

install_cargo_deny() {
  local bin=$cache/tools/bin/cargo-deny
  if [ -x "$bin" ] && [ "$("$bin" --version)" = "cargo-deny $cargo_deny_version" ]; then return 0; fi
  say "cargo-deny $cargo_deny_version -> $bin"
  # Its own target folder: it must not evict or lock the project's.
  CARGO_TARGET_DIR=$cache/tools/target cargo install cargo-deny --locked --version "$cargo_deny_version" \
    --root "$cache/tools" --quiet </dev/null
  rm -rf "$cache/tools/target"
}

parts=("${@:-all}")
for part in "${parts[@]}"; do
  case $part in
    build) want_for_build ;;
    test | soak) want_for_build; want_for_test ;;
    verify) want_for_build ;;
    all) want_for_build; want_for_test ;;
    *) die "unknown part '$part': build, test, soak or verify" ;;
  esac
done
install_packages
check_rust
mkdir -p "$cache"
for part in "${parts[@]}"; do
  case $part in test | soak | all) install_python; install_node; install_java ;; esac
  case $part in soak) install_registry ;; esac
  case $part in verify | all) install_cargo_deny ;; esac
done
