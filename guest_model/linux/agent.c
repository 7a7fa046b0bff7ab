/*
 * The first process of a real guest: loads the balloon driver, photographs the page allocator, and
 * executes the operations of a plan on real memory. Format of the plan: guest_model/linux/plan.py.
 * Every line that it prints begins with "fpr: "; times are the guest's CLOCK_MONOTONIC.
 */
#define _GNU_SOURCE
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_PHASES 1000
#define TEXT_BYTES (256UL << 10)
#define PFN_MASK ((1ULL << 55) - 1) /* of an entry in /proc/self/pagemap */
#define KNOWN_PAGES 2
#define SETTLE_NS (NS_PER_S / 2)  /* what booting left to do in the background ends in it */
#define LOADED_NS (NS_PER_S / 10) /* so does what loading left, long before the first pass */
#define CLOCK_LINES 32
#define CLOCK_NS (NS_PER_S / 200)
#define HELPER "/sys/kernel/uevent_helper"

static struct task *tasks;
static uint64_t phase_duration_ns[MAX_PHASES];
static unsigned task_count, phase_count;
struct progress *progress;
uint32_t *copied;
uint64_t *instants[MAX_TASKS];
static uint64_t run_duration_ns;
static char modules[8][256];
static unsigned module_count;
static int reporting_order = -1;
static char *known; /* pages for the photograph; private, so that they show where they are mapped */
static char zoneinfo[TEXT_BYTES], pagetypeinfo[TEXT_BYTES], timer_list[TEXT_BYTES];

uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static void say(const char *format, ...)
{
    char line[512] = "fpr: ";
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line + 5, sizeof line - 6, format, arguments) + 5;
    va_end(arguments);
    if (length > (int)sizeof line - 2)
        length = sizeof line - 2;
    line[length] = '\n';
    if (write(STDOUT_FILENO, line, (size_t)length + 1) < 0)
        return; /* nobody to tell */
}

static void power_off(void)
{
    sync();
    reboot(RB_POWER_OFF);
    for (;;)
        pause();
}

static void fail(const char *what, const char *name)
{
    say("error %s %s: %s", what, name, strerror(errno));
    power_off();
}

void sleep_until(uint64_t instant_ns)
{
    struct timespec at = {(time_t)(instant_ns / NS_PER_S), (long)(instant_ns % NS_PER_S)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR)
        ;
}

/* ---- phases ---- */

static uint64_t end_of(const struct task *task, uint64_t start_ns)
{
    uint64_t end_ns = phase_duration_ns[task->phase];
    if (task->duration_ns && (!end_ns || task->duration_ns < end_ns))
        end_ns = task->duration_ns;
    return end_ns ? start_ns + end_ns : UINT64_MAX;
}

static void reap(void)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        for (unsigned number = 0; number < task_count; number++)
            if (tasks[number].pid == pid) {
                struct task *task = &tasks[number];
                task->end_ns = now_ns();
                task->pid = 0;
                if (WIFEXITED(status))
                    task->status = WEXITSTATUS(status) ? FAILED : DONE;
                else if (task->status == RUNNING)
                    task->status = FAILED; /* the OOM killer's work */
            }
}

/* Stops what is over its time; when to look again, 0 where nothing runs any more. */
static uint64_t look_after(unsigned phase, uint64_t start_ns)
{
    uint64_t next_ns = 0;
    reap();
    for (unsigned number = 0; number < task_count; number++) {
        struct task *task = &tasks[number];
        if (task->phase != phase || !task->pid)
            continue;
        uint64_t end_ns = end_of(task, start_ns);
        if (now_ns() >= end_ns && task->status == RUNNING) {
            task->status = STOPPED;
            kill(task->pid, SIGKILL);
            end_ns = UINT64_MAX;
        }
        next_ns = next_ns && next_ns < end_ns ? next_ns : end_ns;
    }
    return next_ns;
}

