package lab

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"text/template"
)

//go:embed demo
var demoFiles embed.FS

// writeDemo writes the demo's configuration: three machines, two profiles.
// The files are those of the folder demo, as templates.
func (l Lab) writeDemo(dir, image, sshKey string) error {
	values := struct{ Image, Engine, State, Socket, SSHKey string }{
		image, l.Engine(), filepath.Join(l.StateDir(), "bootd"), l.Socket(), sshKey,
	}
	err := fs.WalkDir(demoFiles, "demo", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel("demo", p)
		if err != nil {
			return err
		}
		to := filepath.Join(dir, rel)
		if d.IsDir() {
			return os.MkdirAll(to, 0o755)
		}
		text, err := demoFiles.ReadFile(p)
		if err != nil {
			return err
		}
		t, err := template.New(rel).Option("missingkey=error").Parse(string(text))
		if err != nil {
			return err
		}
		var b bytes.Buffer
		if err := t.Execute(&b, values); err != nil {
			return err
		}
		return os.WriteFile(to, b.Bytes(), 0o644)
	})
	if err != nil {
		return fmt.Errorf("cannot write the demo's configuration to %s: %w", dir, err)
	}
	return nil
}
