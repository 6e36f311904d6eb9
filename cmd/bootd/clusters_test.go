package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"bootd/internal/api"
	"bootd/internal/esx/vmdk"
	"bootd/internal/photon"
	photonwire "bootd/internal/photon/wire"
)

// TestClusterScripts runs the commands of hosts, images and clusters, and those of the
// photon program, against a controller whose VMs do what their configs say.
func TestClusterScripts(t *testing.T) {
	for _, script := range []string{"clusters", "photon"} {
		t.Run(script, func(t *testing.T) {
			if script == "photon" && os.Getenv("PHOTON_CLI") == "" {
				t.Skip("PHOTON_CLI does not name the photon program")
			}
			s := newGuestSite(t, map[string]string{"bootd.yaml": "controller: {}\nswarm: {}\n"})
			socket, endpoint := s.serve()
			testscript.Run(t, testscript.Params{
				Files:               []string{"testdata/clusters/" + script + ".txtar"},
				UpdateScripts:       *update,
				RequireExplicitExec: true,
				RequireUniqueNames:  true,
				Cmds: map[string]func(*testscript.TestScript, bool, []string){
					"exits": exits, "eventually": eventually, "first": firstWord, "disk": makeDisk,
				},
				Setup: func(e *testscript.Env) error {
					for k, v := range map[string]string{"PHOTON": os.Getenv("PHOTON_CLI"), "HOME": e.WorkDir, "SOCKET": socket, "ENDPOINT": endpoint, "ESXI": s.host.Address()} {
						e.Setenv(k, v)
					}
					return nil
				},
			})
		})
	}
}

// makeDisk makes a stream-optimized VMDK of a megabyte: disk FILE.
func makeDisk(ts *testscript.TestScript, _ bool, args []string) {
	raw, err := io.ReadAll(io.LimitReader(rand.NewChaCha8([32]byte{1}), 1<<20))
	ts.Check(err)
	var b bytes.Buffer
	ts.Check(vmdk.WriteStream(&b, bytes.NewReader(raw), int64(len(raw)), "lsilogic"))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b.Bytes(), 0o644))
}

// serve serves the controller on a socket, and with TLS, until the test ends.
func (s *guestSite) serve() (socket, endpoint string) {
	s.Helper()
	dir := s.TempDir()
	cert, _, err := photon.Certificate(filepath.Join(dir, "controller.pem"), []string{"127.0.0.1"}, time.Now())
	if err != nil {
		s.Fatal(err)
	}
	h := photon.New(photon.Config{Controller: s.control, Authenticate: as("operator"), Version: "1", Log: silent,
		Endpoint: func() photonwire.Endpoint { return photonwire.Endpoint{} }})
	local, err := api.Listen(filepath.Join(dir, "b.sock"), h, silent)
	if err != nil {
		s.Fatal(err)
	}
	public, err := photon.Listen("127.0.0.1:0", cert, h, silent)
	if err != nil {
		s.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- local.Run(ctx) }()
	go func() { ended <- public.Run(ctx) }()
	s.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil && !errors.Is(err, http.ErrServerClosed) {
				s.Error(err)
			}
		}
	})
	return filepath.Join(dir, "b.sock"), "https://" + public.Addr().String()
}
