output "instance_ip" {
  description = "Public address of the machine."
  value       = google_compute_instance.lbd.network_interface[0].access_config[0].nat_ip
}

output "ssh" {
  description = "How to get there."
  value       = "gcloud compute ssh ${google_compute_instance.lbd.name} --project ${var.project} --zone ${var.zone}"
}