static void run_phase(unsigned phase)
{
    sigset_t children;
    sigemptyset(&children);
    sigaddset(&children, SIGCHLD);
    sigprocmask(SIG_BLOCK, &children, NULL);
    uint64_t start_ns = now_ns();
    say("phase index=%u start_ns=%" PRIu64, phase, start_ns);
    for (unsigned number = 0; number < task_count; number++) {
        if (tasks[number].phase != phase)
            continue;
        pid_t pid = fork_second();
        if (pid < 0)
            fail("cannot fork", "a task");
        if (!pid)
            run_task(number, tasks[number].stream);
        tasks[number].pid = pid;
    }
    uint64_t next_ns;
    while ((next_ns = look_after(phase, start_ns))) {
        uint64_t left_ns = next_ns > now_ns() ? next_ns - now_ns() : 0;
        if (left_ns > NS_PER_S)
            left_ns = NS_PER_S;
        struct timespec wait = {(time_t)(left_ns / NS_PER_S), (long)(left_ns % NS_PER_S)};
        sigtimedwait(&children, NULL, &wait);
    }
    if (phase_duration_ns[phase])
        sleep_until(start_ns + phase_duration_ns[phase]);
    say("phase index=%u end_ns=%" PRIu64, phase, now_ns());
    static const char *const names[] = {"running", "done", "stopped", "failed"};
    for (unsigned number = 0; number < task_count; number++) {
        const struct task *task = &tasks[number];
        if (task->phase == phase)
            say("task phase=%u workload=%u status=%s end_ns=%" PRIu64 " units=%" PRIu64
                " busy_ns=%" PRIu64 " failures=%" PRIu64 " place=%" PRIu64,
                phase, task->workload, names[task->status], task->end_ns, progress[number].units,
                progress[number].busy_ns, progress[number].failures, progress[number].place);
    }
}

/* ---- the plan, and the state of the allocator ---- */

static void *load(const char *path)
{
    struct stat status;
    int fd = open(path, O_RDONLY);
    if (fd < 0 || fstat(fd, &status))
        fail("cannot open", path);
    size_t size = (size_t)status.st_size;
    char *memory = mmap(NULL, size + 1, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        fail("no memory for", path);
    for (size_t at = 0; at < size;) {
        ssize_t got = read(fd, memory + at, size - at);
        if (got <= 0)
            fail("cannot read", path);
        at += (size_t)got;
    }
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
    return memory;
}

static void add_task(unsigned workload, uint64_t duration_ns, const char *path)
{
    if (!phase_count || task_count == MAX_TASKS)
        fail("too many tasks, or one before the first phase:", path);
    instants[task_count] = mmap(NULL, MAX_TIMED * sizeof **instants, PROT_READ | PROT_WRITE,
                                MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (instants[task_count] == MAP_FAILED)
        fail("no memory for the times of", path);
    const struct stream *stream = load(path);
    uint64_t timed = stream->loop_ops ? MAX_TIMED : 0;
    for (uint64_t at = 0; at < stream->first_ops && timed < MAX_TIMED; at++)
        timed += notes_of(&stream->ops[at]);
    /* Its pages are there before the photograph: noting times takes no memory from the workload. */
    memset(instants[task_count], 0, (timed < MAX_TIMED ? timed : MAX_TIMED) * sizeof **instants);
    tasks[task_count++] = (struct task){
        .phase = phase_count - 1,
        .workload = workload,
        .duration_ns = duration_ns,
        .stream = stream,
    };
}

static void read_plan(void)
{
    char *text = load("/plan/plan"), *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char path[256];
        unsigned workload;
        uint64_t ns;
        if (sscanf(line, "module %255s", path) == 1 && module_count < 8)
            strcpy(modules[module_count++], path);
        else if (sscanf(line, "order %d", &reporting_order) == 1)
            continue;
        else if (sscanf(line, "duration %" SCNu64, &run_duration_ns) == 1)
            continue;
        else if (sscanf(line, "phase %" SCNu64, &ns) == 1 && phase_count < MAX_PHASES)
            phase_duration_ns[phase_count++] = ns;
        else if (sscanf(line, "task %u %" SCNu64 " %255s", &workload, &ns, path) == 3)
            add_task(workload, ns, path);
        else
            fail("the plan has a line that means nothing:", line);
    }
}

static void read_text(const char *path, char *text, size_t room)
{
    int fd = open(path, O_RDONLY);
    size_t at = 0;
    ssize_t got;
    while (fd >= 0 && at < room - 1 && (got = read(fd, text + at, room - 1 - at)) > 0)
        at += (size_t)got;
    text[at] = 0;
    close(fd);
}

/*
 * Says where two pages of this process lie: by them, whoever has the guest's memory before him
 * finds the array of struct page, and in it the allocator's lists. Then waits until he has looked.
 */
static void be_photographed(uint64_t loading_ns, uint64_t start_ns)
{
    uint64_t entries[KNOWN_PAGES] = {0};
    uint64_t first = (uintptr_t)known / PAGE_BYTES;
    int fd = open("/proc/self/pagemap", O_RDONLY);
    ssize_t got = pread(fd, entries, sizeof entries, (off_t)(first * sizeof *entries));
    close(fd);
    if (got != (ssize_t)sizeof entries)
        fail("cannot read", "/proc/self/pagemap");
    struct utsname kernel;
    uname(&kernel);
    say("start release=%s loading_ns=%" PRIu64 " mono_ns=%" PRIu64 " index=%" PRIu64
        " pfns=%" PRIu64 ",%" PRIu64,
        kernel.release, loading_ns, start_ns, first, entries[0] & PFN_MASK, entries[1] & PFN_MASK);
    char go;
    if (read(STDIN_FILENO, &go, 1) != 1)
        fail("nobody says", "go");
}

static void save(const char *path, const void *content, size_t left)
{
    const char *text = content;
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0644);
    while (fd >= 0 && left) {
        ssize_t written = write(fd, text, left);
        if (written <= 0)
            break;
        text += written;
        left -= (size_t)written;
    }
    if (fd < 0 || left || fsync(fd) || close(fd))
        fail("cannot write", path);
}

