/* One task of a plan, in a process of its own: executes its operations on real memory. */
#define _GNU_SOURCE
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_REGIONS 70000
#define MAX_CHILDREN 1024
#define MANY 4096
#define MANY_CHILDREN 24

struct region {
    char *address;
    uint64_t pages;
    uint32_t owner;
    int fd; /* of its file; -1: anonymous, or a private mapping */
};

static struct region *regions;
static unsigned region_count;
static unsigned task_number;
static char buffer[16 * PAGE_BYTES];
static struct child {
    uint32_t number;
    pid_t pid; /* 0: no child */
} children[MAX_CHILDREN];

static struct region *new_region(uint32_t owner, uint64_t pages)
{
    if (region_count == MAX_REGIONS)
        return NULL;
    struct region *region = &regions[region_count++];
    *region = (struct region){NULL, pages, owner, -1};
    return region;
}

uint64_t notes_of(const struct op *op)
{
    uint64_t pages = op->count << op->order;
    return op->kind == OP_ALLOC && pages ? 1 + (pages - 1) / NOTE_PAGES : 1;
}

static uint64_t note(void)
{
    uint64_t instant_ns = now_ns();
    if (progress[task_number].noted < MAX_TIMED)
        instants[task_number][progress[task_number].noted++] = instant_ns;
    return instant_ns;
}

static void touch_pages(struct region *region, uint64_t pages)
{
    for (uint64_t page = 0; page < pages; page++)
        ((volatile char *)region->address)[page * PAGE_BYTES]++;
}

static void write_pages(struct region *region)
{
    for (uint64_t page = 0; page < region->pages; page++) {
        if (page && page % NOTE_PAGES == 0)
            note();
        ((volatile char *)region->address)[page * PAGE_BYTES]++;
    }
}

static bool write_file(struct region *region)
{
    char path[64];
    snprintf(path, sizeof path, "/files/%u-%u", task_number, region->owner);
    region->fd = open(path, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);
    if (region->fd < 0)
        return false;
    unlink(path);
    uint64_t left = region->pages * PAGE_BYTES;
    while (left) {
        uint64_t done = region->pages - left / PAGE_BYTES;
        if (done && done % NOTE_PAGES == 0)
            note();
        ssize_t written = write(region->fd, buffer, left < sizeof buffer ? left : sizeof buffer);
        if (written <= 0) {
            region->pages -= left / PAGE_BYTES; /* the file is as long as it got */
            return false;
        }
        left -= (uint64_t)written;
    }
    return true;
}

static const struct region *last_file(void)
{
    for (unsigned index = region_count; index--;)
        if (regions[index].fd >= 0)
            return &regions[index];
    return NULL;
}

static void allocate(const struct op *op)
{
    struct region *region = new_region(op->owner, op->count << op->order);
    if (!region) {
        progress[task_number].failures++;
        return;
    }
    bool ok;
    if (op->flags & FAULTED) {
        const struct region *file = op->flags & COPIED ? last_file() : NULL;
        int flags = MAP_PRIVATE | (file ? 0 : MAP_ANONYMOUS);
        region->address = mmap(NULL, region->pages * PAGE_BYTES, PROT_READ | PROT_WRITE, flags,
                               file ? file->fd : -1, 0);
        ok = region->address != MAP_FAILED;
        if (ok)
            write_pages(region);
        else
            region_count--;
    } else {
        ok = write_file(region);
    }
    if (ok)
        progress[task_number].units += op->flags & 32 ? region->pages : 0;
    else
        progress[task_number].failures++;
}

static void release(uint32_t owner)
{
    unsigned kept = 0;
    for (unsigned index = 0; index < region_count; index++) {
        struct region *region = &regions[index];
        if (region->owner != owner) {
            regions[kept++] = *region;
            continue;
        }
        if (region->fd >= 0)
            close(region->fd);
        if (region->address)
            munmap(region->address, region->pages * PAGE_BYTES);
    }
    region_count = kept;
}

static void touch(const struct op *op)
{
    uint64_t left = op->count ? op->count : UINT64_MAX;
    for (unsigned index = 0; index < region_count && left; index++) {
        struct region *region = &regions[index];
        if (region->owner != op->owner || !region->address)
            continue;
        uint64_t pages = region->pages < left ? region->pages : left;
        touch_pages(region, pages);
        left -= pages;
    }
}

