# On a fresh Debian or Ubuntu machine with Go: `make demo` shows what bootd
# does, `make test` tests it. Everything else is below, one command each.

GO      ?= go
SUDO    := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null)
BOOTD   := bin/bootd

.PHONY: all build test race check e2e demo demo-down fuzz bench install clean

all: build

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o $(BOOTD) ./cmd/bootd

# Every test that needs neither root nor QEMU.
test:
	$(GO) vet ./...
	CGO_ENABLED=0 $(GO) test ./...

# The same under the race detector (needs a C compiler).
race:
	CGO_ENABLED=1 $(GO) test -race ./...

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
# use, then fifty Docker engines at once (ENGINES=10 for fewer), then those that
# boot real machines in QEMU.
e2e: build
	$(SUDO) $(BOOTD) lab install --tests
	$(SUDO) env "PATH=$$PATH" BOOTD=$(CURDIR)/$(BOOTD) CGO_ENABLED=0 $(GO) test -count=1 -timeout 30m ./...
	$(SUDO) env "PATH=$$PATH" ENGINES=$(ENGINES) CGO_ENABLED=0 $(GO) test -count=1 -timeout 15m -tags e2e -run TestManyEngines ./internal/swarm
	$(SUDO) env "PATH=$$PATH" BOOTD=$(CURDIR)/$(BOOTD) CGO_ENABLED=0 $(GO) test -count=1 -timeout 60m -v -tags e2e ./internal/lab/...

FUZZTIME ?= 30s
fuzz:
	@for p in $$($(GO) list ./...); do \
	  for f in $$(CGO_ENABLED=0 $(GO) test -list '^Fuzz' $$p | grep '^Fuzz'); do \
	    CGO_ENABLED=0 $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$p || exit 1; done; done

# The last of them compare bootd with other servers, as far as those are
# installed: apt-get install kea-dhcp4-server dnsmasq-base tftpd-hpa
bench: build
	CGO_ENABLED=0 $(GO) test -run '^$$' -bench . -benchmem ./boot/... ./ignition ./assets $$($(GO) list ./internal/... | grep -v /lab$$)
	$(SUDO) env "PATH=$$PATH" BOOTD=$(CURDIR)/$(BOOTD) CGO_ENABLED=0 $(GO) test -run '^$$' -bench Peers -benchtime 1x ./internal/lab

install: build
	install -D -m 755 $(BOOTD) $(DESTDIR)/usr/bin/bootd
	install -D -m 644 systemd/bootd.service $(DESTDIR)/usr/lib/systemd/system/bootd.service

clean:
	rm -rf bin
