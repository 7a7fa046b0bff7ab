#!/bin/sh
# Records what a Linux guest's page allocator does around a workload, for `fpr record import`.
# Wants root, tracefs with the kmem events, and a shell with awk, od, dd, gzip, tar: busybox has them.
set -u

usage() {
	cat >&2 <<-END
	usage: sh $0 [-o FILE] [-c] [-b KIB] [-s SECONDS] [-l COMMAND] [--] WORKLOAD...
	  -o FILE     where the recording goes (default: fpr-guest.tar.gz)
	  -c          print the recording to standard output too, as lines that a serial console keeps
	  -b KIB      trace buffer of each CPU (default: 80000)
	  -s SECONDS  wait before and after the workload, so that reporting settles (default: 8)
	  -l COMMAND  how the balloon's driver is loaded, if it is not (default: modprobe virtio_balloon)
	END
	exit 2
}

say() { echo "record: $*" >&2; }
die() {
	say "$*"
	exit 1
}

output=fpr-guest.tar.gz console= buffer_kib=80000 settle_s=8 load='modprobe virtio_balloon'
while getopts o:cb:s:l: option; do
	case $option in
	o) output=$OPTARG ;;
	c) console=1 ;;
	b) buffer_kib=$OPTARG ;;
	s) settle_s=$OPTARG ;;
	l) load=$OPTARG ;;
	*) usage ;;
	esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || usage

root=${FPR_ROOT:-} # another root than the system's, to try the script
proc=$root/proc
tracing=$root/sys/kernel/tracing
events=$tracing/events
worker=$events/workqueue/workqueue_execute_start
driver=$root/sys/bus/virtio/drivers/virtio_balloon

[ -e "$tracing/trace_marker" ] || mount -t tracefs tracefs "$tracing" 2>/dev/null
[ -e "$tracing/trace_marker" ] ||
	die "$tracing: no tracefs; it needs CONFIG_TRACING, and memory for a trace_buf_size at boot"
[ -w "$tracing/trace_marker" ] || die "$tracing: not writable; run this as root"
[ -e "$output" ] && die "$output: exists; remove it, or name another with -o"
work=$(mktemp -d "$output.XXXXXX") || die "$output: cannot write beside it; name another with -o"

stop_events() {
	for name in alloc free free_batched alloc_zone_locked pcpu_drain alloc_extfrag; do
		echo 0 >"$events/kmem/mm_page_$name/enable"
	done
	if [ -e "$worker/enable" ]; then echo 0 >"$worker/enable"; fi
	echo 1 >"$tracing/tracing_on"
}
trap 'stop_events 2>/dev/null; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP

mark() { echo "$1" >"$tracing/trace_marker"; }

# Runs of free frames. od folds equal lines into "*", which makes this quick. Each frame has eight
# bytes, little-endian; KPF_BUDDY is bit 10, so it is in the second digit of the first two bytes.
free_map() {
	dd if="$proc/kpageflags" bs=64k 2>/dev/null | od -A d -t x2 | awk '
	function is_free(word) { return index("4567cdef", substr(word, 2, 1)) > 0 }
	function frame(number, now) {
		if (now && !inside) first = number
		if (!now && inside) printf "%d %d\n", first, number - first
		inside = now
	}
	$1 == "*" { folded = 1; next }
	{
		sub(/^0+/, "", $1) # to some awks, a leading 0 means octal
		pfn = $1 / 8
		if (folded && even != odd)
			for (at = last + 2; at < pfn; at += 2) { frame(at, even); frame(at + 1, odd) }
		folded = 0
		if (NF < 5) { frame(pfn, 0); next }
		even = is_free($2); frame(pfn, even)
		if (NF == 9) { odd = is_free($6); frame(pfn + 1, odd) }
		last = pfn
	}'
}

ticks() { # jiffies and nanoseconds now
	awk '/^now at/ { ns = $3 } /^jiffies:/ { print $2, ns; exit }' "$proc/timer_list" 2>/dev/null
}

