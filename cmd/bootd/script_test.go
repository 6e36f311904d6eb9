package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/rogpeppe/go-internal/testscript"

	"bootd/assets"
	"bootd/boot"
	"bootd/internal/client"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"bootd": main})
}

// TestScripts runs the program as operators do: each script in testdata/script
// is one subject of the command line.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":      exits,
			"eventually": eventually,
			"image":      makeImage,
			"mirror":     startMirror,
			"power":      reportPower,
			"bmc":        startBMC,
			"same":       sameLine,
			"endpoint":   findEndpoint,
			"first":      firstWord,
			"esxi":       startESXi,
		},
		Condition: func(cond string) (bool, error) {
			if cond == "photon" {
				return os.Getenv("PHOTON_CLI") != "", nil
			}
			return false, fmt.Errorf("there is no condition %q", cond)
		},
		Setup: func(e *testscript.Env) error {
			e.Setenv("PHOTON", os.Getenv("PHOTON_CLI"))
			e.Setenv("HOME", e.WorkDir)
			return nil
		},
	})
}

// exits runs a command that must end with an exit status: exits 3 bootd check.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	if err != nil || neg {
		ts.Fatalf("usage: exits STATUS COMMAND...")
	}
	got := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("cannot run %s: %v", args[1], err)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

// eventually repeats a command until it succeeds and its output matches, for
// what another process does in its own time.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	pattern := regexp.MustCompile("(?m)" + args[0])
	deadline := time.Now().Add(time.Minute)
	for {
		err := ts.Exec(args[1], args[2:]...)
		if err == nil && pattern.MatchString(ts.ReadFile("stdout")) != neg {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("it did not come to that: %v", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// kernelFor is as much of a kernel as is looked at: the magic number of its
// processor's boot protocol.
func kernelFor(cpu string) []byte {
	b := make([]byte, 0x400)
	if cpu == "aarch64" {
		copy(b[0x38:], "ARM\x64")
	} else {
		copy(b[0x202:], "HdrS")
	}
	return b
}

// makeImage makes an image in a directory: image DIR VERSION CPU.
func makeImage(ts *testscript.TestScript, _ bool, args []string) {
	dir, version, cpu := ts.MkAbs(args[0]), args[1], args[2]
	ts.Check(os.MkdirAll(dir, 0o755))
	for name, data := range map[string][]byte{
		"kernel." + cpu:             kernelFor(cpu),
		"initramfs." + cpu + ".img": []byte("initramfs " + version),
		"rootfs." + cpu + ".img":    []byte("rootfs " + version),
	} {
		ts.Check(os.WriteFile(filepath.Join(dir, "lab-"+version+"-live-"+name), data, 0o644))
	}
}

// startMirror serves a signed release of Fedora CoreOS like Fedora's own server,
// puts the key into DIR, and the server's address into $MIRROR: mirror DIR
// VERSION.
func startMirror(ts *testscript.TestScript, _ bool, args []string) {
	version := args[1]
	key, err := openpgp.NewEntity("Test Images", "", "images@example.org",
		&packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, DefaultHash: crypto.SHA256})
	ts.Check(err)
	keys := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(keys, 0o755))
	var public bytes.Buffer
	w, err := armor.Encode(&public, openpgp.PublicKeyType, nil)
	ts.Check(err)
	ts.Check(errors.Join(key.Serialize(w), w.Close()))
	ts.Check(os.WriteFile(filepath.Join(keys, fmt.Sprintf("%016X.asc", key.PrimaryKey.KeyId)), public.Bytes(), 0o644))

	type object = map[string]any
	files, pxe := map[string][]byte{}, object{}
	for role, data := range map[string][]byte{"kernel": kernelFor("x86_64"), "initramfs": []byte("initramfs"), "rootfs": []byte("rootfs")} {
		path := fmt.Sprintf("/prod/streams/stable/builds/%s/x86_64/fedora-coreos-%s-live-%s.x86_64", version, version, role)
		if role != "kernel" {
			path += ".img"
		}
		var sig bytes.Buffer
		ts.Check(openpgp.DetachSign(&sig, key, bytes.NewReader(data), nil))
		files[path], files[path+".sig"] = data, sig.Bytes()
		at := assets.CoreOSBase + path
		pxe[role] = object{"location": at, "signature": at + ".sig", "sha256": fmt.Sprintf("%x", sha256.Sum256(data))}
	}
	files["/streams/stable.json"], err = json.Marshal(object{
		"stream": "stable", "metadata": object{"last-modified": "2026-01-01T00:00:00Z"},
		"architectures": object{"x86_64": object{"artifacts": object{"metal": object{"release": version, "formats": object{"pxe": pxe}}}}},
	})
	ts.Check(err)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, ok := files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}))
	ts.Defer(server.Close)
	ts.Setenv("MIRROR", server.URL)
}

// reportPower tells a server that a machine was switched on: power SOCKET MAC.
func reportPower(ts *testscript.TestScript, _ bool, args []string) {
	mac, err := boot.ParseMAC(args[1])
	ts.Check(err)
	ts.Check(client.New(ts.MkAbs(args[0])).Report(context.Background(), boot.Event{Time: time.Now(), MAC: mac, Stage: boot.Power}))
}
