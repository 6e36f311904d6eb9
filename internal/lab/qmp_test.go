package lab

import (
	"bufio"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
)

// What QEMU 7.2 says, with an event in between.
func TestQMP(t *testing.T) {
	const greeting = `{"QMP": {"version": {"qemu": {"micro": 18, "minor": 2, "major": 7}, "package": ""}, "capabilities": ["oob"]}}` + "\r\n"
	for name, tt := range map[string]struct {
		says []string // at the connection, then after each line
		want string   // of the error; empty: none
	}{
		"done":        {[]string{greeting, `{"return": {}}`, `{"timestamp": {"seconds": 1}, "event": "POWERDOWN"}` + "\r\n" + `{"return": {}}`}, ""},
		"refused":     {[]string{greeting, `{"return": {}}`, `{"error": {"class": "CommandNotFound", "desc": "The command x has not been found"}}`}, "has not been found"},
		"hangs up":    {[]string{greeting, `{"return": {}}`}, "system_powerdown"},
		"no greeting": {[]string{`{"hello": 1}`}, "no greeting"},
		"not JSON":    {[]string{"220 smtp ready\r\n"}, "cannot talk to QEMU"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "qmp")
			listener, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			heard := make(chan string, 1)
			go func() { heard <- speak(listener, tt.says) }()
			err = qmp(t.Context(), path, "system_powerdown")
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("qmp: %v, want %q", err, tt.want)
			}
			const all = `{"execute":"qmp_capabilities"}` + "\n" + `{"execute":"system_powerdown"}` + "\n"
			if got := <-heard; tt.want == "" && got != all {
				t.Errorf("QEMU heard %q", got)
			}
		})
	}
}

// speak plays QEMU for one client and returns what the client said.
func speak(l net.Listener, says []string) string {
	c, err := l.Accept()
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	var heard strings.Builder
	in := bufio.NewReader(c)
	for i, s := range says {
		if i > 0 {
			line, err := in.ReadString('\n')
			if err != nil {
				break
			}
			heard.WriteString(line)
		}
		if _, err := io.WriteString(c, s); err != nil {
			break
		}
	}
	return heard.String()
}
