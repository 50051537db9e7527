# One machine with eight H100 80GB for compose/baseline.yml and compose/managed.yml.

locals {
  region = join("-", slice(split("-", var.zone), 0, 2))
}

resource "google_compute_network" "lbd" {
  name                    = var.name
  auto_create_subnetworks = false
}

resource "google_compute_subnetwork" "lbd" {
  name          = var.name
  region        = local.region
  network       = google_compute_network.lbd.id
  ip_cidr_range = "10.20.0.0/24"
}

resource "google_compute_firewall" "lbd" {
  name          = "${var.name}-allowed-addresses"
  network       = google_compute_network.lbd.name
  direction     = "INGRESS"
  source_ranges = var.allowed_addresses
  target_tags   = [var.name]

  allow {
    protocol = "tcp"
    # SSH, the six replicas, baseline, managed.
    ports = ["22", "8001-8006", "8080", "8081"]
  }
}

resource "google_compute_instance" "lbd" {
  name         = var.name
  machine_type = "a3-highgpu-8g"
  zone         = var.zone
  tags         = [var.name]

  boot_disk {
    initialize_params {
      image = "ubuntu-os-cloud/ubuntu-2204-lts"
      type  = "pd-ssd"
      size  = var.disk_size_gb
    }
  }

  network_interface {
    subnetwork = google_compute_subnetwork.lbd.id
    nic_type   = "GVNIC"
    access_config {}
  }

  # GPUs cannot move to another host.
  scheduling {
    on_host_maintenance = "TERMINATE"
    automatic_restart   = !var.spot
    preemptible         = var.spot
    provisioning_model  = var.spot ? "SPOT" : "STANDARD"
  }

  dynamic "reservation_affinity" {
    for_each = var.reservation == "" ? [] : [var.reservation]
    content {
      type = "SPECIFIC_RESERVATION"
      specific_reservation {
        key    = "compute.googleapis.com/reservation-name"
        values = [reservation_affinity.value]
      }
    }
  }

  metadata = {
    enable-oslogin = "TRUE"
    nvidia-driver  = var.nvidia_driver
    startup-script = file("${path.module}/startup.sh")
  }
}
