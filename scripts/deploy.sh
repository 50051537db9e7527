#!/usr/bin/env bash
# Starts an environment and waits until all of it is healthy.
set -euo pipefail
# shellcheck source=scripts/environment.sh
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

usage() {
  cat <<'END'
Usage: scripts/deploy.sh ENV [--monitoring] [--timeout SECONDS]

Starts ENV, which is baseline, managed, shared-gpu or sim, and waits until every
container is healthy. It checks first what is needed. Once more is harmless: what
runs as it should is left alone.

  --monitoring       with Prometheus (localhost:9090) and Grafana (localhost:3000)
  --timeout SECONDS  give up waiting after so long (default: 5400, sim 120); what
                     was started goes on
END
}

env='' profile=() timeout=''
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit ;;
    --monitoring) profile=(--profile monitoring) ;;
    --timeout)
      timeout=${2:-}
      [[ $timeout =~ ^[0-9]+$ ]] || fail "--timeout \"$timeout\"; want a number of seconds"
      shift
      ;;
    -*) fail "unknown flag $1" "scripts/deploy.sh --help" ;;
    *)
      [ -z "$env" ] || fail "two environments, $env and $1; want one"
      env=$1
      ;;
  esac
  shift
done
[ -n "$env" ] || { usage >&2; exit 1; }
known "$env"
[ -n "$timeout" ] || timeout=$(on_gpus "$env" && echo 5400 || echo 120)

need_gpus() {
  local want=8 have
  [ "$env" != shared-gpu ] || want=$(($(setting SHARED_GPU) + 1))
  command -v nvidia-smi >/dev/null || fail "nvidia-smi is missing: there is no NVIDIA driver" \
    "without a GPU: scripts/deploy.sh sim"
  have=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU ' || true)
  [ "$have" -ge "$want" ] || fail "$have GPUs; $env wants $want" "without them: scripts/deploy.sh sim"
  docker info --format '{{json .Runtimes}}' | grep -q '"nvidia"' || fail "Docker has no nvidia runtime" \
    "install nvidia-container-toolkit, then" \
    "sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker"
}

# One environment at a time can have the GPUs, and most ports are the same.
need_to_be_alone() {
  local other
  for other in "${environments[@]}"; do
    if [ "$other" != "$env" ] && [ -n "$(containers "$other")" ]; then
      fail "$other is running; only one environment at a time can have the GPUs and the ports" "scripts/teardown.sh $other"
    fi
  done
  if on_gpus "$env" && [ -z "$(containers "$env")" ]; then
    local others
    others=$(nvidia-smi --query-compute-apps=pid,process_name --format=csv,noheader 2>/dev/null || true)
    [ -z "$others" ] || fail "other processes are on the GPUs: ${others//$'\n'/; }" "end them first: they would spoil every figure"
  fi
}

need_ports() {
  [ -z "$(containers "$env")" ] || return 0 # they are our own
  local port holder
  for port in $(ports "$env"); do
    if ss -Htln "sport = :$port" 2>/dev/null | grep -q .; then
      holder=$(docker ps --filter "publish=$port" --format '{{.Names}}')
      fail "port $port is taken${holder:+ by the container $holder}" "${holder:+docker stop $holder, or }see: sudo ss -tlnp 'sport = :$port'"
    fi
  done
}

# A token that may not read a model is known now, not after an image of 10 GB.
need_token() {
  local token model code
  token=$(setting HF_TOKEN)
  [ -n "$token" ] || fail "HF_TOKEN is not set" \
    "cp compose/.env.example compose/.env, and put a token of https://huggingface.co/settings/tokens there"
  command -v curl >/dev/null || return 0
  local gated=(meta-llama/Llama-3.1-8B-Instruct)
  [ "$env" = shared-gpu ] || gated+=(mistralai/Mixtral-8x7B-Instruct-v0.1)
  for model in "${gated[@]}"; do
    # The header comes from a file: a command line is for all to see.
    code=$(printf 'Authorization: Bearer %s\n' "$token" |
      curl -sL -o /dev/null -w '%{http_code}' --max-time 10 -H @- "https://huggingface.co/$model/resolve/main/config.json" || true)
    case $code in
      401 | 403) fail "the token may not read $model (HTTP $code)" "accept its licence on https://huggingface.co/$model, with the account of the token" ;;
      200) ;;
      *) echo "note: huggingface.co gave no clear answer about $model (HTTP $code); the models must be in the cache" ;;
    esac
  done
}