static struct child *find_child(uint32_t number)
{
    for (unsigned index = 0; index < MAX_CHILDREN; index++)
        if (children[index].pid && children[index].number == number)
            return &children[index];
    return NULL;
}

/*
 * A page that a process writes while its child has it as well is copied for whoever is first. That
 * is to be the child, whose pages go: the parent's would move, to wherever memory is free then, and
 * keep a whole block of the largest order from being reported for the rest of the run. So the
 * parent writes nothing, not even to its stack, until the child has its copies; hence one piece of
 * assembly. Linux before 6.6 could be asked to let children run first.
 */
pid_t fork_second(void)
{
    static const struct timespec limit = {1, 0};
    long result;
    register uint32_t *word __asm__("r12") = copied;
    register const struct timespec *patience __asm__("r13") = &limit;
    register long none __asm__("r10") = 0;
    *word = 0;
    __asm__ volatile("syscall\n\t" /* clone */
                     "test %%rax, %%rax\n\t"
                     "jle 2f\n\t"
                     "mov %%rax, %%r14\n\t"
                     "mov $10, %%r15d\n"
                     "1:\tmov %[futex], %%eax\n\t"
                     "mov %[word], %%rdi\n\t"
                     "xor %%esi, %%esi\n\t" /* FUTEX_WAIT, while it is 0 */
                     "xor %%edx, %%edx\n\t"
                     "mov %[patience], %%r10\n\t"
                     "syscall\n\t"
                     "dec %%r15d\n\t"
                     "jz 3f\n\t" /* the child cannot, for want of memory */
                     "cmpl $0, (%[word])\n\t"
                     "je 1b\n"
                     "3:\tmov %%r14, %%rax\n"
                     "2:"
                     : "=a"(result), "+r"(none)
                     : "a"(SYS_clone), "D"((long)SIGCHLD), "S"(0L),
                       "d"(0L), [word] "r"(word), [patience] "r"(patience), [futex] "i"(SYS_futex)
                     : "rcx", "r8", "r11", "r14", "r15", "cc", "memory");
    return result < 0 ? -1 : (pid_t)result;
}

