#!/bin/sh
# This node's membership in the swarm: swarm.sh join | leave
#
# The join goes to the engine's socket as a file and not through "docker swarm
# join", because the token would stand on a command line, for every process of
# the node to read.
set -u

dir=${0%/*}
socket=${DOCKER_HOST:-unix:///var/run/docker.sock} # as the docker command has it
socket=${socket#unix://}
state=
node=
manager=

# look asks the engine how it stands: state becomes what the engine calls it
# (inactive, pending, active, error, locked), or away when it does not answer.
look() {
	if info=$(docker info --format '{{.Swarm.LocalNodeState}}/{{.Swarm.NodeID}}/{{.Swarm.ControlAvailable}}' 2>/dev/null); then
		state=${info%%/*}
		manager=${info##*/}
		node=${info#*/}
		node=${node%/*}
	else
		state=away
	fi
}

# ask asks the engine to join. When it will not, why says what it answered.
ask() {
	answer=$(curl --silent --show-error --noproxy '*' --max-time 60 --unix-socket "$socket" \
		--header 'Content-Type: application/json' --data "@$dir/swarm-join.json" \
		--write-out ' HTTP status %{http_code}' http://docker/swarm/join 2>&1)
	case $answer in
	*' HTTP status 200') return 0 ;;
	esac
	why=$(printf %s "$answer" | tr -s '\n ' ' ') # the engine ends its answer with a new line
	return 1
}

# renew asks bootd how to join now: the token that came with the config may have
# been replaced since. What came first stays when bootd has nothing to give.
renew() {
	url=
	[ -r "$dir/report-url" ] && read -r url <"$dir/report-url"
	[ -n "$url" ] || return 0
	new=$dir/swarm-join.json.new
	if (umask 077 && curl --silent --fail --noproxy '*' --connect-timeout 5 --max-time 10 --output "$new" \
		"${url%/report/*}/join/${url##*/}") >/dev/null && [ -s "$new" ]; then
		mv "$new" "$dir/swarm-join.json"
	fi
	rm -f "$new"
}

join() {
	pause=1
	looks=0
	told=
	look
	while [ "$state" != active ]; do
		if [ "$state" != away ] && [ -z "$told" ]; then
			sh "$dir/report.sh" engine & # joining does not wait for bootd
			told=yes
		fi
		case $state in
		away) why='the engine does not answer' ;;
		inactive)
			if ask; then
				look
				[ "$state" != active ] || break
				why="the engine's state is $state"
			else
				case $why in
				*token* | *fingerprint*) renew ;;
				*) [ $((looks % 5)) -ne 4 ] || renew ;; # the manager may be another one now
				esac
			fi
			;;
		error)
			# The engine keeps a membership that it cannot use; without
			# leaving it would refuse every other.
			docker swarm leave --force >/dev/null 2>&1
			why='the engine was in an error state, and was made to leave'
			;;
		*) why="the engine's state is $state" ;; # pending: it goes on by itself
		esac
		echo "not in the swarm yet, next look in $pause s: $why"
		sleep "$pause"
		looks=$((looks + 1))
		if [ "$looks" -ge 5 ]; then # until then it is mostly the network that comes up
			pause=$((pause * 2))
			[ "$pause" -le 15 ] || pause=15
		fi
		look
	done
	[ -n "$told" ] || sh "$dir/report.sh" engine &
	echo "in the swarm as node $node"
	wait # so that bootd hears of the engine first
	exec sh "$dir/report.sh" joined "$node"
}

leave() {
	look
	case $state in
	away | inactive) return 0 ;;
	active)
		echo "leaving the swarm; bootd moves this node's tasks elsewhere first"
		sh "$dir/report.sh" left "$node"
		;;
	esac
	if [ "$state" = active ] && [ "$manager" != true ]; then
		docker swarm leave
	else
		docker swarm leave --force # a manager, or a join that has not come about
	fi
}

case ${1-} in
join) join ;;
leave) leave ;;
*)
	echo "usage: swarm.sh join | leave" >&2
	exit 2
	;;
esac
