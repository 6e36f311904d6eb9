package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"
)

// qmp sends one command to a machine's QEMU and waits for the answer.
// Protocol: QEMU's docs/interop/qmp-spec: a greeting, qmp_capabilities, then
// commands; events come in between and are skipped.
func qmp(ctx context.Context, socket, execute string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("cannot reach QEMU: %w", err)
	}
	defer c.Close()
	if end, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(end); err != nil {
			return fmt.Errorf("cannot reach QEMU: %w", err)
		}
	}
	in, out := json.NewDecoder(c), json.NewEncoder(c)
	var greeting struct {
		QMP json.RawMessage `json:"QMP"`
	}
	if err := in.Decode(&greeting); err != nil {
		return fmt.Errorf("cannot talk to QEMU: %w", err)
	}
	if greeting.QMP == nil {
		return errors.New("cannot talk to QEMU: no greeting")
	}
	for _, x := range []string{"qmp_capabilities", execute} {
		if err := out.Encode(map[string]string{"execute": x}); err != nil {
			return fmt.Errorf("cannot send %s to QEMU: %w", x, err)
		}
		if err := answer(in, x); err != nil {
			return err
		}
	}
	return nil
}

// answer reads up to the answer to the last command.
func answer(in *json.Decoder, execute string) error {
	for {
		var m struct {
			Return json.RawMessage `json:"return"`
			Error  *struct {
				Desc string `json:"desc"`
			} `json:"error"`
		}
		if err := in.Decode(&m); err != nil {
			return fmt.Errorf("cannot read QEMU's answer to %s: %w", execute, err)
		}
		switch {
		case m.Error != nil:
			return fmt.Errorf("QEMU refuses %s: %s", execute, m.Error.Desc)
		case m.Return != nil:
			return nil
		}
	}
}
