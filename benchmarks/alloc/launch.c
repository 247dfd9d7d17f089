/* SPDX-License-Identifier: MIT */
/* Runs a command with an allocator preloaded and prints what it cost, as one line of JSON.
 *
 * The command is traced, but stopped only when it is loaded and when it ends, with all of its
 * memory still there. So its own high-water mark is read and not that of whoever forked it
 * (ru_maxrss of a child starts with its parent's), and whether the library is really mapped: the
 * dynamic loader only warns when a preload fails. Linked statically, to be small.
 *
 *   launch [-c CPU] [-l SECONDS] [-t] [-p LIBRARY] [-f WORDS] [-e NAME=VALUE]... -- COMMAND...
 *
 * -c pins, -l kills after so long, -t forbids transparent huge pages, -f is what the path of the
 * mapping must contain, -v leaves the command its output. SIGTERM is passed on. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { VARIABLES = 16 };

static struct {
    int cpu;
    unsigned limit;
    int no_huge_pages, verbose, variables;
    const char *preload, *find;
    char *variable[VARIABLES];
} ask = {.cpu = -1};

static volatile sig_atomic_t timed_out;
static volatile pid_t child;

static void die(const char *what)
{
    fprintf(stderr, "launch: %s: %s\n", what, strerror(errno));
    _exit(126);
}

static void on_alarm(int number)
{
    (void)number;
    timed_out = 1;
    kill(child, SIGKILL);
}

static void on_term(int number)
{
    kill(child, number);
}

static void become(char **command)
{
    if (ask.cpu >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET((size_t)ask.cpu, &set);
        if (sched_setaffinity(0, sizeof set, &set))
            die("affinity");
    }
    if (ask.no_huge_pages && prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0))
        die("transparent huge pages");
    for (int n = 0; n < ask.variables; n++)
        putenv(ask.variable[n]);
    if (ask.preload && setenv("LD_PRELOAD", ask.preload, 1))
        die("environment");
    if (!ask.verbose) {
        int null = open("/dev/null", O_WRONLY);
        dup2(null, 1);
        dup2(null, 2);
    }
    if (ptrace(PTRACE_TRACEME, 0, 0, 0))
        die("trace");
    execvp(command[0], command);
    die(command[0]);
}

/* The number after `name` in /proc/PID/status, or -1. */
static long status_field(const char *name)
{
    char path[64], line[256];
    long value = -1;
    snprintf(path, sizeof path, "/proc/%d/status", (int)child);
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file))
        if (!strncmp(line, name, strlen(name)))
            value = strtol(line + strlen(name) + 1, NULL, 10);
    if (file)
        fclose(file);
    return value;
}

static int is_mapped(const char *words)
{
    char path[64], line[4096 + 128];
    int found = 0;
    snprintf(path, sizeof path, "/proc/%d/maps", (int)child);
    FILE *file = fopen(path, "r");
    while (file && !found && fgets(line, sizeof line, file))
        found = strstr(line, words) != NULL;
    if (file)
        fclose(file);
    return found;
}

struct found {
    long peak_kib;
    int mapped, status;
    struct rusage used;
};

/* Waits for the end; at every stop the command goes on, with the signal it was stopped for. */
static void watch(struct found *found)
{
    int status, loaded = 0;
    while (wait4(child, &status, __WALL, &found->used) == child && WIFSTOPPED(status)) {
        int number = WSTOPSIG(status), event = status >> 16;
        if (event == PTRACE_EVENT_EXIT) {
            found->peak_kib = status_field("VmHWM");
            found->mapped = !ask.find || is_mapped(ask.find);
        } else if (!loaded && number == SIGTRAP) {
            loaded = 1;
            ptrace(PTRACE_SETOPTIONS, child, 0,
                   PTRACE_O_TRACEEXIT | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL);
            number = 0;
        }
        ptrace(PTRACE_CONT, child, 0, event ? 0 : number);
    }
    found->status = status;
}

static char **read_arguments(int count, char **values)
{
    for (int option; (option = getopt(count, values, "+c:l:tvp:f:e:")) != -1;)
        switch (option) {
        case 'c':
            ask.cpu = atoi(optarg);
            break;
        case 'l':
            ask.limit = (unsigned)atoi(optarg);
            break;
        case 't':
            ask.no_huge_pages = 1;
            break;
        case 'v':
            ask.verbose = 1;
            break;
        case 'p':
            ask.preload = optarg;
            break;
        case 'f':
            ask.find = optarg;
            break;
        case 'e':
            if (ask.variables < VARIABLES)
                ask.variable[ask.variables++] = optarg;
            break;
        default:
            exit(125);
        }
    return values + optind;
}

static double seconds(struct timeval time)
{
    return (double)time.tv_sec + (double)time.tv_usec * 1e-6;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

int main(int count, char **values)
{
    char **command = read_arguments(count, values);
    struct found found = {.peak_kib = -1};
    double start = now();
    fflush(NULL);
    child = fork();
    if (child < 0)
        die("fork");
    if (!child)
        become(command);
    signal(SIGALRM, on_alarm); /* wait4 is restarted afterwards */
    signal(SIGTERM, on_term);
    alarm(ask.limit);
    watch(&found);
    int killed = WIFSIGNALED(found.status) ? WTERMSIG(found.status) : 0;
    printf("{\"user\": %.6f, \"system\": %.6f, \"wall\": %.6f, \"peak_kib\": %ld, "
           "\"minor\": %ld, \"major\": %ld, \"mapped\": %s, \"timeout\": %s, "
           "\"signal\": %d, \"status\": %d}\n",
           seconds(found.used.ru_utime), seconds(found.used.ru_stime), now() - start,
           found.peak_kib, found.used.ru_minflt, found.used.ru_majflt,
           found.mapped ? "true" : "false", timed_out ? "true" : "false", killed,
           killed ? -1 : WEXITSTATUS(found.status));
    return 0;
}
