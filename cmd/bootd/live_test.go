package main

import (
	"testing"

	"bootd/boot"
)

func TestLastStage(t *testing.T) {
	for _, c := range []struct {
		image  bool
		family boot.Family
		joins  bool
		want   boot.Stage
	}{
		{false, "", false, boot.Script},
		{false, "", true, boot.Script},
		{true, boot.FedoraCoreOS, false, boot.Up},
		{true, boot.FedoraCoreOS, true, boot.Ready},
		{true, boot.Flatcar, true, boot.Ready},
		{true, boot.Linux, false, boot.Initrd},
		{true, boot.Linux, true, boot.Initrd},
	} {
		if got := lastStage(c.image, c.family, c.joins); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}