# Gigabytes: 125 of models (shared-gpu 38) and 30 of images; when the cache is
# there already, the images.
need_disk() {
  local want=1 dir free
  dir=$(docker info --format '{{.DockerRootDir}}')
  if on_gpus "$env"; then
    want=155
    [ "$env" != shared-gpu ] || want=70
    local cache
    cache=$(setting HF_CACHE)
    if [ -n "$cache" ] && [ "$cache" != huggingface ]; then
      [ -d "$cache" ] && dir=$cache
      [ -z "$(ls -A "$cache/hub" 2>/dev/null || true)" ] || want=30
    elif docker volume inspect huggingface >/dev/null 2>&1; then
      want=30
    fi
  fi
  want=${LBD_MIN_DISK_GB:-$want}
  free=$(df -Pk "$dir" 2>/dev/null | awk 'NR == 2 { printf "%d", $4 / 1e6 }')
  [ -z "$free" ] || [ "$free" -ge "$want" ] || fail "$free GB are free in $dir; want $want" \
    "make room (docker system prune), put HF_CACHE of compose/.env on another disk," \
    "or say LBD_MIN_DISK_GB=$free if you know better"
}

# show_log CONTAINER prints the end of a log, indented.
show_log() { docker logs --tail 15 "$1" 2>&1 | sed 's/^/    /' >&2 || true; }

# states lists every container as "NAME STATE HEALTH RESTARTS".
states() {
  local ids
  ids=$(compose "$env" "${profile[@]}" ps -aq)
  # shellcheck disable=SC2086 # ids are words
  docker inspect --format '{{.Name}} {{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}} {{.RestartCount}}' $ids |
    sed 's/^\///'
}

# await watches the containers until all are healthy.
await() {
  local name state health restarts now last_note=0 waiting total
  declare -A seen=()
  while :; do
    waiting=() total=0
    while read -r name state health restarts; do
      total=$((total + 1))
      [ "$state $health" != "running none" ] || health=healthy
      if [ "${seen[$name]:-}" != "$state $health" ]; then
        printf '%5d s  %-28s %s\n' "$SECONDS" "$name" "$([ "$state" = running ] && echo "$health" || echo "$state")"
        seen[$name]="$state $health"
      fi
      # With restart: unless-stopped a container that dies is seen as restarting.
      if [ "$state" = exited ] || [ "$state" = dead ] || [ "$restarts" -ge 3 ]; then
        show_log "$name"
        fail "$name does not stay up ($state, $restarts restarts); the end of its log is above" "after mending: scripts/deploy.sh $env"
      fi
      # An lbd is unhealthy as long as no replica is healthy: wait for those.
      if [ "$health" = unhealthy ] && [[ $name != *-lb ]]; then
        show_log "$name"
        fail "$name is unhealthy; the end of its log is above" "docker logs $name"
      fi
      [ "$health" = healthy ] || waiting+=("$name")
    done < <(states)
    if [ "$total" -gt 0 ] && [ ${#waiting[@]} -eq 0 ]; then
      return
    fi
    now=$SECONDS
    [ "$now" -lt "$timeout" ] || fail "after $timeout s these are not healthy: ${waiting[*]}" \
      "they go on loading; look: docker logs -f ${waiting[0]:-}" "wait longer: scripts/deploy.sh $env --timeout $((timeout * 2))"
    if [ $((now - last_note)) -ge 60 ]; then
      printf '%5d s  %d of %d healthy; waiting for %s\n' "$now" $((total - ${#waiting[@]})) "$total" "${waiting[*]}"
      last_note=$now
    fi
    sleep 2
  done
}

step "checking what $env needs"
need_docker
if on_gpus "$env"; then
  need_gpus
fi
need_to_be_alone
need_ports
if on_gpus "$env"; then
  need_token
fi
need_disk

step "starting $env"
compose "$env" "${profile[@]}" up --detach --build --remove-orphans

step "waiting until all of it is healthy"
SECONDS=0
await

step "$env is up"
while read -r name port; do
  echo "$name  http://localhost:$port"
done < <(lbs "$env")
[ ${#profile[@]} -eq 0 ] || echo "Grafana  http://localhost:3000"
echo "try it:  scripts/test_env.sh $env"
