/* SPDX-License-Identifier: MIT */
/* Runs one program under test and says what it cost.
 *
 *   launch CONTROL REPORT CPU PRELOAD PROGRAM [ARGUMENT...]
 *
 * Why a process between the measuring one and the program: the kernel counts the peak memory of a
 * process from its fork on, exec included, so that a child of a large interpreter can never report
 * less than that interpreter had. This one is small, and its fork starts from a clean count.
 *
 * It becomes the parent of whatever the program leaves behind (PR_SET_CHILD_SUBREAPER), so nothing
 * survives it: the end of file on CONTROL, which the death of the measuring process causes too,
 * kills all of them.
 *
 * CONTROL: a descriptor to read from; 'T' asks the program to end (SIGTERM), 'K' or the end of file
 * kills it and every descendant. REPORT: a descriptor for two lines:
 *   pid N                              once the program runs, or
 *   error ERRNO                        if it cannot be executed
 *   end STATUS WALL_NS USER_US SYSTEM_US MAXRSS_KIB MINFLT MAJFLT VOLUNTARY INVOLUNTARY LEFT
 * with STATUS as from wait(2), times and faults with all descendants, MAXRSS of the largest process
 * among them, and LEFT, how many outlived the program and were killed.
 * CPU: the one to stay on, or -1. PRELOAD: LD_PRELOAD of the program, or empty for none. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct run {
    pid_t pid;
    bool ended;
    int status;
    int left;
    struct timespec start, end;
    struct rusage all;
};

static void add_time(struct timeval *sum, const struct timeval *more)
{
    timeradd(sum, more, sum);
}

/* Adds what a process that was waited for has used, with its waited-for descendants. */
static void add(struct rusage *all, const struct rusage *one)
{
    add_time(&all->ru_utime, &one->ru_utime);
    add_time(&all->ru_stime, &one->ru_stime);
    all->ru_maxrss = one->ru_maxrss > all->ru_maxrss ? one->ru_maxrss : all->ru_maxrss;
    all->ru_minflt += one->ru_minflt;
    all->ru_majflt += one->ru_majflt;
    all->ru_nvcsw += one->ru_nvcsw;
    all->ru_nivcsw += one->ru_nivcsw;
}

/* Takes the dead; false: there are no children any more. */
static bool reap(struct run *run, int flags)
{
    for (;;) {
        int status;
        struct rusage one;
        pid_t pid = wait4(-1, &status, flags, &one);
        if (pid < 0 && errno == EINTR) {
            continue;
        }
        if (pid <= 0) {
            return pid == 0;
        }
        add(&run->all, &one);
        if (pid == run->pid) {
            clock_gettime(CLOCK_MONOTONIC, &run->end);
            run->ended = true;
            run->status = status;
        } else if (run->ended) {
            run->left++;
        }
        if ((flags & WNOHANG) == 0) {
            return true;
        }
    }
}

/* The parent of a process, or 0 if it is gone. The name in stat may hold anything but the last
 * parenthesis. */
static pid_t parent_of(const char *pid)
{
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%.20s/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return 0;
    }
    ssize_t got = read(fd, line, sizeof line - 1);
    close(fd);
    line[got > 0 ? got : 0] = '\0';
    const char *rest = strrchr(line, ')');
    int parent = 0;
    return rest != NULL && sscanf(rest + 1, " %*c %d", &parent) == 1 ? parent : 0;
}

static void kill_children(void)
{
    DIR *proc = opendir("/proc");
    if (proc == NULL) {
        return;
    }
    const struct dirent *entry;
    while ((entry = readdir(proc)) != NULL) {
        if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9' &&
            parent_of(entry->d_name) == getpid()) {
            kill((pid_t)atoi(entry->d_name), SIGKILL);
        }
    }
    closedir(proc);
}

/* Ends every descendant: as one dies its children become ours, and the next turn finds them. */
static void kill_all(struct run *run)
{
    if (!run->ended) {
        kill(-run->pid, SIGKILL);
    }
    do {
        kill_children();
    } while (reap(run, 0));
}

