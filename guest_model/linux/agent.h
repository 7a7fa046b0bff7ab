/* What the parts of the agent share: the operations of a plan, and what tasks tell of themselves.
 */
#ifndef FPR_AGENT_H
#define FPR_AGENT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define PAGE_BYTES 4096UL
#define MAX_TASKS 1024
#define MAX_TIMED 131072 /* instants that a task notes */
#define USED_PAGES 16384 /* of a first file, or a quarter of what is free where that is less */
#define NOTE_PAGES 32 /* of an allocation: its begin is noted, and each time so much is written */
#define NS_PER_S 1000000000ULL

enum {
    OP_ALLOC,
    OP_TOUCH,
    OP_FREE,
    OP_WAIT,
    OP_UNTIL,
    OP_WORK,
    OP_UNITS,
    OP_FORK,
    OP_RETURN,
    OP_REAP
};
enum { FAULTED = 1, ZEROED = 2, COPIED = 4 };
enum status { RUNNING, DONE, STOPPED, FAILED };

struct op {
    uint64_t count;
    uint32_t owner;
    uint8_t kind, order, type;
    uint32_t flags;
};
_Static_assert(sizeof(struct op) == 24, "the layout of OP_DTYPE");

struct stream {
    uint64_t magic, first_ops, loop_ops, loops; /* loops: 0 is for ever */
    struct op ops[];
};

struct task {
    unsigned phase, workload;
    uint64_t duration_ns;
    const struct stream *stream;
    pid_t pid;
    enum status status;
    uint64_t end_ns;
};

/* What the tasks, which may be killed at any time, have done. */
struct progress {
    uint64_t units, busy_ns, failures, noted;
    uint64_t place; /* page of its address space where its first mapping will lie */
};

extern struct progress *progress;     /* of each task */
extern uint64_t *instants[MAX_TASKS]; /* that each task noted, in their order */

uint64_t now_ns(void);
void sleep_until(uint64_t instant_ns);
/* How many instants an operation notes. */
uint64_t notes_of(const struct op *op);
/* What fork_second waits for: a word that all processes share. */
extern uint32_t *copied;
/* A fork after which the child runs first: -1 on failure, 0 in the child, which calls own_pages. */
pid_t fork_second(void);
/* Copy for this process what its parent is about to write, and let the parent go on. */
void own_pages(void);
/* Execute a task's stream on real memory, in a process of its own. */
_Noreturn void run_task(unsigned number, const struct stream *stream);
/* Execute each kind of operation once, before anybody looks, as a guest has that was used before:
 * where a kernel's caches have never held an object, the first one takes a page that stays; and
 * remains of page blocks that nobody has touched since boot become resident with the first file,
 * and stay so where they are too small to be reported. */
void rehearse(void);

#endif
