#!/bin/bash
# Builds the lab's live image from the host's own Debian or Ubuntu packages:
#
#   $NAME-live-kernel.x86_64         the distribution's kernel
#   $NAME-live-initramfs.x86_64.img  busybox, a few modules, the real Ignition
#   $NAME-live-rootfs.x86_64.img     a cpio archive with root.squashfs: systemd, docker, ssh
#
# They boot by the contract of Fedora CoreOS live PXE images, and are named
# like them. Everything in the image that a node does not need is left out:
# under emulation each unit, udev rule and generator costs boot time.
#
# In:  RECIPE (the directory of this script), WORK (empty, for scratch),
#      OUT (empty, for the result), NAME, ID, SUITE (of /etc/os-release).
# Lines that begin with "== " tell progress; all else is detail for the log.
set -euo pipefail
export LC_ALL=C
R=$WORK/root

step() { echo "== $*"; }

# list FILE: its words, without comments, on one line.
list() { sed 's/#.*//' "$RECIPE/$1" | tr -s ' \n' ' '; }

# available PACKAGE: apt can install it.
available() { [ -n "$(apt-cache show "$1" 2>/dev/null)" ]; }

# unpack PACKAGE DIR: fetches a package and unpacks it, without installing it
# on this host.
unpack() {
  mkdir -p "$WORK/deb" "$2"
  (cd "$WORK/deb" && apt-get -q -o APT::Sandbox::User=root download "$1")
  dpkg-deb -x "$WORK"/deb/"$1"_*.deb "$2"
}

# sources: this distribution's entries among the host's apt sources, as
# one-line entries. Other vendors' repositories are none of the image's
# business, and a mirror is never named here.
sources() {
  local key=/usr/share/keyrings/$ID-archive-keyring.gpg signed=""
  [ -e "$key" ] && signed="[signed-by=$key]"
  apt-get indextargets --format '$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)' 'Created-By: Packages' |
    awk -F'|' -v id="$ID" -v signed="$signed" 'tolower($1) == id { print "deb", signed, $2, $3, $4 }' | sort -u
}

# proxies: the host's apt proxies, as options for another apt.
proxies() { apt-config dump | grep -E '^Acquire::[a-z]+::Proxy ' || true; }

rootfs() {
  step "install Debian packages into the root file system"
  local packages apt=() p
  packages=$(list packages)
  available docker-cli && packages="$packages docker-cli" # split from docker.io in newer releases
  sources >"$WORK/sources.list"
  [ -s "$WORK/sources.list" ] || { echo "apt knows no $ID packages: run apt-get update" >&2; exit 1; }
  while IFS= read -r p; do apt+=(--aptopt="$p"); done < <(proxies)
  mmdebstrap --mode=root --variant=essential --format=directory \
    --include="$(echo $packages | tr ' ' ,)" \
    --aptopt='Apt::Install-Recommends "false"' "${apt[@]}" \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
    --dpkgopt='path-exclude=/usr/share/bash-completion/*' --dpkgopt='path-exclude=/usr/share/i18n/*' \
    --dpkgopt='path-exclude=/usr/share/zoneinfo/*' \
    "$SUITE" "$R" "$WORK/sources.list" 2>&1
}

# configure makes the installed system a live one that starts for the first
# time at every boot.
configure() {
  step "configure the root file system"
  # Without a machine ID systemd takes each boot for the first one and applies
  # the presets: that is how Ignition enables units.
  rm -f "$R"/etc/machine-id "$R"/var/lib/dbus/machine-id "$R"/etc/hostname "$R"/etc/ssh/ssh_host_*
  : >"$R/etc/fstab"
  rm -f "$R/etc/resolv.conf"
  : >"$R/etc/resolv.conf"
  prune
  cp -R "$RECIPE/root/." "$R/"
  chmod 440 "$R/etc/sudoers.d/core"
  chmod 755 "$R/usr/lib/bootd-lab/mark"
  mkdir -p "$R/var/lib/docker"
  # CoreOS has a user core; Ignition gives it its keys.
  chroot "$R" useradd -m -s /bin/bash -G docker,sudo core
  ln -s multi-user.target "$R/usr/lib/systemd/system/default.target"
  local unit
  for unit in $(list units.sysinit); do want sysinit.target "$unit"; done
  for unit in $(list units.sockets); do want sockets.target "$unit"; done
  for unit in $(list units.multi-user); do want multi-user.target "$unit"; done
  want docker.service bootd-lab-engine.service
  mkdir -p "$R/etc/systemd/system/getty.target.wants"
  ln -s /usr/lib/systemd/system/serial-getty@.service \
    "$R/etc/systemd/system/getty.target.wants/serial-getty@ttyS0.service"
}

