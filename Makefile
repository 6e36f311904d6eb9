# On a fresh Debian or Ubuntu machine with Go: `make demo` shows what bootd
# does, `make test` tests it. Everything else is below, one command each.

GO      ?= go
SUDO    := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null)
BIN     ?= bin
BOOTD   := $(BIN)/bootd

.PHONY: all build test race check e2e demo demo-down fuzz bench install deb clean

all: build

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o $(BOOTD) ./cmd/bootd

# Every test that needs neither root nor QEMU.
test:
	$(GO) vet ./...
	CGO_ENABLED=0 $(GO) test ./...

# The same under the race detector (needs a C compiler).
race:
	CGO_ENABLED=1 $(GO) test -race -timeout 30m ./...

check:
	@test -z "$$(gofmt -l .)" || { echo "gofmt would change:"; gofmt -l .; exit 1; }
	$(GO) vet ./...
	$(GO) run honnef.co/go/tools/cmd/staticcheck@v0.6.1 ./...

# Power on three diskless machines and see them in `docker node ls`.
demo: build
	$(SUDO) $(BOOTD) lab install
	$(SUDO) $(BOOTD) lab demo

# Remove every trace of the demo.
demo-down: build
	$(SUDO) $(BOOTD) lab down

# All tests again, as root and with every program installed that some of them
# use, then fifty Docker engines at once (ENGINES=10 for fewer), 400 VMs on twenty
# simulated hosts, and those that boot real machines in QEMU.
e2e: build
	$(SUDO) $(BOOTD) lab install --tests
	$(SUDO) env "PATH=$$PATH" BOOTD=$(CURDIR)/$(BOOTD) CGO_ENABLED=0 $(GO) test -count=1 -timeout 30m ./...
	$(SUDO) env "PATH=$$PATH" ENGINES=$(ENGINES) CGO_ENABLED=0 $(GO) test -count=1 -timeout 15m -tags e2e -run TestManyEngines ./internal/swarm
	HOSTS=20 CGO_ENABLED=0 $(GO) test -count=1 -timeout 15m -v -run TestLifeL3 ./internal/controller
	$(SUDO) env "PATH=$$PATH" BOOTD=$(CURDIR)/$(BOOTD) CGO_ENABLED=0 $(GO) test -count=1 -timeout 60m -v -tags e2e ./internal/lab/...

FUZZTIME ?= 30s
fuzz:
	@for p in $$($(GO) list ./...); do \
	  for f in $$(CGO_ENABLED=0 $(GO) test -list '^Fuzz' $$p | grep '^Fuzz'); do \
	    CGO_ENABLED=0 $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$p || exit 1; done; done

# The last of them compare bootd with other servers, as far as those are
# installed: apt-get install kea-dhcp4-server kea-admin dnsmasq-base tftpd-hpa
bench: build
	CGO_ENABLED=0 $(GO) test -run '^$$' -bench . -benchmem ./boot/... ./ignition ./assets $$($(GO) list ./internal/... | grep -v /lab$$)
	$(SUDO) env "PATH=$$PATH" BOOTD=$(CURDIR)/$(BOOTD) CGO_ENABLED=0 $(GO) test -timeout 30m -run '^$$' -bench Peers -benchtime 1x ./internal/lab

# DESTDIR is for who makes a package; without it the user and the directories are
# made at once.
install: build
	install -D -m 755 $(BOOTD) $(DESTDIR)/usr/bin/bootd
	install -D -m 644 systemd/bootd.service $(DESTDIR)/usr/lib/systemd/system/bootd.service
	install -D -m 644 systemd/sysusers.d/bootd.conf $(DESTDIR)/usr/lib/sysusers.d/bootd.conf
	install -D -m 644 systemd/tmpfiles.d/bootd.conf $(DESTDIR)/usr/lib/tmpfiles.d/bootd.conf
	install -D -m 644 internal/metrics/monitoring/dashboard.json $(DESTDIR)/usr/share/bootd/dashboard.json
	install -D -m 644 internal/metrics/monitoring/alerts.yaml $(DESTDIR)/usr/share/bootd/alerts.yaml
	install -d -m 755 $(DESTDIR)/usr/share/man/man1 $(DESTDIR)/usr/share/bash-completion/completions \
	  $(DESTDIR)/usr/share/zsh/vendor-completions $(DESTDIR)/usr/share/fish/vendor_completions.d
	umask 022 && rm -rf $(BIN)/man && $(BOOTD) man $(BIN)/man && gzip -9n $(BIN)/man/*.1
	install -m 644 -t $(DESTDIR)/usr/share/man/man1 $(BIN)/man/*.gz
	$(BOOTD) completion bash > $(DESTDIR)/usr/share/bash-completion/completions/bootd
	$(BOOTD) completion zsh > $(DESTDIR)/usr/share/zsh/vendor-completions/_bootd
	$(BOOTD) completion fish > $(DESTDIR)/usr/share/fish/vendor_completions.d/bootd.fish
	@[ -n "$(DESTDIR)" ] || [ ! -d /run/systemd/system ] || { systemd-sysusers bootd.conf && \
	  systemd-tmpfiles --create bootd.conf && systemctl daemon-reload; }

# $(BIN)/bootd_VERSION_ARCH.deb. nFPM is fetched as a Go module.
NFPM        := github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.43.0
DEB_VERSION ?= $(or $(shell git describe --tags --match 'v[0-9]*' 2>/dev/null | sed 's/^v//; s/-/+/g'),$(shell \
                 git log -1 --date=format:%Y%m%d%H%M%S --format=0~%cd.%h 2>/dev/null),0)
deb:
	rm -rf $(BIN)/root
	umask 022 && $(MAKE) install DESTDIR=$(BIN)/root
	BIN=$(BIN) ARCH="$$($(GO) env GOARCH)" DEB_VERSION="$(DEB_VERSION)" CGO_ENABLED=0 $(GO) run $(NFPM) package -f systemd/deb/nfpm.yaml -p deb -t $(BIN)

clean:
	rm -rf bin
