package ignition

import (
	"cmp"
	_ "embed"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/ignition/v2/config/v3_6/types"
	"github.com/vincent-petithory/dataurl"
)

// A Node is what is different from one node of a profile to the next.
type Node struct {
	Hostname string // as in RFC 1123
	// ReportURL is where the node tells how far it has come; empty: it does
	// not. It may carry a ticket: only root can read it on the node.
	ReportURL string
	Join      *Join // nil: the node joins no swarm
}

// A Join says how a node joins its swarm.
type Join struct {
	Addr         string // of a manager: 10.0.0.1:2377
	Token        string // the secret that makes the node a worker or a manager
	Availability string // active (when empty), pause or drain
	// Leave is how long the node waits, when it is shut down, until bootd has
	// moved its tasks elsewhere; 0: a minute.
	Leave time.Duration
}

// margin is how much longer the node waits than bootd does.
const margin = 15 * time.Second

// Request is what the node asks its engine to join with: the body of POST
// /swarm/join.
func (j Join) Request() ([]byte, error) {
	s, err := j.request()
	return []byte(s), err
}

// unit is the unit that joins and leaves. It gives the leaving as long as it
// may take, and the engine its own time to answer.
func (j Join) unit() string {
	wait := cmp.Or(j.Leave, time.Minute) + margin
	return strings.NewReplacer(
		"@LEAVE@", strconv.Itoa(int(wait.Seconds())),
		"@STOP@", strconv.Itoa(int((wait + margin).Seconds())),
	).Replace(swarmUnit)
}

// What the node runs, as files so that they can be read and tried.
var (
	//go:embed node/report.sh
	reportScript string
	//go:embed node/swarm.sh
	swarmScript string
	//go:embed node/bootd-report.service
	reportUnit string
	//go:embed node/bootd-swarm.service
	swarmUnit string
)

// The places of what bootd writes to a node. The scripts and units name the
// folder too.
const (
	hostnamePath  = "/etc/hostname"
	reportURLPath = "/etc/bootd/report-url"
	reportPath    = "/etc/bootd/report.sh"
	swarmJoinPath = "/etc/bootd/swarm-join.json"
	swarmPath     = "/etc/bootd/swarm.sh"
)

// config makes the lowest layer of the node's config. It uses nothing that is
// newer than Oldest.
func (n Node) config() (types.Config, error) {
	var c types.Config
	if err := checkHostname(n.Hostname); err != nil {
		return c, err
	}
	if err := checkReportURL(n.ReportURL); err != nil {
		return c, fmt.Errorf("cannot render node %s: %w", n.Hostname, err)
	}
	c.Ignition.Version = Newest.String()
	c.Storage.Files = []types.File{textFile(hostnamePath, 0o644, n.Hostname+"\n")}
	if n.ReportURL != "" || n.Join != nil {
		c.Storage.Files = append(c.Storage.Files,
			textFile(reportURLPath, 0o600, n.ReportURL+"\n"),
			textFile(reportPath, 0o755, reportScript))
	}
	if n.ReportURL != "" {
		c.Systemd.Units = append(c.Systemd.Units, enabledUnit("bootd-report.service", reportUnit))
	}
	if n.Join == nil {
		return c, nil
	}
	request, err := n.Join.request()
	if err != nil {
		return c, fmt.Errorf("cannot render node %s: %w", n.Hostname, err)
	}
	c.Storage.Files = append(c.Storage.Files,
		textFile(swarmJoinPath, 0o600, request),
		textFile(swarmPath, 0o755, swarmScript))
	c.Systemd.Units = append(c.Systemd.Units,
		enabledUnit("bootd-swarm.service", n.Join.unit()),
		// CoreOS starts the engine when something connects to its socket,
		// which on a node that has just rebooted may be never.
		types.Unit{Name: "docker.service", Enabled: new(true)})
	return c, nil
}

// request is the body of the engine's POST /swarm/join (Docker Engine API
// v1.40, SwarmJoin).
func (j Join) request() (string, error) {
	host, port, err := net.SplitHostPort(j.Addr)
	if n, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || n == 0 || host == "" {
		return "", fmt.Errorf("the swarm manager's address %q is not of the form 10.0.0.1:2377", j.Addr)
	}
	if j.Token == "" || strings.ContainsFunc(j.Token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("the join token of the swarm at %s is empty or damaged", j.Addr)
	}
	switch j.Availability {
	case "", "active", "pause", "drain":
	default:
		return "", fmt.Errorf("the availability %q is none of active, pause, drain", j.Availability)
	}
	b, err := json.Marshal(struct {
		ListenAddr   string
		RemoteAddrs  []string
		JoinToken    string
		Availability string `json:",omitempty"`
	}{"0.0.0.0:2377", []string{j.Addr}, j.Token, j.Availability})
	return string(b) + "\n", err
}

// checkHostname tells whether name can be a node's name: labels of letters,
// digits and inner hyphens (RFC 1123 section 2.1), and no longer than Linux
// keeps (HOST_NAME_MAX).
func checkHostname(name string) error {
	const maxName, maxLabel = 64, 63
	if name == "" || len(name) > maxName {
		return fmt.Errorf("cannot render node %.80q: a host name has 1 to %d characters", name, maxName)
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > maxLabel || label[0] == '-' || label[len(label)-1] == '-' || strings.ContainsFunc(label, notInHostname) {
			return fmt.Errorf("cannot render node %q: a host name is made of letters, digits and inner hyphens, in parts of 1 to %d characters between dots", name, maxLabel)
		}
	}
	return nil
}

func notInHostname(r rune) bool {
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-')
}

func checkReportURL(s string) error {
	if s == "" {
		return nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.ContainsAny(s, " \t\r\n\\") {
		return fmt.Errorf("the report address %q is not an http URL", s)
	}
	return nil
}

// textFile is a file that replaces the image's. Its text stays readable in
// the config, so it is not compressed.
func textFile(path string, mode int, text string) types.File {
	var f types.File
	f.Path, f.Mode, f.Overwrite = path, &mode, new(true)
	f.Contents.Source, f.Contents.Compression = new("data:,"+dataurl.EscapeString(text)), new("")
	return f
}

func enabledUnit(name, text string) types.Unit {
	return types.Unit{Name: name, Enabled: new(true), Contents: &text}
}
