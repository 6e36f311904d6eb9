package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"bootd/internal/client"
)

// tell notifies systemd of a state, as sd_notify(3) lists them. Outside systemd
// it does nothing.
func tell(state string, log *slog.Logger) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("systemd was not notified", "state", state, "err", err)
	}
}

// A watchdog tells systemd again and again that the server is well. systemd
// kills and starts anew a server that has not said so for WatchdogSec.
type watchdog struct {
	every time.Duration
	well  func(context.Context) error
	say   func()
	log   *slog.Logger
}

// newWatchdog returns the watchdog that systemd asks for by its environment
// (sd_watchdog_enabled(3)); nil: it asks for none. The server is well when its
// API answers at the socket with its status, which takes the locks that answers
// to machines take, too.
func newWatchdog(socket string, log *slog.Logger) *watchdog {
	within, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("systemd's watchdog is not answered", "err", err)
	}
	if err != nil || within <= 0 {
		return nil
	}
	api := client.New(socket)
	return &watchdog{every: within / 4, log: log, say: func() { tell(daemon.SdNotifyWatchdog, log) },
		well: func(ctx context.Context) error {
			_, err := api.Status(ctx)
			return err
		}}
}

func (w *watchdog) String() string { return "watchdog" }

// Run implements service. One question may take as long as two of the four
// there are before systemd loses its patience.
func (w *watchdog) Run(ctx context.Context) error {
	tick := time.NewTicker(w.every)
	defer tick.Stop()
	for {
		bounded, cancel := context.WithTimeout(ctx, 2*w.every)
		err := w.well(bounded)
		cancel()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			w.log.Error("the server does not answer itself; systemd's watchdog will start it again", "err", err)
		default:
			w.say()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
