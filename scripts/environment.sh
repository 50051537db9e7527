# shellcheck shell=bash
# What deploy.sh, teardown.sh, test_env.sh and benchmark_all_models.sh share: the
# facts about the environments in compose/, and checks that say how to mend what is
# missing. It is sourced, not run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
gpu_environments=(baseline managed shared-gpu)
environments=("${gpu_environments[@]}" sim)

# fail MESSAGE [HINT...] ends the script.
fail() {
  printf 'error: %s\n' "$1" >&2
  shift
  [ $# -eq 0 ] || printf '  %s\n' "$@" >&2
  exit 1
}

step() { printf '== %s\n' "$*"; }

# member WORD LIST... tells whether the word is in the list.
member() {
  local word=$1 other
  shift
  for other; do [ "$word" = "$other" ] && return 0; done
  return 1
}

# known ENV ends the script unless the environment exists.
known() {
  member "$1" "${environments[@]}" || fail "environment \"$1\"; want one of: ${environments[*]}"
}

on_gpus() { member "$1" "${gpu_environments[@]}"; }

# lbs ENV lists the lbds of an environment as "NAME PORT".
lbs() {
  case $1 in
    baseline) echo "baseline-lb 8080" ;;
    managed) echo "managed-lb 8081" ;;
    shared-gpu) echo "shared-gpu-lb 8082" ;;
    sim) printf '%s\n' "baseline-lb 8080" "managed-lb 8081" ;;
  esac
}

# ports ENV lists every port that an environment publishes.
ports() {
  case $1 in
    baseline) echo 8001 8002 8003 8004 8005 8006 8080 ;;
    managed) echo 8001 8002 8003 8004 8005 8006 8081 ;;
    shared-gpu) echo 8001 8002 8003 8082 ;;
    sim) echo 8001 8002 8003 8004 8005 8006 8011 8012 8013 8014 8015 8016 8080 8081 ;;
  esac
}

# setting NAME prints a variable: from the environment, else from compose/.env.
setting() {
  local value=${!1:-}
  if [ -z "$value" ] && [ -r "$root/compose/.env" ]; then
    value=$(sed -n "s/^[[:space:]]*$1=//p" "$root/compose/.env" | tail -n 1)
    value=${value%\"} value=${value#\"} value=${value%\'} value=${value#\'}
  fi
  printf '%s' "$value"
}

# compose ENV ARGS... runs docker compose on an environment's file.
compose() {
  local env=$1
  shift
  docker compose -f "$root/compose/$env.yml" "$@"
}

# containers ENV [FLAG...] lists the ids of an environment's running containers.
containers() {
  local env=$1
  shift
  docker ps -q --filter "label=com.docker.compose.project=lbd-$env" "$@"
}

need_docker() {
  command -v docker >/dev/null || fail "docker is missing" \
    "install Docker Engine: https://docs.docker.com/engine/install/"
  local problem
  if ! problem=$(docker info --format '{{.ServerVersion}}' 2>&1); then
    case $problem in
      *"permission denied"*) fail "you may not talk to the Docker daemon" \
        "sudo usermod -aG docker \"\$USER\", then log in again" ;;
      *) fail "the Docker daemon does not answer: ${problem##*$'\n'}" "sudo systemctl start docker" ;;
    esac
  fi
  # 2.24 is the first that builds an image once for all services that name it.
  local version
  version=$(docker compose version --short 2>/dev/null) || fail "Docker Compose v2 is missing" \
    "sudo apt-get install docker-compose-plugin, or https://docs.docker.com/compose/install/linux/"
  version=${version#v}
  local major=${version%%.*} minor=${version#*.}
  minor=${minor%%.*}
  if [ "$major" -lt 2 ] || { [ "$major" -eq 2 ] && [ "$minor" -lt 24 ]; }; then
    fail "Docker Compose is $version; want 2.24 or newer" "sudo apt-get install --only-upgrade docker-compose-plugin"
  fi
}

# need_curl: the checks over HTTP need nothing else.
need_curl() {
  command -v curl >/dev/null || fail "curl is missing" "sudo apt-get install curl"
}

# models PORT lists the models behind an lbd as "NAME REPLICAS HEALTHY".
models() {
  curl -s --max-time 5 "http://localhost:$1/health" |
    grep -o '"[^"]*":{"replicas":[0-9]*,"healthy":[0-9]*}' |
    sed 's/^"\(.*\)":{"replicas":\([0-9]*\),"healthy":\([0-9]*\)}$/\1 \2 \3/' || true
}
