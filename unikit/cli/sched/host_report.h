/* SPDX-License-Identifier: MIT */
/* What the measuring programs share: a quiet place, clocks, answers as lines «name value». */
#ifndef KIT_CLI_SCHED_HOST_REPORT_H
#define KIT_CLI_SCHED_HOST_REPORT_H

#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

/* Stays on the processor $UNIKIT_BENCH_CPU, and keeps neighbours off it as far as permitted: by a
 * real-time policy, or, where the system's own scheduling is what is measured, by the best nice
 * value. Says which: «quiet 1». */
static inline void report_quiet(int real_time)
{
    const char *cpu = getenv("UNIKIT_BENCH_CPU");
    const struct sched_param param = {1};
    if (cpu != NULL) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET((size_t)atoi(cpu), &set);
        sched_setaffinity(0, sizeof(set), &set);
    }
    printf("quiet %d\n", (real_time ? sched_setscheduler(0, SCHED_FIFO, &param)
                                    : setpriority(PRIO_PROCESS, 0, -20)) == 0);
}

static inline uint64_t report_clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline void report_value(const char *name, double value)
{
    printf("%s %.6g\n", name, value);
}

static int report_compare(const void *one, const void *two)
{
    uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)two;
    return (a > b) - (a < b);
}

/* Percentiles in microseconds: «p99.9 12.5». */
static inline void report_samples(uint64_t *values, size_t count)
{
    static const double parts[] = {0,  1,  5,  10, 20, 30, 40,   50,   60,
                                   70, 80, 90, 95, 98, 99, 99.5, 99.9, 100};
    qsort(values, count, sizeof(*values), report_compare);
    for (size_t i = 0; i < sizeof(parts) / sizeof(*parts) && count > 0; i++) {
        size_t at = (size_t)((double)(count - 1) * parts[i] / 100 + 0.5);
        printf("p%g %.6g\n", parts[i], (double)values[at] / 1000);
    }
}

#endif
