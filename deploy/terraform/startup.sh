#!/usr/bin/env bash
# Installs the NVIDIA driver, Docker and the NVIDIA container toolkit on Ubuntu 22.04.
# Google's guest agent runs it as root at every boot; what is there already is left
# alone. Its output: sudo journalctl -u google-startup-scripts
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive

metadata() {
  curl -sf -H 'Metadata-Flavor: Google' "http://metadata.google.internal/computeMetadata/v1/instance/attributes/$1"
}

step() { echo "lbd startup: $*"; }

# Another apt (unattended upgrades) may hold the lock during the first minutes.
apt_get() { apt-get -o DPkg::Lock::Timeout=600 -y "$@"; }

install_driver() {
  local branch
  branch=$(metadata nvidia-driver)
  step "NVIDIA driver $branch"
  apt_get update
  # The fabric manager brings NVSwitch up and must be of the driver's very version.
  apt_get install "linux-headers-$(uname -r)" "nvidia-driver-$branch-server" "nvidia-fabricmanager-$branch"
  modprobe nvidia
  # Where the host manages the switches it finds none and ends; CUDA works all the same.
  systemctl enable --now nvidia-fabricmanager || step "no fabric manager: no switches to manage"
}

install_docker() {
  step "Docker"
  install -m 0755 -d /etc/apt/keyrings
  curl -fsSL https://download.docker.com/linux/ubuntu/gpg -o /etc/apt/keyrings/docker.asc
  chmod a+r /etc/apt/keyrings/docker.asc
  # shellcheck source=/dev/null
  echo "deb [arch=amd64 signed-by=/etc/apt/keyrings/docker.asc] https://download.docker.com/linux/ubuntu $(. /etc/os-release && echo "$VERSION_CODENAME") stable" \
    >/etc/apt/sources.list.d/docker.list
  apt_get update
  apt_get install docker-ce docker-ce-cli containerd.io docker-buildx-plugin docker-compose-plugin
}

install_toolkit() {
  step "NVIDIA container toolkit"
  curl -fsSL https://nvidia.github.io/libnvidia-container/gpgkey |
    gpg --dearmor --yes -o /etc/apt/keyrings/nvidia-container-toolkit.gpg
  echo "deb [signed-by=/etc/apt/keyrings/nvidia-container-toolkit.gpg] https://nvidia.github.io/libnvidia-container/stable/deb/amd64 /" \
    >/etc/apt/sources.list.d/nvidia-container-toolkit.list
  apt_get update
  apt_get install nvidia-container-toolkit
  nvidia-ctk runtime configure --runtime=docker
  systemctl restart docker
}

nvidia-smi >/dev/null 2>&1 || install_driver
docker compose version >/dev/null 2>&1 || install_docker
command -v nvidia-ctk >/dev/null || install_toolkit
nvidia-smi --query-gpu=index,name,driver_version --format=csv,noheader
step "ready: scripts/deploy.sh baseline"
