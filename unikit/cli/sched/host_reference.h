/* SPDX-License-Identifier: MIT */
/* What the files of the program with POSIX threads share. */
#ifndef KIT_CLI_SCHED_HOST_REFERENCE_H
#define KIT_CLI_SCHED_HOST_REFERENCE_H

#include <pthread.h>
#include <stdbool.h>

#include <unikit/cli/sched/host_report.h>

/* Both end the program if it cannot be done. */
void reference_fail(const char *what, int error);
void reference_start(pthread_t *thread, void *(*entry)(void *), void *argument);
void reference_messages(size_t groups, size_t loops, bool by_pipes);

#endif
