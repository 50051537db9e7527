package handover

import (
	"fmt"

	"github.com/coreos/go-systemd/v22/daemon"
)

// What systemd is told, where NOTIFY_SOCKET says that it listens (sd_notify(3)).

// NotifyReady says that this process serves.
func NotifyReady() error { return notify(daemon.SdNotifyReady) }

// NotifyStopping says that it ends. It is not for a process that was succeeded: the
// service goes on.
func NotifyStopping() error { return notify(daemon.SdNotifyStopping) }

// NotifyReloading says that the configuration is read again, until NotifyReady.
func NotifyReloading() error {
	return notify(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, monotonic().Microseconds()))
}

// NotifyMain says that another process is the service from now on.
func NotifyMain(pid int) error {
	return notify(fmt.Sprintf("MAINPID=%d\n%s", pid, daemon.SdNotifyReady))
}

func notify(state string) error {
	if _, err := daemon.SdNotify(false, state); err != nil {
		return fmt.Errorf("NOTIFY_SOCKET: %w", err)
	}
	return nil
}
