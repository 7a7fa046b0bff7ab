/* keeper OWNER TIMEOUT_S GRACE_S COMMAND...: runs a guest, and ends all of its processes.
 *
 * User-mode Linux is several processes, some of which outlive a kernel that was killed. The keeper
 * is the parent of every orphan among them; it ends them all when the kernel ends, when the owner
 * (a process id, our parent) ends in whatever way, on SIGTERM, and after a time. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { EXIT_TIMEOUT = 124, EXIT_CANNOT = 126, EXIT_SIGNAL = 128, POLL_MS = 20 };

static void fail(const char *what)
{
    perror(what);
    exit(EXIT_CANNOT);
}

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static pid_t start(char **command, const sigset_t *usual)
{
    pid_t pid = fork();
    if (pid < 0)
        fail("fork");
    if (pid > 0)
        return pid;
    sigprocmask(SIG_SETMASK, usual, NULL);
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    /* Without randomization, the same frames are guest memory each time. */
    personality(ADDR_NO_RANDOMIZE);
    execv(command[0], command);
    perror(command[0]);
    _exit(EXIT_CANNOT);
}

/* Reap whoever has ended. The kernel's wait status is stored when it is among them. */
static int reap(pid_t kernel, int *status)
{
    int ended = 0;
    pid_t pid;
    for (int each; (pid = waitpid(-1, &each, WNOHANG | __WALL)) > 0;)
        if (pid == kernel) {
            *status = each;
            ended = 1;
        }
    return ended;
}

/* Wait for the kernel's end, a signal to us or the deadline; true where the kernel ended. */
static int await(pid_t kernel, double deadline_s, const sigset_t *set, int *status, int *signal)
{
    *signal = 0;
    while (!reap(kernel, status)) {
        double left_s = deadline_s - now_s();
        if (left_s <= 0)
            return 0;
        struct timespec wait = {(time_t)left_s, (long)((left_s - (double)(time_t)left_s) * 1e9)};
        int got = sigtimedwait(set, NULL, &wait);
        if (got > 0 && got != SIGCHLD) {
            *signal = got;
            return 0;
        }
    }
    return 1;
}

/* Orphans come to us one generation at a time, so go on until there is none. */
static void end_all(pid_t kernel)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
    for (;;) {
        kill(-kernel, SIGKILL);
        FILE *children = fopen(path, "r");
        for (int pid; children && fscanf(children, "%d", &pid) == 1;)
            kill(pid, SIGKILL);
        if (children)
            fclose(children);
        pid_t pid;
        while ((pid = waitpid(-1, NULL, WNOHANG | __WALL)) > 0)
            ;
        if (pid < 0 && errno == ECHILD)
            return;
        struct timespec pause = {0, POLL_MS * 1000000L};
        nanosleep(&pause, NULL);
    }
}

int main(int argc, char **argv)
{
    if (argc < 5)
        return EXIT_CANNOT;
    double timeout_s = atof(argv[2]), grace_s = atof(argv[3]);
    sigset_t set, usual;
    sigemptyset(&set);
    const int taken[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGCHLD};
    for (unsigned i = 0; i < sizeof taken / sizeof *taken; i++)
        sigaddset(&set, taken[i]);
    sigprocmask(SIG_BLOCK, &set, &usual);
    if (prctl(PR_SET_PDEATHSIG, SIGTERM) || prctl(PR_SET_CHILD_SUBREAPER, 1))
        fail("prctl");
    if (getppid() != atoi(argv[1])) /* it ended before we could ask to be told */
        return EXIT_CANNOT;
    pid_t kernel = start(argv + 4, &usual);
    int status = 0, signal;
    int ended = await(kernel, now_s() + timeout_s, &set, &status, &signal);
    if (!ended) {
        /* Told to end, the kernel tidies up after itself. */
        kill(kernel, SIGTERM);
        for (double deadline_s = now_s() + grace_s; now_s() < deadline_s;)
            if (await(kernel, deadline_s, &set, &status, &(int){0}))
                break;
    }
    end_all(kernel);
    if (!ended)
        return signal ? EXIT_SIGNAL + signal : EXIT_TIMEOUT;
    return WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_SIGNAL + WTERMSIG(status);
}
