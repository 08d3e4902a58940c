# Sourced by deploy/demo and tests/run: finds what a build needs and installs what is missing.
#
# Nothing is installed that is already there, and every installation is announced before it happens.
# Only Debian and its kin (apt) are served; elsewhere the missing programs are named.

# Oldest Rust that builds this workspace (rust-version in Cargo.toml), as a minor version.
readonly RUST_MINOR_MIN=95

fail() {
    printf '%s\n' "$1" "  Why: $2" "  Fix: $3" >&2
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# libclang has no program of its own to look for.
have_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] && return 0
    local folder found
    for folder in /usr/lib/llvm-*/lib /usr/lib/*-linux-gnu /usr/lib64 /usr/lib /usr/local/lib; do
        # Not libclang-cpp, which is another library.
        for found in "$folder"/libclang.so* "$folder"/libclang-[0-9]*.so*; do
            [ -e "$found" ] && return 0
        done
    done
    return 1
}

need_rust() {
    if ! have cargo && [ -x "$HOME/.cargo/bin/cargo" ]; then
        PATH="$HOME/.cargo/bin:$PATH"
        export PATH
    fi
    { have cargo && have rustc; } || fail "No Rust toolchain was found." "cargo or rustc is not on the PATH" \
        "Install Rust 1.$RUST_MINOR_MIN or newer from https://rustup.rs, then run this again."
    local version minor
    version=$(rustc --version | cut -d ' ' -f 2)
    minor=$(printf '%s' "$version" | cut -d . -f 2)
    [ "$minor" -ge "$RUST_MINOR_MIN" ] || fail "Rust $version is too old." "1.$RUST_MINOR_MIN is the oldest that builds this" \
        "Run: rustup update stable"
}

# Installs packages with apt, or names what is missing where there is no apt. First what they are for, then the packages.
install_packages() {
    local purpose=$1 as_root=()
    shift
    have apt-get || fail "Programs are missing: $*." "they $purpose, and this machine has no apt to install them" \
        "Install them with this system's package manager, then run this again."
    if [ "$(id -u)" -ne 0 ]; then
        have sudo || fail "Programs are missing: $*." "installing them needs root, and there is no sudo" \
            "As root, run: apt-get install $*"
        as_root=(sudo)
    fi
    echo "Installing with apt: $*" >&2
    "${as_root[@]}" apt-get update -qq >&2
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2
}

# The C++ toolchain for RocksDB, and libclang, with which its bindings are made.
need_native() {
    local missing=()
    have g++ || missing+=(g++)
    have make || missing+=(make)
    have pkg-config || missing+=(pkg-config)
    have clang || missing+=(clang)
    have_libclang || missing+=(libclang-dev)
    [ "${#missing[@]}" -eq 0 ] || install_packages "build the storage engine" "${missing[@]}"
}

# Python 3.9 or newer with its standard library: the independent checker of the protocol is written in it.
need_python() {
    have python3 || install_packages "run the independent checker of the protocol" python3
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))' || fail "Python is too old: $(python3 --version)." \
        "the independent checker of the protocol needs 3.9 or newer" "Install a newer python3, then run this again."
}

# A part of the Rust toolchain that has a cargo command, for example: need_component rustfmt fmt
need_component() {
    cargo "$2" --version >/dev/null 2>&1 && return 0
    have rustup || fail "The Rust component $1 is missing." "cargo $2 does not run, and there is no rustup to add it" \
        "Install $1 with the package manager that brought Rust."
    echo "Adding the Rust component $1" >&2
    rustup component add "$1" >&2
}

# Build output lives outside the clone, so that a fresh clone finds it again; RocksDB is compiled once.
use_target_dir() {
    export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$HOME/.cache/hie/target}"
    mkdir -p "$CARGO_TARGET_DIR"
}