void __attribute__((noinline)) own_pages(void)
{
    volatile char stack[3 * PAGE_BYTES];
    for (size_t at = 0; at < sizeof stack; at += PAGE_BYTES)
        stack[at] = 0;
    errno = 0;     /* which lies with what a thread has for itself */
    if (regions) { /* a child's own: what it notes of its mappings */
        *(volatile unsigned *)&region_count = region_count;
        *(volatile char *)&regions[region_count] = 0;
    }
    *copied = 1;
    syscall(SYS_futex, copied, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* True in the child. The parent goes on when the child has stopped itself. */
static bool fork_child(uint32_t number)
{
    struct child *child = children;
    while (child < children + MAX_CHILDREN && child->pid)
        child++;
    pid_t parent = getpid(), pid = child < children + MAX_CHILDREN ? fork_second() : -1;
    if (pid < 0) {
        progress[task_number].failures++;
        _exit(1);
    }
    if (!pid) {
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent)
            _exit(1);
        own_pages();
        return true;
    }
    *child = (struct child){number, pid};
    int status;
    if (waitpid(pid, &status, WUNTRACED) != pid || !WIFSTOPPED(status))
        _exit(1); /* the OOM killer took it */
    return false;
}

static void reap_child(uint32_t number)
{
    struct child *child = find_child(number);
    if (!child)
        return;
    kill(child->pid, SIGKILL);
    waitpid(child->pid, NULL, 0);
    child->pid = 0;
}

static void compute(uint64_t duration_ns)
{
    uint64_t end_ns = now_ns() + duration_ns;
    while (now_ns() < end_ns)
        ;
}

static void execute(const struct op *op, uint64_t start_ns)
{
    uint64_t noted = progress[task_number].noted, begin_ns = note();
    switch (op->kind) {
    case OP_ALLOC:
        allocate(op);
        while (progress[task_number].noted < MAX_TIMED &&
               progress[task_number].noted < noted + notes_of(op))
            note(); /* where memory ended, the rest was over at once */
        break;
    case OP_TOUCH:
        touch(op);
        break;
    case OP_FREE:
        release(op->owner);
        break;
    case OP_WAIT:
        sleep_until(begin_ns + op->count);
        return;
    case OP_UNTIL:
        sleep_until(start_ns + op->count);
        return;
    case OP_WORK:
        compute(op->count);
        break;
    case OP_UNITS:
        progress[task_number].units += op->count;
        return;
    case OP_REAP:
        reap_child(op->owner);
        break;
    }
    progress[task_number].busy_ns += now_ns() - begin_ns;
}

static void execute_all(const struct op *ops, uint64_t count, uint64_t start_ns)
{
    for (uint64_t at = 0; at < count; at++) {
        if (ops[at].kind == OP_RETURN) { /* only a child comes here */
            note();
            kill(getpid(), SIGSTOP); /* raise() would stop whom the C library takes it for */
            _exit(0);
        }
        if (ops[at].kind != OP_FORK) {
            execute(&ops[at], start_ns);
            continue;
        }
        uint64_t begin_ns = note();
        if (fork_child(ops[at].owner))
            continue;
        while (at < count && ops[at].kind != OP_RETURN)
            at++; /* the child has done that */
        progress[task_number].busy_ns += now_ns() - begin_ns;
    }
}

void run_task(unsigned number, const struct stream *stream)
{
    own_pages();
    uint64_t start_ns = now_ns();
    task_number = number;
    regions = mmap(NULL, MAX_REGIONS * sizeof *regions, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (regions == MAP_FAILED)
        _exit(1);
    progress[number].place = ((uintptr_t)(regions + MAX_REGIONS) + PAGE_BYTES - 1) / PAGE_BYTES;
    const struct op *again = stream->ops + stream->first_ops;
    execute_all(stream->ops, stream->first_ops, start_ns);
    for (uint64_t loop = 0; stream->loop_ops && (!stream->loops || loop < stream->loops); loop++)
        execute_all(again, stream->loop_ops, start_ns);
    _exit(0);
}

/*
 * Mappings by the hundred, no two of which can become one: what a kernel describes them with lies
 * in slabs, of which it keeps some when they are empty again. Where a process has few mappings, no
 * new slab is wanted then, as is so in a guest that runs for long.
 */
static void map_many(void)
{
    char *memory = mmap(NULL, MANY * PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return;
    for (unsigned page = 0; page < MANY; page += 2)
        mprotect(memory + page * PAGE_BYTES, PAGE_BYTES, PROT_READ);
    munmap(memory, MANY * PAGE_BYTES);
}

/* So many processes at once that caches of what describes one have some left for those to come. */
static void fork_many(void)
{
    pid_t pids[MANY_CHILDREN];
    for (unsigned index = 0; index < MANY_CHILDREN; index++) {
        pids[index] = fork_second();
        if (!pids[index]) {
            own_pages();
            pause();
            _exit(0);
        }
    }
    for (unsigned index = 0; index < MANY_CHILDREN; index++)
        if (pids[index] > 0) {
            kill(pids[index], SIGKILL);
            waitpid(pids[index], NULL, 0);
        }
}

void rehearse(void)
{
    struct sysinfo info;
    uint64_t used = sysinfo(&info) ? 0 : info.freeram * info.mem_unit / PAGE_BYTES / 4;
    const struct op ops[] = {
        {.kind = OP_ALLOC, .owner = 0, .count = 256, .flags = FAULTED | ZEROED},
        {.kind = OP_FORK, .owner = 1},
        {.kind = OP_TOUCH, .owner = 0, .count = 16},
        {.kind = OP_RETURN},
        {.kind = OP_REAP, .owner = 1},
        {.kind = OP_FREE, .owner = 0},
        {.kind = OP_ALLOC,
         .owner = 2,
         .count = used < USED_PAGES ? used : USED_PAGES,
         .flags = COPIED},
        {.kind = OP_FREE, .owner = 2},
    };
    static struct {
        struct stream head;
        struct op ops[sizeof ops / sizeof *ops];
    } stream = {.head = {.first_ops = sizeof ops / sizeof *ops}};
    const unsigned number = MAX_TASKS - 1;

    memcpy(stream.ops, ops, sizeof ops);
    progress[number].noted = MAX_TIMED; /* none of these is noted */
    pid_t pid = fork_second();
    if (!pid) {
        map_many();
        fork_many();
        run_task(number, &stream.head);
    }
    if (pid > 0)
        waitpid(pid, NULL, 0);
    progress[number] = (struct progress){0};
}
