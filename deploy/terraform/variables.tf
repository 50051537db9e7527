variable "project" {
  description = "Google Cloud project that pays for the machine."
  type        = string
}

variable "zone" {
  description = "A zone that has a3-highgpu-8g and in which the project has quota for eight H100."
  type        = string
  default     = "us-central1-a"
  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+-[a-z]$", var.zone))
    error_message = "zone: want a zone like us-central1-a."
  }
}

# No default: whoever reaches these ports can use the GPUs, and neither vLLM nor lbd
# asks for a password here.
variable "allowed_addresses" {
  description = "Networks that may reach SSH, lbd and the replicas, like [\"203.0.113.7/32\"]."
  type        = list(string)
  validation {
    condition     = length(var.allowed_addresses) > 0
    error_message = "allowed_addresses: want at least your own address, as 203.0.113.7/32."
  }
  validation {
    condition = alltrue([
      for a in var.allowed_addresses : can(cidrhost(a, 0)) && try(tonumber(split("/", a)[1]) >= 8, false)
    ])
    error_message = "allowed_addresses: want networks like 203.0.113.7/32, none wider than /8."
  }
}

variable "name" {
  description = "Name of the machine and of everything that belongs to it."
  type        = string
  default     = "lbd"
}

variable "disk_size_gb" {
  description = "Boot disk. The models take 125 GB, the images 30 GB."
  type        = number
  default     = 500
  validation {
    condition     = var.disk_size_gb >= 250
    error_message = "disk_size_gb: want 250 or more."
  }
}

variable "spot" {
  description = "A spot machine: a fraction of the price, taken away at any time."
  type        = bool
  default     = false
}

variable "reservation" {
  description = "Name of a reservation to use; empty for any."
  type        = string
  default     = ""
}

variable "nvidia_driver" {
  description = "Branch of the NVIDIA driver. 580 runs containers up to CUDA 13."
  type        = string
  default     = "580"
}
