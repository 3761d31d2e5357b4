# Source this (`source activate.sh`, bash or zsh) to get one environment for the command line, the UI and every other process:
# the packages, MOLMO2_HOME, MOLMO2_PROFILE, DAGSTER_HOME, and where `dagster asset …` finds the definitions.
# Returns 1, after one sentence, where the folders cannot be made. Source it again after changing MOLMO2_PROFILE or MOLMO2_HOME.
# shellcheck shell=bash

# zsh has no BASH_SOURCE; %x is its name for this file. CDPATH would make cd print where it went.
_molmo2_root="$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]:-${(%):-%x}}")" >/dev/null && pwd)"
if [ -f "$_molmo2_root/.venv/bin/activate" ]; then
    . "$_molmo2_root/.venv/bin/activate"
else
    echo "activate.sh: there is no environment in $_molmo2_root/.venv yet; \`make venv\` makes it." >&2
fi

export MOLMO2_HOME="${MOLMO2_HOME:-$_molmo2_root/.molmo2}"
# Absolute, or history would split between the folders that commands are called in.
case "$MOLMO2_HOME" in /*) ;; *) MOLMO2_HOME="$PWD/$MOLMO2_HOME" ;; esac
export MOLMO2_PROFILE="${MOLMO2_PROFILE:-demo}"
# One history per profile, on this host's own disk. Follows MOLMO2_PROFILE when this file is sourced again.
export DAGSTER_HOME="$MOLMO2_HOME/$MOLMO2_PROFILE/dagster"
export DAGSTER_CLI_ASSET_MATERIALIZE_MODULE_NAME=definitions
export DAGSTER_CLI_ASSET_MATERIALIZE_WORKING_DIRECTORY="$_molmo2_root"
export DAGSTER_CLI_ASSET_LIST_MODULE_NAME=definitions
export DAGSTER_CLI_ASSET_LIST_WORKING_DIRECTORY="$_molmo2_root"
unset _molmo2_root

# Written beside its place and renamed: a full disk must not leave an empty file that is then taken for yours.
_molmo2_write_yaml() {
    [ -s "$DAGSTER_HOME/dagster.yaml" ] && [ -w "$DAGSTER_HOME" ] && return 0
    mkdir -p "$DAGSTER_HOME" && cat > "$DAGSTER_HOME/dagster.yaml.$$" <<'YAML' && mv -f "$DAGSTER_HOME/dagster.yaml.$$" "$DAGSTER_HOME/dagster.yaml"
# Written by activate.sh; yours to change.
telemetry:
  enabled: false
nux:
  enabled: false
concurrency:
  pools:
    default_limit: 1
    granularity: op
run_monitoring:
  enabled: true
  free_slots_after_run_end_seconds: 60
# Dagster's SQLite storage in Dagster's layout, without waiting for the disk at every event; leave these lines out for Dagster's own.
storage:
  custom:
    module: molmo2_assets.graph.history
    class: KeptHistory
    config:
      base_dir:
        env: DAGSTER_HOME
YAML
}
if ! { _molmo2_write_yaml; } 2>/dev/null; then
    rm -f "$DAGSTER_HOME/dagster.yaml.$$" 2>/dev/null
    unset -f _molmo2_write_yaml
    echo "activate.sh: cannot write $DAGSTER_HOME; free some space, or set MOLMO2_HOME to a folder that you may write." >&2
    return 1
fi
unset -f _molmo2_write_yaml
