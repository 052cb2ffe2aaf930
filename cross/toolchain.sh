# shellcheck shell=bash
# The toolchain for the board, made once in the cache folder: a Debian with Rust (`root`), Rust's standard
# library for aarch64 built from that Debian's own sources, zig as C compiler and linker, and an older Debian's
# C library to run under (`glibc`). Sourced, by cross/build and the tests, which set `tool`, the name that they
# speak under.
#
# Everything comes from the Debian archive that this machine's own apt sources name and from PyPI. What is made
# is kept; from then on nothing is fetched.
#
#   LOOKBACK_CACHE   folder for what is fetched and built (default ~/.cache/lookback), kept

cross=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=${cross%/cross}
# shellcheck source=cross/settings
. "$cross/settings"
# shellcheck source=cross/archive
. "$cross/archive"
tool=${tool:-cross}
cache=${LOOKBACK_CACHE:-$HOME/.cache/lookback}/cross
registry=${CARGO_HOME:-$HOME/.cargo}/registry
target=$cache/target
export PATH=$PATH:/usr/sbin:/sbin

# The first Debian whose backports have a Rust that is new enough. Its C library is newer than a board's: zig
# links for the older one.
suite=trixie
# Only what runs on this machine. The archive has Rust's standard library for arm64 too, but builds it days or
# weeks after each new Rust, and until then no compiler goes with it.
packages=rustc,cargo,rust-src,gcc,libc6-dev,binutils-aarch64-linux-gnu,ca-certificates
# Another list is another root.
root=$cache/root-$(echo "$suite $packages" | sha256sum | cut -c1-12)
# The oldest Debian whose C library is not older than the floor, for programs to be tried with.
glibc_suite=bookworm
glibc=$cache/glibc-$glibc_suite

zig_version=$(sed -nE 's/^ziglang==([^ ]*).*/\1/p' "$cross/zig.txt")
zig=$cache/zig-$zig_version
# Cargo remembers where a linker lies, not what it is: another wrapper lies elsewhere.
tools=/opt/zig-$(cat "$cross"/{zigcc,zig.txt} <(echo "$GLIBC_FLOOR") | sha256sum | cut -c1-12)

say() { echo "$tool: $*" >&2; }
# Not possible on this machine: the tests skip for it.
impossible() { say "$*"; exit 3; }
fail() { say "$*"; exit 1; }

# What no script can bring.
check_machine() {
    [ "$(uname -m)" = x86_64 ] || impossible 'runs on x86-64 only, as the zig that it has a hash of does'
    [ "$(id -u)" = 0 ] || impossible 'needs root, to make a Debian of its own: run it under sudo'
    unshare --mount true 2>/dev/null || impossible 'this machine allows no mounts (in a container: one with more privileges is needed)'
    command -v cargo >/dev/null || impossible 'needs cargo on this machine, to fetch crates: install Rust'
}

# Makes what is missing.
make_toolchain() {
    check_machine
    mkdir -p "$cache" "$target" "$cache/zig-cache" "$registry"
    # One at a time.
    exec 9>"$cache/lock"
    flock 9
    [ -e "$root/ready" ] || make_root
    [ -e "$root/$tools/cc" ] || install_tools
    [ -e "$zig/ready" ] || make_zig
    mkdir -p "$root"/{src,target,out,cargo/registry,opt/zig,zig-cache,proc,dev}
    [ -e "$root/usr/lib/rustlib/$TRIPLE/ready" ] || in_namespace make_library
    exec 9>&-
}

# Fetches the crates that Cargo.lock names, out here, where the machine's own settings for Cargo hold.
fetch_crates() {
    (cd "$repository" && { cargo fetch --quiet --locked --offline 2>/dev/null || cargo fetch --quiet --locked; }) ||
        fail 'cargo could not fetch the crates of Cargo.lock: the first build needs the network'
}

