/*
 * The lab guest's whole user space: the init that prints numbered lines to the
 * serial port for ever. No libc, so that nothing but a compiler is needed.
 *
 * The kernel hands unknown `key=value` words of its command line to init as
 * environment: lc_pace is the time from line to line in microseconds (0: none),
 * lc_lines the number of lines after which it falls silent (0: never), lc_ports
 * the number of serial ports it prints each line to (0: one), lc_dirty how many
 * MiB of memory it goes through all the time, writing, so that a migration has no
 * end to come to by itself, lc_fill how many it writes to once and never again.
 * With lc_calm and lc_flood so many lines come at that pace and so many without
 * any, by turns.
 *
 * The line's text is repeated in ticks.rs; a test there compares the two.
 */
typedef unsigned long ulong;
typedef long word;

struct timespec { word sec, nsec; };

static word sys(word nr, word a, word b, word c, word d)
{
	word out;
	register word r10 __asm__("r10") = d;
	__asm__ volatile("syscall"
			 : "=a"(out)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10)
			 : "rcx", "r11", "memory");
	return out;
}

enum {
	SYS_write = 1,
	SYS_open = 2,
	SYS_pause = 34,
	SYS_syslog = 103,
	SYS_clock_gettime = 228,
	SYS_clock_nanosleep = 230,
};
enum { CLOCK_MONOTONIC = 1, TIMER_ABSTIME = 1 };

static char line[] = "LC 0000000000 abcdefghijklmnopqrstuvwxyz0123456789 end\n";
enum { FIRST_DIGIT = 3, DIGITS = 10 };

static void put(int fd, const char *text, word length)
{
	while (length > 0) {
		word n = sys(SYS_write, fd, (word)text, length, 0);
		if (n <= 0)
			continue;
		text += n;
		length -= n;
	}
}

/* The number after `key=` in the environment, 0 where there is none. */
static ulong number(char **env, const char *key)
{
	for (; *env; env++) {
		const char *a = *env, *b = key;
		while (*b && *a == *b)
			a++, b++;
		if (*b || *a++ != '=')
			continue;
		ulong n = 0;
		while (*a >= '0' && *a <= '9')
			n = n * 10 + (ulong)(*a++ - '0');
		return n;
	}
	return 0;
}

enum { PAGE = 4096, DIRTY_MOST = 16, PAGES_A_LINE = 64 };
static char memory[DIRTY_MOST << 20];

/* Writes to the next pages of so many. */
static void dirty(ulong pages)
{
	static ulong at;
	for (int i = 0; pages && i < PAGES_A_LINE; i++) {
		at = at + 1 < pages ? at + 1 : 0;
		memory[at * PAGE]++;
	}
}

static void next(void)
{
	for (int i = FIRST_DIGIT + DIGITS - 1; i >= FIRST_DIGIT; i--) {
		if (line[i] != '9') {
			line[i]++;
			return;
		}
		line[i] = '0';
	}
}

/*
 * Waits for the next beat: from beat to beat, not from line to line, for an
 * emulated processor needs most of a millisecond to print one. Beats that are
 * missed (a migration stops the guest) are not made up for.
 */
static void beat(struct timespec *next, word pace_ns)
{
	const word second = 1000000000;
	struct timespec now;

	sys(SYS_clock_gettime, CLOCK_MONOTONIC, (word)&now, 0, 0);
	next->nsec += pace_ns % second;
	next->sec += pace_ns / second + next->nsec / second;
	next->nsec %= second;
	if (next->sec < now.sec || (next->sec == now.sec && next->nsec <= now.nsec)) {
		*next = now;
		return;
	}
	sys(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, (word)next, 0);
}

__attribute__((used)) static void run(word *stack)
{
	char **env = (char **)(stack + 1 + *stack + 1);
	ulong pace = number(env, "lc_pace");
	ulong lines = number(env, "lc_lines");
	ulong calm = number(env, "lc_calm"), flood = number(env, "lc_flood");
	ulong ports = number(env, "lc_ports");
	ulong mib = number(env, "lc_dirty");
	ulong pages = (mib > DIRTY_MOST ? DIRTY_MOST : mib) * ((1 << 20) / PAGE);
	struct timespec next_beat = { 0, 0 };
	static const char hello[] = "logchain lab guest\n";
	ulong fill = number(env, "lc_fill");
	for (ulong p = 0; p < (fill > DIRTY_MOST ? DIRTY_MOST : fill) * 256; p++)
		memory[p * PAGE] = 1;
	static char port[] = "/dev/ttyS0";
	int fds[4];

	ports = ports < 1 ? 1 : ports > 4 ? 4 : ports;
	for (ulong p = 0; p < ports; p++, port[9]++)
		fds[p] = (int)sys(SYS_open, (word)port, 1 /* O_WRONLY */, 0, 0);

	/* From here on the kernel's own words would tear the lines. */
	sys(SYS_syslog, 8 /* SYSLOG_ACTION_CONSOLE_LEVEL */, 0, 1, 0);
	for (ulong p = 0; p < ports; p++)
		put(fds[p], hello, sizeof hello - 1);
	for (ulong n = 0; lines == 0 || n < lines; n++) {
		next();
		for (ulong p = 0; p < ports; p++)
			put(fds[p], line, sizeof line - 1);
		dirty(pages);
		if (pace && (!flood || n % (calm + flood) < calm))
			beat(&next_beat, (word)pace * 1000);
	}
	for (;;)
		sys(SYS_pause, 0, 0, 0, 0);
}

__asm__(".globl _start\n"
	"_start:\n"
	"	mov %rsp, %rdi\n"
	"	and $-16, %rsp\n"
	"	call run\n");
