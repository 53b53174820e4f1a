# Installs what the cloud and its tests need, from Debian's own packages. Sourced by ./run and ./test.
# Asks nothing, says what it does, and does nothing where all is there.

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }

fail() {
    printf 'error: %s\n' "$1" >&2
    [ -n "${2:-}" ] && printf '       %s\n' "$2" >&2
    exit 1
}

need_root() {
    [ "$(id -u)" = 0 ] || fail "this needs root: instances are real virtual machines with real networks" "Run it as root, or with sudo."
}

# What the cloud needs on its host.
HOST_PACKAGES="qemu-system-x86 qemu-utils ovmf swtpm seabios iproute2 nftables mmdebstrap fdisk gdisk dosfstools mtools e2fsprogs zstd openssh-client ca-certificates"
# What building it needs.
BUILD_PACKAGES="gcc libc6-dev clang libbpf-dev"
# What its tests need besides: the programs that keys must suit.
TEST_PACKAGES="putty-tools openssl"

# Python packages go here, away from the system's.
VENV=target/python

package_is_there() { dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'ok installed'; }

install_packages() {
    local missing="" package
    for package in "$@"; do
        package_is_there "$package" || missing="$missing $package"
    done
    [ -z "$missing" ] && return 0
    command -v apt-get >/dev/null || fail "these packages are missing:$missing" "This script installs them on Debian and its relatives only."
    say "installing$missing"
    local log
    log=$(mktemp)
    {
        apt-get update -q &&
            DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $(release_option) $missing
    } >"$log" 2>&1 || { tail -n 15 "$log" >&2; fail "the packages could not be installed" "The whole log is in $log."; }
    rm -f "$log"
}

# Where qemu-utils came from backports, QEMU itself must come from there too.
release_option() {
    case "$(dpkg-query -W -f '${Version}' qemu-utils 2>/dev/null)" in
        *bpo12*)
            if ! apt-cache policy | grep -q bookworm-backports; then
                sed 's/^Suites: bookworm bookworm-updates$/Suites: bookworm-backports/;s/bookworm main/bookworm-backports main/' \
                    /etc/apt/sources.list.d/debian.sources >/etc/apt/sources.list.d/cumulet-backports.sources
                apt-get update -q >/dev/null
            fi
            echo "-t bookworm-backports"
            ;;
    esac
}

# What the cloud is built and tested with; a newer one that is there will do.
RUST=1.95.0

rust_is_new_enough() {
    command -v cargo >/dev/null && [ "$(printf '%s\n' "$RUST" "$(rustc --version | cut -d' ' -f2)" | sort -V | head -n1)" = "$RUST" ]
}

install_rust() {
    rust_is_new_enough && return 0
    say "installing a Rust toolchain"
    install_python rustup
    local rustup="$VENV/bin/rustup"
    "$rustup" toolchain list | grep -q "^$RUST" ||
        "$rustup" toolchain install --no-self-update --profile minimal "$RUST" >/dev/null ||
        fail "no Rust toolchain could be installed" "Install Rust $RUST or newer and run this again."
    PATH="$(dirname "$("$rustup" which --toolchain "$RUST" cargo)"):$PATH"
    rust_is_new_enough || fail "Rust $RUST or newer is needed, $(rustc --version) is there" "Install it and run this again."
}

# Python packages from PyPI, each installed if it is not there.
install_python() {
    local missing="" package
    for package in "$@"; do
        ls -d "$VENV"/lib/python3*/site-packages/"$package"-*.dist-info >/dev/null 2>&1 || missing="$missing $package"
    done
    [ -z "$missing" ] && return 0
    install_packages python3 python3-venv
    say "installing$missing from PyPI into $VENV"
    mkdir -p "$(dirname "$VENV")"
    [ -x "$VENV/bin/pip" ] || python3 -m venv "$VENV"
    "$VENV/bin/pip" install --quiet --disable-pip-version-check $missing || fail "the Python packages could not be installed" "pip's messages above say why."
}

# Whether the AWS CLI that is there finds a cloud by AWS_ENDPOINT_URL (from 2.13.0 and 1.29.0 on).
aws_is_new_enough() {
    command -v aws >/dev/null || return 1
    local version least
    version=$(aws --version 2>&1 | sed -n 's,^aws-cli/\([0-9.]*\).*,\1,p')
    case "$version" in 1.*) least=1.29.0 ;; *) least=2.13.0 ;; esac
    [ -n "$version" ] && [ "$(printf '%s\n' "$least" "$version" | sort -V | head -n1)" = "$least" ]
}

# An AWS CLI that is new enough, in PATH.
install_aws() {
    aws_is_new_enough && return 0
    install_python awscli
    PATH=$PWD/$VENV/bin:$PATH
    aws_is_new_enough || fail "the AWS CLI from PyPI does not run" "Install AWS CLI 2.13 or newer and run this again."
    AWS_IS_OURS=yes
}
