/* Writing to event descriptors of another process, which can make every write to them block: it
 * fills the counter, and takes O_NONBLOCK off, between any check and the write. Asynchronous I/O
 * has the kernel raise the counter when a read of nothing is done, and that never waits. */
#ifndef FPR_EVENT_SIGNAL_H
#define FPR_EVENT_SIGNAL_H

#include <stdint.h>

struct fpr_signaller {
    uint64_t context; /* of asynchronous I/O; 0 where this system has none */
    int32_t source;   /* what is read: nothing */
};

/* FPR_SYSTEM where not even /dev/null can be opened. Belongs to one thread. */
int fpr_signaller_open(struct fpr_signaller *out);
/* Raise the counter of an event descriptor by 1; *sent is 0 where it takes nothing. Without
 * asynchronous I/O it is looked at before, which leaves a moment for the other process. */
int fpr_signaller_send(const struct fpr_signaller *signaller, int fd, uint32_t *sent);
void fpr_signaller_close(struct fpr_signaller *signaller);

#endif
