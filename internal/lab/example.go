package lab

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
)

// The configurations that come with the lab, a folder each, as templates.
//
//go:embed examples
var examples embed.FS

// Demo is the example that is used when nothing else is said: three machines,
// two profiles.
const Demo = "demo"

// Examples names the configurations that come with the lab.
func Examples() []string {
	list, err := examples.ReadDir("examples")
	if err != nil {
		panic(err) // it is part of the program
	}
	var names []string
	for _, d := range list {
		names = append(names, d.Name())
	}
	return names
}

// writeExample writes an example's configuration for the lab to dir.
func (l Lab) writeExample(name, dir, image, sshKey string) error {
	root := path.Join("examples", name)
	if !slices.Contains(Examples(), name) {
		return fmt.Errorf("there is no example %q; there are %s", name, strings.Join(Examples(), ", "))
	}
	values := struct{ Image, Engine, State, Socket, SSHKey string }{
		image, l.Engine(), filepath.Join(l.StateDir(), "bootd"), l.Socket(), sshKey,
	}
	err := fs.WalkDir(examples, root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		to := filepath.Join(dir, rel)
		if d.IsDir() {
			return os.MkdirAll(to, 0o755)
		}
		text, err := examples.ReadFile(p)
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
		return fmt.Errorf("cannot write the configuration of example %s to %s: %w", name, dir, err)
	}
	return nil
}
