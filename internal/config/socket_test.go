package config_test

import (
	"os"
	"path/filepath"
	"testing"

	"bootd/internal/config"
)

func TestSocket(t *testing.T) {
	const usual = "/run/bootd/bootd.sock"
	tests := []struct{ name, text, want string }{
		{"not set", "networks: []\n", usual},
		{"set", "api: {socket: /run/other.sock}\n", "/run/other.sock"},
		{"mistakes elsewhere", "netwroks: []\nunknown: nobody\napi: {socket: /run/other.sock}\n", "/run/other.sock"},
		{"not YAML", "api: {socket: [\n", usual},
		{"no file", "", usual},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if tt.text != "" {
				if err := os.WriteFile(filepath.Join(dir, "bootd.yaml"), []byte(tt.text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if got := config.Socket(dir); got != tt.want {
				t.Errorf("socket %s, want %s", got, tt.want)
			}
		})
	}
}