# want TARGET UNIT: UNIT is started with TARGET, whatever the presets say.
want() {
  [ -e "$R/usr/lib/systemd/system/$2" ] || return 0
  mkdir -p "$R/usr/lib/systemd/system/$1.wants"
  ln -s "../$2" "$R/usr/lib/systemd/system/$1.wants/$2"
}

# keep DIR LISTFILE: removes from DIR what the list does not name.
keep() {
  local entry kept
  kept=" $(list "$2") "
  for entry in "$1"/*; do
    case $kept in *" ${entry##*/} "*) ;; *) rm -rf "$entry" ;; esac
  done
}

prune() {
  keep "$R/usr/lib/systemd/system" units.kept
  keep "$R/usr/lib/udev/rules.d" udev-rules.kept
  rm -rf "$R"/usr/lib/systemd/system-generators/* "$R"/etc/init.d/* "$R"/etc/rc?.d/* \
    "$R"/etc/systemd/system/* "$R"/usr/lib/systemd/system-preset/*
  rm -f "$R"/usr/lib/tmpfiles.d/x11.conf "$R"/usr/lib/tmpfiles.d/systemd-pstore.conf
  rm -rf "$R"/var/cache/apt/* "$R"/var/lib/apt/lists/* "$R"/var/log/* "$R"/var/lib/dpkg/info \
    "$R"/etc/apt/apt.conf.d/99mmdebstrap "$R"/etc/apt/sources.list \
    "$R"/usr/share/perl* "$R"/usr/lib/x86_64-linux-gnu/perl* "$R"/usr/lib/x86_64-linux-gnu/libperl* \
    "$R"/usr/bin/perl* "$R"/usr/lib/x86_64-linux-gnu/gconv "$R"/usr/lib/udev/hwdb.* \
    "$R"/usr/bin/{ctr,dnet,containerd-shim,containerd-shim-runc-v1} "$R"/usr/sbin/ovrouter
}

kernel() {
  step "unpack the kernel"
  local meta package f
  # Ubuntu's names are a guess that has not been tried.
  case $ID in ubuntu) meta=linux-image-virtual ;; *) meta=linux-image-cloud-amd64 ;; esac
  package=$(apt-cache depends "$meta" | awk '/Depends: linux-image-[0-9]/ { print $2; exit }')
  KVER=${package#linux-image-}
  unpack "$package" "$WORK/kernel"
  available "linux-modules-$KVER" && unpack "linux-modules-$KVER" "$WORK/kernel"
  K=$WORK/kernel
  [ -d "$K/usr/lib/modules" ] && [ ! -e "$K/lib" ] && ln -s usr/lib "$K/lib" # merged /usr in newer releases
  cp "$K/boot/vmlinuz-$KVER" "$OUT/$NAME-live-kernel.x86_64"
  # Newer kernels compress each module; in a compressed image that is only in the way.
  find "$K/lib/modules/" -name '*.ko.xz' -exec unxz {} +
  find "$K/lib/modules/" -name '*.ko.zst' -exec unzstd -q --rm {} +
  depmod -b "$K" "$KVER"
  modules "$R/usr" "$(list modules.initramfs) $(list modules.root)"
}

# modules DIR NAMES: copies modules and what they depend on to DIR/lib/modules.
# A name that this kernel does not have is built in, or does not exist yet.
modules() {
  local to=$1/lib/modules/$KVER from=$K/lib/modules/$KVER f m
  mkdir -p "$to"
  for m in $2; do
    modprobe -d "$K" -S "$KVER" --show-depends "$m" 2>/dev/null | awk '$1 == "insmod" { print $2 }' || true
  done | sort -u | while IFS= read -r f; do
    f=${f#*/lib/modules/$KVER/}
    mkdir -p "$to/${f%/*}"
    cp "$from/$f" "$to/$f" # with its signature: after Secure Boot the kernel takes no module without
  done
  cp "$from"/modules.builtin "$from"/modules.builtin.modinfo "$from"/modules.order "$to/"
  case $1 in */usr) depmod -b "${1%/usr}" "$KVER" ;; *) depmod -b "$1" "$KVER" ;; esac
}

