package ignition_test

import (
	"testing"

	"bootd/boot"
	"bootd/ignition"
)

func BenchmarkPrepare(b *testing.B) {
	p := typical()
	for b.Loop() {
		if _, err := ignition.Prepare(p, boot.FedoraCoreOS); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRender(b *testing.B) {
	t, err := ignition.Prepare(typical(), boot.FedoraCoreOS)
	if err != nil {
		b.Fatal(err)
	}
	for name, max := range map[string]ignition.Version{"own": ignition.Newest, "older": {Major: 3, Minor: 3}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r, err := t.Render(worker)
				if err != nil {
					b.Fatal(err)
				}
				if _, _, err := r.For(max); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// typical is a profile as people write them: a few keys, and a fragment with
// files, units and a file system.
func typical() *boot.Profile {
	return &boot.Profile{
		Name:    "worker",
		SSHKeys: []string{"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ one@example", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK two@example"},
		Files: []boot.File{
			{Path: "/etc/motd", Contents: "a diskless node\n"},
			{Path: "/etc/docker/daemon.json", Contents: `{"log-driver": "journald"}`, Mode: 0o600},
			{Path: "/opt/bin/agent", Source: "https://files.example.com/agent", SHA256: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", Mode: 0o755},
		},
		Units: []boot.Unit{{Name: "agent.service", Enabled: new(true), Contents: "[Service]\nExecStart=/opt/bin/agent\n[Install]\nWantedBy=multi-user.target\n"}},
		Butane: []boot.Fragment{{
			Origin: boot.Origin{File: "profiles/worker.yaml", Line: 7, Column: 3},
			Text: `variant: fcos
version: 1.6.0
passwd:
  users:
    - name: ops
      groups: [docker]
      ssh_authorized_keys: [ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIL ops@example]
storage:
  files:
    - path: /etc/sysctl.d/90-net.conf
      contents:
        inline: |
          net.ipv4.ip_forward=1
          net.core.somaxconn=4096
    - path: /etc/modules-load.d/net.conf
      contents: {inline: "br_netfilter\n"}
  filesystems:
    - device: /dev/disk/by-label/var
      label: var
      path: /var
      format: xfs
      wipe_filesystem: false
      with_mount_unit: true
systemd:
  units:
    - name: cleanup.timer
      enabled: true
      contents: |
        [Timer]
        OnCalendar=daily
        [Install]
        WantedBy=timers.target
    - name: docker.service
      dropins:
        - name: 10-limits.conf
          contents: |
            [Service]
            LimitNOFILE=1048576
`}},
	}
}

var worker = ignition.Node{
	Hostname:  "node1",
	ReportURL: "http://10.0.0.1:8080/report/AgBSVAASNFYx",
	Join:      &ignition.Join{Addr: "10.0.0.1:2377", Token: "SWMTKN-1-3pu6hszjas19xyp7ghgosyx9k8atbfcr8p2is99znpy26u2lkl-1awxwuwd3z9j1z3puu7rcgdbx", Availability: "drain"},
}