static void become_program(int failed, int cpu, const char *preload, char **words)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setpgid(0, 0);
    int error = 0;
    if (cpu >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET((size_t)cpu, &set);
        error = sched_setaffinity(0, sizeof set, &set) != 0 ? errno : 0;
    }
    if (preload[0] != '\0') {
        setenv("LD_PRELOAD", preload, 1);
    } else {
        unsetenv("LD_PRELOAD");
    }
    if (error == 0) {
        execvp(words[0], words);
        error = errno;
    }
    if (write(failed, &error, sizeof error) < 0) {
        _exit(126);
    }
    _exit(127);
}

/* Starts the program; 0 or the error number of exec. */
static int start(struct run *run, int cpu, const char *preload, char **words)
{
    int failed[2], error = 0;
    if (pipe2(failed, O_CLOEXEC) != 0) {
        return errno;
    }
    clock_gettime(CLOCK_MONOTONIC, &run->start);
    run->pid = fork();
    if (run->pid < 0) {
        return errno;
    }
    if (run->pid == 0) {
        become_program(failed[1], cpu, preload, words);
    }
    setpgid(run->pid, run->pid);
    close(failed[1]);
    ssize_t got = read(failed[0], &error, sizeof error);
    close(failed[0]);
    return got == (ssize_t)sizeof error ? error : 0;
}

/* Waits for the end of the program, obeying CONTROL. */
static void attend(struct run *run, int control, int signals)
{
    struct pollfd watched[2] = {{.fd = signals, .events = POLLIN},
                                {.fd = control, .events = POLLIN}};
    while (!run->ended) {
        if (poll(watched, 2, -1) < 0 && errno != EINTR) {
            return;
        }
        if (watched[0].revents != 0) {
            struct signalfd_siginfo info;
            if (read(signals, &info, sizeof info) == (ssize_t)sizeof info &&
                info.ssi_signo != SIGCHLD) {
                return;
            }
            reap(run, WNOHANG);
        }
        if (watched[1].revents != 0) {
            char order = 'K';
            if (read(control, &order, 1) != 1 || order != 'T') {
                return;
            }
            if (!run->ended) {
                kill(run->pid, SIGTERM);
            }
        }
    }
}

static void report(int fd, const struct run *run)
{
    long long wall = (run->end.tv_sec - run->start.tv_sec) * 1000000000LL +
                     (run->end.tv_nsec - run->start.tv_nsec);
    const struct rusage *all = &run->all;
    dprintf(fd, "end %d %lld %lld %lld %ld %ld %ld %ld %ld %d\n", run->status, wall,
            all->ru_utime.tv_sec * 1000000LL + all->ru_utime.tv_usec,
            all->ru_stime.tv_sec * 1000000LL + all->ru_stime.tv_usec, all->ru_maxrss,
            all->ru_minflt, all->ru_majflt, all->ru_nvcsw, all->ru_nivcsw, run->left);
}

int main(int count, char **words)
{
    if (count < 6) {
        return 2;
    }
    int control = atoi(words[1]), out = atoi(words[2]);
    fcntl(control, F_SETFD, FD_CLOEXEC);
    fcntl(out, F_SETFD, FD_CLOEXEC);
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    sigset_t watched;
    sigemptyset(&watched);
    sigaddset(&watched, SIGCHLD);
    sigaddset(&watched, SIGTERM);
    sigaddset(&watched, SIGINT);
    sigaddset(&watched, SIGHUP);
    sigprocmask(SIG_BLOCK, &watched, NULL);
    int signals = signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK);
    struct run run = {0};
    int error = start(&run, atoi(words[3]), words[4], words + 5);
    if (error != 0) {
        dprintf(out, "error %d\n", error);
        return 1;
    }
    dprintf(out, "pid %d\n", (int)run.pid);
    attend(&run, control, signals);
    kill_all(&run);
    report(out, &run);
    return 0;
}
