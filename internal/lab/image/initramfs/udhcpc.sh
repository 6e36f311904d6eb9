#!/bin/sh
# What busybox's DHCP client runs when something changes.
case $1 in
deconfig)
  ip link set "$interface" up
  ip addr flush dev "$interface"
  ;;
bound | renew)
  ip addr flush dev "$interface"
  ip addr add "$ip/${mask:-24}" dev "$interface"
  for r in $router; do
    ip route add default via "$r" dev "$interface"
    break
  done
  : >/etc/resolv.conf
  if [ -n "$domain" ]; then echo "search $domain" >>/etc/resolv.conf; fi
  for d in $dns; do echo "nameserver $d" >>/etc/resolv.conf; done
  if [ -n "$hostname" ]; then echo "$hostname" >/run/dhcp-hostname; fi
  echo "$ip" >/run/dhcp-address
  ;;
esac