pack_rootfs() {
  step "compress the root file system"
  mksquashfs "$R" "$WORK/root.squashfs" -comp lz4 -Xhc -b 128K -noappend -quiet -no-progress
  (cd "$WORK" && echo root.squashfs | cpio --quiet -o -H newc -R 0:0) >"$OUT/$NAME-live-rootfs.x86_64.img"
}

pack_initramfs() {
  step "compress the initramfs"
  local I=$WORK/initramfs applet tool lib
  mkdir -p "$I"/{bin,sbin,usr/bin,usr/sbin,usr/lib/ignition,dev,proc,sys,run,sysroot,tmp,etc/ssl/certs,lib64,lib/x86_64-linux-gnu,var}
  cp "$R/usr/bin/busybox" "$I/bin/"
  for applet in $("$I/bin/busybox" --list); do [ -e "$I/bin/$applet" ] || ln -s busybox "$I/bin/$applet"; done
  unpack ignition "$WORK/ignition"
  install -m 755 "$WORK/ignition/usr/lib/dracut/modules.d/30ignition/ignition" "$I/usr/bin/ignition"
  cp "$R/etc/ssl/certs/ca-certificates.crt" "$I/etc/ssl/certs/"
  # Ignition runs these for passwd.users and passwd.groups.
  for tool in useradd usermod userdel groupadd groupdel; do cp "$R/usr/sbin/$tool" "$I/usr/sbin/"; done
  cp "$I/usr/bin/ignition" "$R/tmp/ignition"
  for lib in $(chroot "$R" sh -c 'ldd /tmp/ignition /usr/sbin/useradd /usr/sbin/usermod /usr/sbin/userdel /usr/sbin/groupadd /usr/sbin/groupdel' |
    grep -o '/[^ ]*\.so[^ ]*' | sort -u); do
    mkdir -p "$I${lib%/*}"
    cp -L "$R$lib" "$I$lib"
  done
  rm "$R/tmp/ignition"
  modules "$I" "$(list modules.initramfs)"
  install -m 755 "$RECIPE/initramfs/init" "$I/init"
  install -m 755 "$RECIPE/initramfs/udhcpc.sh" "$I/etc/udhcpc.sh"
  install -m 755 "$RECIPE/initramfs/setfiles" "$I/usr/sbin/setfiles"
  : >"$I/etc/initrd-release"
  echo 'root:x:0:0::/:/bin/sh' >"$I/etc/passwd"
  echo 'root:x:0:' >"$I/etc/group"
  # As Fedora CoreOS: which root file system belongs to this initramfs.
  sha256sum "$OUT/$NAME-live-rootfs.x86_64.img" | cut -d' ' -f1 >"$I/etc/coreos-live-want-rootfs"
  (cd "$I" && find . | sort | cpio --quiet -o -H newc -R 0:0) | zstd -q -10 -T0 -o "$OUT/$NAME-live-initramfs.x86_64.img"
  # What firmware appends, such as config.ign, must begin at a multiple of four.
  truncate -s %4 "$OUT/$NAME-live-initramfs.x86_64.img"
}

rootfs
configure
kernel
pack_rootfs
pack_initramfs
