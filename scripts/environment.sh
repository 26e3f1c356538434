# Sourced by the scripts beside it. Makes .venv with this package in it, and does nothing when it is up to date.

caller=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=$PWD/.venv
case ${OSTYPE:-} in
    msys* | cygwin*) bin=$venv/Scripts ;;  # Git's bash on Windows
    *) bin=$venv/bin ;;
esac

find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3.14 python3.13 python3.12 python3.11 python3 python; do
        # A shim may exist for a Python that is not installed, so it is asked and not only looked for.
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "No Python 3.11 or newer was found. Install one, or name it: PYTHON=/path/to/python $0" >&2
    return 1
}

# An environment cannot be moved, since its programs are called by their paths, and it needs the Python that made it.
trouble=
if [ -f "$venv/.place" ] && ! [ "$(<"$venv/.place")" -ef "$venv" ]; then
    trouble="was moved"
elif [ -L "$bin/python" ] && ! [ -e "$bin/python" ]; then
    trouble="has lost its Python"
fi
if [ -n "$trouble" ]; then
    find_python >/dev/null || exit 1
    echo "$venv $trouble; it is made anew." >&2
    rm -rf "$venv"
fi

# set_up NAME PIP-ARGUMENTS...: install once, and again whenever pyproject.toml changes.
set_up() {
    local stamp=$venv/.installed-$1 python
    shift
    if [ ! -x "$bin/python" ]; then
        python=$(find_python) || exit 1
        "$python" -m venv "$venv" || {
            echo "$python could not make a virtual environment in $venv (on Debian and Ubuntu: install python3-venv)." >&2
            rm -rf "$venv"  # half an environment would be taken for a whole one the next time
            exit 1
        }
        echo "$venv" >"$venv/.place"
    fi
    if ! cmp -s pyproject.toml "$stamp"; then
        echo "Installing into $venv (the first time this takes some minutes) ..." >&2
        # Dependency groups need pip 25.1.
        "$bin/python" -m pip install --quiet --upgrade 'pip>=25.1'
        "$bin/python" -m pip install --quiet --editable . "$@"
        cp pyproject.toml "$stamp"
    fi
}
