/* SPDX-License-Identifier: MIT */
/* What the files of the suite for several processors share. A test gives each processor something
 * to start with, and ends when it has counted to what it expects.
 *
 * Checks made by tasks go through cpus_check(): a report is for one processor at a time. */
#ifndef KIT_TESTING_SUITE_SCHED_CPUS_BENCH_H
#define KIT_TESTING_SUITE_SCHED_CPUS_BENCH_H

#include <unikit/testing/suite_sched_cpus.h>

enum { CPUS_MAX = 16, CPUS_STACK = 65536 };

#define CPUS_GET(word) __atomic_load_n(&(word), __ATOMIC_SEQ_CST)
#define CPUS_SET(word, value) __atomic_store_n(&(word), value, __ATOMIC_SEQ_CST)
#define CPUS_SWAP(word, value) __atomic_exchange_n(&(word), value, __ATOMIC_SEQ_CST)
#define CPUS_ADD(word, value) __atomic_fetch_add(&(word), value, __ATOMIC_SEQ_CST)

struct cpus_ledger {
    struct kit_alloc base;
    struct kit_alloc *inner;
    size_t blocks; /* shared */
    size_t bytes;  /* shared */
};

struct cpus_bench;

struct cpus_seat {
    struct cpus_bench *bench;
    uint32_t number;
};

struct cpus_bench {
    struct kit_report *report;
    const struct kit_sched_component *component;
    const uint64_t *options;
    runtime_environment_t *env;
    struct cpus_ledger heap;
    uint32_t cpus;
    uint32_t rounds;
    struct kit_sched *s;
    void (*start)(struct cpus_bench *b, uint32_t cpu); /* each processor's first act; or NULL */
    void *stage;                                       /* the test's */
    uint32_t number;                                   /* of the test, counted from 1 */
    uint32_t over;    /* shared: the number of the last test that is over */
    uint32_t started; /* shared: processors that have done their first act */
    uint32_t stopped; /* shared: processors that have left the test */
    uint32_t done;    /* shared: what the test counts, until it is `expected` */
    uint32_t expected;
    uint32_t failures; /* shared: failed checks of tasks */
    uint32_t line;     /* shared: of the first of them, in `file` */
    const char *file;
    const char *what;
    bool lost; /* a test did not end: processors may still be in it */
    struct cpus_seat seats[CPUS_MAX];
};

/* Runs one test: every processor calls `start` and then serves the scheduler until
 * cpus_done() was called `expected` times. */
void cpus_run(struct cpus_bench *b, const char *test, void *stage,
              void (*start)(struct cpus_bench *b, uint32_t cpu), uint32_t expected);
void cpus_check(struct cpus_bench *b, bool passed, const char *file, uint32_t line,
                const char *what);
/* By a task or by `start`; NULL for a detached task, or after a failure that was counted. */
struct kit_task *cpus_spawn(struct cpus_bench *b, void (*entry)(void *), void *argument,
                            uint32_t flags);
/* Counts one: the last act of something that is counted. The test is over with the last of them. */
void cpus_done(struct cpus_bench *b);
/* The processor that runs this. */
uint32_t cpus_here(struct cpus_bench *b);

#define CPUS_CHECK(b, condition) cpus_check(b, condition, __FILE__, __LINE__, #condition)

void cpus_suite_tasks(struct cpus_bench *b);
void cpus_suite_idle(struct cpus_bench *b);
void cpus_suite_sync(struct cpus_bench *b);
void cpus_suite_any(struct cpus_bench *b);

#endif