make_root() {
    say 'making a Debian with Rust; once, some minutes'
    rm -rf "$root"
    local pin="Package: rustc:any cargo:any rust-src:any libstd-rust*:any\nPin: release n=$suite-backports\nPin-Priority: 900\n"
    debian "$root" --variant=apt --include="$packages" \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/src/*' --dpkgopt='path-include=/usr/src/rustc-*/library/*' \
        --setup-hook="mkdir -p \"\$1/etc/apt/preferences.d\"; printf '$pin' >\"\$1/etc/apt/preferences.d/rust\"" \
        -- "$suite" "$suite-backports"
    touch "$root/ready"
}

# An older C library for aarch64 and nothing else, for QEMU to run programs with: make_glibc, then qemu -L.
make_glibc() {
    [ ! -e "$glibc/ready" ] || return 0
    say "unpacking the C library of Debian $glibc_suite for aarch64; once"
    rm -rf "$glibc"
    debian "$glibc" --variant=extract --architectures=arm64 --include=libc6 -- "$glibc_suite"
    touch "$glibc/ready"
}

# debian FOLDER OPTION... -- SUITE...: has mmdebstrap make one.
debian() {
    local folder=$1 options=() suites=() mirror keys=/usr/share/keyrings/debian-archive-keyring.gpg
    shift
    while [ "$1" != -- ]; do options+=("$1"); shift; done
    shift
    command -v mmdebstrap >/dev/null || impossible 'needs mmdebstrap: apt-get install mmdebstrap'
    [ -e $keys ] || impossible 'needs the keys of the Debian archive: apt-get install debian-archive-keyring'
    mirror=$(debian_mirror) || impossible 'no Debian archive among the apt sources of this machine'
    local name
    for name in "$@"; do suites+=("deb [signed-by=$keys] $mirror $name main"); done
    if ! mmdebstrap --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Retries "3"' \
        "${options[@]}" "$1" "$folder" "${suites[@]}" >"$cache/debian.log" 2>&1; then
        tail -n 5 "$cache/debian.log" >&2
        rm -rf "$folder"
        impossible "the Debian archive gives no $1: is there a network? All that was said is in $cache/debian.log"
    fi
}

make_zig() {
    local scratch=$cache/zig-new
    say "fetching zig $zig_version; once"
    rm -rf "$scratch" "$zig"
    mkdir -p "$scratch"
    python3 -m venv "$scratch/venv" >"$cache/zig.log" 2>&1 ||
        impossible 'needs venv of Python, to fetch zig: apt-get install python3-venv'
    if ! "$scratch/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        --require-hashes --no-compile --target "$scratch/wheel" -r "$cross/zig.txt" >>"$cache/zig.log" 2>&1; then
        tail -n 5 "$cache/zig.log" >&2
        rm -rf "$scratch"
        impossible "PyPI gives no zig $zig_version of the hash in cross/zig.txt: is there a network?"
    fi
    mv "$scratch/wheel/ziglang" "$zig"
    rm -rf "$scratch"
    chmod +x "$zig/zig"
    touch "$zig/ready"
}

install_tools() {
    local name
    mkdir -p "$root/$tools"
    for name in ar ranlib c++ cc; do install "$cross/zigcc" "$root/$tools/$name"; done
}

# Rust's standard library for the board, from the sources that came with the compiler and the crates that lie
# beside them, into the place where rustc looks for it. So everything after is compiled as anywhere else: only
# here is the compiler told to take what is not stable.
make_library() {
    say "building Rust's standard library for $TRIPLE; once, a minute"
    local sources libraries=$root/usr/lib/rustlib/$TRIPLE
    sources=$(chroot "$root" readlink -f /usr/lib/rustlib/src/rust)
    rm -rf "$root/library" "$libraries"
    mkdir -p "$root/library/src" "$libraries/lib"
    printf '[package]\nname = "nothing"\nedition = "2024"\n[workspace]\n' >"$root/library/Cargo.toml"
    : >"$root/library/src/lib.rs"
    in_root env RUSTC_BOOTSTRAP=1 RUSTFLAGS="--remap-path-prefix=$sources=/rust" \
        CARGO_TARGET_DIR=/library/target CARGO_PROFILE_RELEASE_DEBUG=line-tables-only \
        cargo build --manifest-path /library/Cargo.toml --quiet --offline --release --target "$TRIPLE" \
        -Zbuild-std=std,panic_unwind,proc_macro,test \
        --config 'source.crates-io.replace-with="beside"' \
        --config "source.beside.directory=\"$sources/library/vendor\"" ||
        fail "Rust's standard library did not build"
    rm "$root/library/target/$TRIPLE"/release/deps/libnothing-*
    cp "$root/library/target/$TRIPLE"/release/deps/*.{rlib,rmeta} "$libraries/lib"
    rm -rf "$root/library"
    touch "$libraries/ready"
}

# in_namespace FUNCTION ARGUMENT...: runs it, of the script that was called, with what Cargo needs mounted in
# the root, at places that are the same on every machine. The mounts are that process's own and end with it,
# however it ends. The script must call `within "$@"` if its first argument is `within`.
in_namespace() {
    unshare --mount --propagation private "$0" within "$@"
}

within() {
    shift
    mount --bind -o ro "$repository" "$root/src"
    mount --bind "$registry" "$root/cargo/registry"
    mount --bind "$target" "$root/target"
    mount --bind -o ro "$zig" "$root/opt/zig"
    mount --bind "$cache/zig-cache" "$root/zig-cache"
    mount --bind /dev "$root/dev"
    mount -t proc proc "$root/proc"
    "$@"
}

# in_root COMMAND...: runs it in the Debian, set to build for the board and for nothing else of this machine.
in_root() {
    local name=${TRIPLE//-/_} remap='' folder
    # A crate's own place is named after the registry that it was fetched from, and would be read in panics.
    for folder in "$registry"/src/*/; do
        remap+=" --remap-path-prefix=/cargo/registry/src/$(basename "$folder")=/crates"
    done
    chroot "$root" env -i HOME=/root PATH=/usr/bin:/bin LC_ALL=C CARGO_TERM_COLOR=never \
        CARGO_HOME=/cargo CARGO_TARGET_DIR=/target RUSTFLAGS="${remap# } --remap-path-prefix=/src=/lookback" \
        ZIG=/opt/zig/zig GLIBC_FLOOR="$GLIBC_FLOOR" ZIG_GLOBAL_CACHE_DIR=/zig-cache ZIG_LOCAL_CACHE_DIR=/zig-cache \
        "CARGO_TARGET_${name^^}_LINKER=$tools/cc" \
        "CC_$name=$tools/cc" "CXX_$name=$tools/c++" "AR_$name=$tools/ar" "RANLIB_$name=$tools/ranlib" \
        "CFLAGS_$name=${remap//--remap-path-prefix/-ffile-prefix-map}" \
        "$@"
}
