#!/bin/sh
# Tells bootd how far this boot has come: report.sh STAGE [NODE-ID]
#
# It ends with status 0 and after a bounded time whatever happens: a node must
# not suffer when its boot server is away.
set -u

dir=${0%/*}
stage=$1
node=${2-}
url=
if [ -r "$dir/report-url" ]; then
	read -r url <"$dir/report-url"
fi
[ -n "$url" ] || exit 0

body="{\"stage\":\"$stage\"}"
tries=40 # about ten minutes: bootd may be restarting
limit=10
if [ -n "$node" ]; then
	body="{\"stage\":\"$stage\",\"node\":\"$node\"}"
fi
if [ "$stage" = left ]; then
	# The machine is going down. One try, and time for bootd to answer only
	# when this node's tasks run elsewhere. A bootd that is away is noticed by
	# the connection, soon.
	tries=1
	limit=${BOOTD_LEAVE_SECONDS:-75}
fi

pause=1
while :; do
	code=$(curl --silent --output /dev/null --write-out '%{http_code}' --noproxy '*' --connect-timeout 5 --max-time "$limit" \
		--header 'Content-Type: application/json' --data "$body" "$url")
	case $code in
	2??) exit 0 ;;
	408 | 429) ;;
	4??)
		echo "bootd does not take the report of stage $stage: HTTP status $code"
		exit 0
		;;
	esac
	tries=$((tries - 1))
	if [ "$tries" -le 0 ]; then
		echo "cannot report stage $stage to bootd: HTTP status ${code:-000}"
		exit 0
	fi
	sleep "$pause"
	pause=$((pause * 2))
	[ "$pause" -le 15 ] || pause=15
done
