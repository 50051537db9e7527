// Package deploy holds what is installed on machines: Terraform for eight H100 on
// Google Cloud and a systemd unit, and the tests that check them with terraform,
// systemd-analyze and shellcheck where these are installed.
//
// Invariant: no port is open to the world unless somebody writes so.
//
//	terraform -chdir=deploy/terraform apply -var project=P -var 'allowed_addresses=["203.0.113.7/32"]'
package deploy