static void set(const char *path, int value)
{
    char text[16];
    int length = snprintf(text, sizeof text, "%d", value);
    int fd = open(path, O_WRONLY);
    if (fd < 0 || write(fd, text, (size_t)length) != length)
        fail("cannot set", path);
    close(fd);
}

static void *shared(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        fail("no memory", "for what processes share");
    return memset(memory, 0, size); /* its pages are there from now on */
}

static void prepare(void)
{
    mkdir("/files", 0700); /* hostfs keeps these folders of a root that is used again */
    if (mount("proc", "/proc", "proc", 0, NULL) || mount("sysfs", "/sys", "sysfs", 0, NULL) ||
        mount("tmpfs", "/files", "tmpfs", 0, "size=100%"))
        fail("cannot mount", "/proc, /sys and /files");
    known = mmap(NULL, KNOWN_PAGES * PAGE_BYTES, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (known == MAP_FAILED)
        fail("no memory", "for two pages");
    /* They are there before all else: two pages in a block that is otherwise free keep it so. */
    memset(known, 1, KNOWN_PAGES * PAGE_BYTES);
    copied = shared(sizeof *copied);
    progress = shared(MAX_TASKS * sizeof *progress);
    tasks = shared(MAX_TASKS * sizeof *tasks);
    /* The photograph itself shall not change what it shows: its pages are there before. */
    memset(zoneinfo, 1, sizeof zoneinfo);
    memset(pagetypeinfo, 1, sizeof pagetypeinfo);
    memset(timer_list, 1, sizeof timer_list);
    read_plan();
    rehearse();
    read_text("/proc/zoneinfo", zoneinfo, sizeof zoneinfo);
    read_text("/proc/pagetypeinfo", pagetypeinfo, sizeof pagetypeinfo);
    read_text("/proc/timer_list", timer_list, sizeof timer_list);
    sleep_until(now_ns() + SETTLE_NS);
}

/*
 * For each event of a device, a kernel starts a program that is not there: a process for each, in
 * the background, whose pages would come and go while the state is looked at.
 */
static void want_no_helper(void)
{
    int fd = open(HELPER, O_WRONLY);
    if (fd >= 0 && write(fd, "\n", 1) != 1)
        fail("cannot set", HELPER);
    close(fd);
}

/* So often that at least one line comes at once, where the host is busy: it compares clocks. */
static void tell_the_time(void)
{
    for (unsigned line = 0; line < CLOCK_LINES; line++) {
        say("clock mono_ns=%" PRIu64, now_ns());
        sleep_until(now_ns() + CLOCK_NS);
    }
}

static void load_modules(void)
{
    for (unsigned index = 0; index < module_count; index++) {
        int fd = open(modules[index], O_RDONLY | O_CLOEXEC);
        if (fd < 0 || syscall(SYS_finit_module, fd, "", 0))
            fail("cannot load", modules[index]);
        close(fd);
    }
}

int main(void)
{
    prepare();
    want_no_helper();
    uint64_t loading_ns = now_ns();
    load_modules();
    uint64_t start_ns = now_ns();
    if (reporting_order >= 0)
        set("/sys/module/page_reporting/parameters/page_reporting_order", reporting_order);
    sleep_until(start_ns + LOADED_NS);
    read_text("/proc/timer_list", timer_list, sizeof timer_list);
    read_text("/proc/zoneinfo", zoneinfo, sizeof zoneinfo);
    read_text("/proc/pagetypeinfo", pagetypeinfo, sizeof pagetypeinfo);
    be_photographed(loading_ns, start_ns);
    for (unsigned phase = 0; phase < phase_count; phase++)
        run_phase(phase);
    if (run_duration_ns)
        sleep_until(start_ns + run_duration_ns);
    say("end mono_ns=%" PRIu64, now_ns());
    tell_the_time();
    save("/plan/zoneinfo", zoneinfo, strlen(zoneinfo));
    save("/plan/pagetypeinfo", pagetypeinfo, strlen(pagetypeinfo));
    save("/plan/timer_list", timer_list, strlen(timer_list));
    for (unsigned number = 0; number < task_count; number++) {
        char path[64];
        snprintf(path, sizeof path, "/plan/%u.times", number);
        save(path, instants[number], progress[number].noted * sizeof **instants);
    }
    say("done");
    power_off();
}
