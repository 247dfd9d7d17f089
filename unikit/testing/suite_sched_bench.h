/* SPDX-License-Identifier: MIT */
/* What the files of the scheduler suite share: one scheduler at a time on a virtual clock, and an
 * allocator that counts and fails on order. */
#ifndef KIT_TESTING_SUITE_SCHED_BENCH_H
#define KIT_TESTING_SUITE_SCHED_BENCH_H

#include <unikit/testing/suite_sched.h>

struct sched_ledger {
    struct kit_alloc base;
    struct kit_alloc *inner;
    size_t blocks;    /* given out now */
    size_t bytes;     /* in them */
    uint64_t calls;   /* requests so far */
    uint64_t fail_at; /* the request that fails, counted from 1; 0: none */
};

struct sched_bench {
    struct kit_report *report;
    const struct kit_sched_component *component;
    const uint64_t *options;
    struct kit_virtual *clock;
    struct sched_ledger heap;
    struct kit_sched *s;
    uint64_t random;
    char log[128]; /* what happened, one letter each */
    size_t logged;
};

/* Opens the scheduler for one test; false: it could not (and that was reported). */
bool sched_bench_open(struct sched_bench *b, const char *test);
/* Checks, closes it and looks whether all memory came back. */
void sched_bench_close(struct sched_bench *b);
void sched_log(struct sched_bench *b, char letter);
/* Whether the log says this; empties it. */
bool sched_logged(struct sched_bench *b, const char *text);
/* One turn, with the invariants looked at before and after. */
bool sched_step(struct sched_bench *b);
/* Turns until nothing is ready, without letting time pass; at most `limit` turns. */
void sched_settle(struct sched_bench *b, int limit);
/* Turns, time jumping to each deadline, until nothing is left; at most `limit` turns. */
void sched_drain(struct sched_bench *b, int limit);
struct kit_sched_stats sched_stats(struct sched_bench *b);
/* Spawns and reports a failure; NULL for a detached task or on failure. */
struct kit_task *sched_spawn(struct sched_bench *b, void (*entry)(void *), void *argument,
                             uint32_t flags);

void sched_suite_events(struct sched_bench *b);
void sched_suite_tasks(struct sched_bench *b);
void sched_suite_threads(struct sched_bench *b);
void sched_suite_crowd(struct sched_bench *b);
void sched_suite_faults(struct sched_bench *b);
void sched_suite_sync(struct sched_bench *b);
void sched_suite_wait(struct sched_bench *b);
void sched_suite_share(struct sched_bench *b);
void sched_suite_weight(struct sched_bench *b);
void sched_suite_reserve(struct sched_bench *b);

#endif