hz() { # from the kernel's configuration, else counted for two seconds
	config=$({ zcat "$proc/config.gz" || cat "$root/boot/config-$kernel"; } 2>/dev/null |
		sed -n 's/^CONFIG_HZ=//p')
	if [ -z "$config" ] && [ -r "$proc/timer_list" ]; then
		config=$({ ticks; sleep 2; ticks; } | awk '
		NR == 1 { jiffies = $1; ns = $2 }
		NR == 2 && $2 > ns {
			hz = ($1 - jiffies) * 1e9 / ($2 - ns)
			split("100 250 300 1000", known, " ")
			for (i = 1; i <= 4; i++) if (hz > known[i] * 0.9 && hz < known[i] * 1.1) print known[i]
		}')
	fi
	echo "$config"
}

kernel=$(cat "$proc/sys/kernel/osrelease") || die "$proc/sys/kernel/osrelease: not readable"
kernel_hz=$(hz)

# A trace from the kernel's command line began at boot: it is kept.
if grep -q 'trace_event=[^ ]*mm_page_alloc_zone_locked' "$proc/cmdline"; then
	from_boot=true
	grep -q 'trace_clock=mono' "$proc/cmdline" || die "add trace_clock=mono to the command line"
else
	from_boot=false
	before_kib=$(cat "$tracing/buffer_size_kb")
	trap 'stop_events 2>/dev/null; echo "${before_kib%% *}" >"$tracing/buffer_size_kb"
		rm -rf "$work"' EXIT
	echo 0 >"$tracing/tracing_on"
	echo mono >"$tracing/trace_clock" || die "no trace clock mono; use Linux 4.x or newer"
	echo "$buffer_kib" >"$tracing/buffer_size_kb" || die "no memory for -b $buffer_kib; use less"
	: >"$tracing/trace"
	for name in alloc free free_batched alloc_zone_locked pcpu_drain alloc_extfrag; do
		echo 1 >"$events/kmem/mm_page_$name/enable" || die "no event kmem:mm_page_$name"
	done
fi

# When the reporting worker runs ties this clock to the device's.
address=$(awk '$3 == "page_reporting_process" { print $1; exit }' "$proc/kallsyms" 2>/dev/null)
case $address in
'' | *[!0]*) ;;
*) address= ;;
esac
if [ -n "$address" ] && echo "function == 0x$address" 2>/dev/null >"$worker/filter"; then
	echo 1 >"$worker/enable"
else
	say "the reporting worker cannot be traced: clocks will be aligned by the driver's start only"
fi
echo 1 >"$tracing/tracing_on"

mark snapshot
free_map >"$work/freemap.start"
mark snapshot_done
for name in zoneinfo iomem; do cat "$proc/$name" >"$work/$name"; done
cat "$proc/pagetypeinfo" >"$work/pagetypeinfo.start"

loaded=false
if ls "$driver" 2>/dev/null | grep -q '^virtio[0-9]'; then
	say "the balloon's driver was there already: what it reported before is not known"
else
	mark driver
	sh -c "$load" || die "$load: failed; say with -l how to load the balloon's driver"
	mark driver_done
	loaded=true
fi
sleep "$settle_s"
mark workload
"$@"
status=$?
mark workload_done
sleep "$settle_s"
echo 0 >"$tracing/tracing_on"
free_map >"$work/freemap.end"
cat "$proc/pagetypeinfo" >"$work/pagetypeinfo.end"
[ -s "$work/freemap.start" ] || say "$proc/kpageflags: no free map (CONFIG_PROC_PAGE_MONITOR)"

parameter=$root/sys/module/page_reporting/parameters/page_reporting_order
{
	echo "format fpr.guest/1"
	echo "kernel $kernel"
	echo "hz $kernel_hz"
	echo "cpus $(grep -c '^processor' "$proc/cpuinfo")"
	echo "page_size $(awk '/^KernelPageSize:/ { print $2 * 1024; exit }' "$proc/self/smaps")"
	echo "page_reporting_order $(cat "$parameter" 2>/dev/null)"
	echo "trace_from_boot $from_boot"
	echo "driver_loaded $loaded"
	echo "workload_status $status"
	echo "kernel_command_line $(cat "$proc/cmdline")"
} >"$work/facts"
gzip -1 <"$tracing/trace" >"$work/trace.txt.gz" || die "$work: no room for the trace; use -o"
(cd "$work" && tar -c -f - *) | gzip -1 >"$work.part" && mv "$work.part" "$output" ||
	die "$output: no room; name another with -o"
say "$output is written: run fpr record import on it"

if [ -n "$console" ]; then
	dmesg -n 1 2>/dev/null # the kernel's own lines would cut ours
	{ base64 <"$output" 2>/dev/null || uuencode -m x <"$output" | sed '1d;$d'; } |
		tr -d '\n' | fold -w 72 | awk '{ print "fpr> " NR " " $0 } END { print "" }'
	echo "fpr> end $(sha256sum <"$output" | cut -d ' ' -f 1)"
fi
