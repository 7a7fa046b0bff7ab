/* Private to the host: what the measuring threads and the thread that serves faults share. */
#ifndef FPR_MEASURE_PRIVATE_H
#define FPR_MEASURE_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <time.h>

#include "host_model/native/measure.h"

#define FPR_MEASURE_PAGE 4096u
#define FPR_MEASURE_HUGE 2097152u

/* A thread that serves faults of a range through a userfaultfd. */
struct fpr_fault_server {
    pthread_t thread;
    int fd, stop; /* userfaultfd, and an eventfd that ends the thread; -1: none */
    uint32_t kind;
    uint64_t page_bytes;
};

struct fpr_measure_worker {
    struct fpr_measure *measure;
    pthread_t thread;
    uint8_t *area;
    bool company;
    int error;        /* errno of the call that failed */
    int schedstat;    /* of this thread; -1: the kernel does not tell */
    uint64_t wait_ns; /* that it stood in the queue for a CPU so far */
    struct fpr_histogram each, groups, waits;
};

struct fpr_measure {
    struct fpr_measure_config config;
    struct fpr_measure_order order;
    struct fpr_fault_server server;
    uint8_t *reserved, *base;
    uint64_t bytes, reserved_bytes;
    int fd;
    uint64_t clock_ns;
    pthread_mutex_t lock; /* of the gate, which all threads start from */
    pthread_cond_t opened;
    enum { FPR_GATE_SHUT, FPR_GATE_OPEN, FPR_GATE_CALLED_OFF } gate;
    atomic_uint begun;
    atomic_bool ended;
    struct fpr_measure_worker *workers; /* config.threads of them */
};

static inline uint64_t fpr_measure_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Serve the faults of [base, base + bytes), which `fd` backs, until stopped. */
int fpr_fault_server_start(struct fpr_fault_server *server, uint32_t kind, uint64_t page_bytes,
                           uint8_t *base, uint64_t bytes);
void fpr_fault_server_stop(struct fpr_fault_server *server);

#endif
