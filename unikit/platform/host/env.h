/* SPDX-License-Identifier: MIT */
/* The runtime environment of this very process: what components need to run outside any image.
 * Hosted code only.
 *
 * Many may live in one process. One thread at a time uses an environment;
 * kit_host_environment_wake, _input and _output may be called from any thread meanwhile. With
 * several processors each further one is a thread, made by env->cpu_start; any thread that is none
 * of these is processor 0. */
#ifndef KIT_PLATFORM_HOST_ENV_H
#define KIT_PLATFORM_HOST_ENV_H

#include <unikit/platform/env.h>

/* cdef: begin */
enum {
    KIT_HOST_FILES_MAX = 32,   /* descriptors that wait() watches */
    KIT_HOST_REGIONS_MAX = 32, /* regions besides env.memory whose pages may be changed */
    KIT_HOST_CONSOLE = 65536,  /* bytes kept in each direction */
};

enum { KIT_HOST_RUNS = 0, KIT_HOST_EXITED = 1, KIT_HOST_PANICKED = 2 };

struct kit_host_settings {
    uint64_t memory;     /* bytes of env.memory, rounded up to pages; 0: none */
    int32_t output;      /* console output goes to this descriptor; -1: it is kept for _output */
    int32_t input;       /* console input comes from this descriptor; -1: from _input */
    const char *options; /* name, NUL, value, NUL, ... of `options_bytes`; copied */
    uint64_t options_bytes;
    uint32_t cpus; /* processors, at most KIT_CPUS_MAX; 0: one */
};

struct kit_host_environment;

/* 0 and *out; KIT_ENOMEM; KIT_EIO: the host has no descriptor left; KIT_EMALFORMED: options. */
int kit_host_environment_open(const struct kit_host_settings *settings,
                              struct kit_host_environment **out);
/* Further processors end where they wait, now or later: each MUST come to env->wait, or return. */
void kit_host_environment_close(struct kit_host_environment *host);
runtime_environment_t *kit_host_environment_env(struct kit_host_environment *host);

/* As env->wait; also ended by kit_host_environment_wake (KIT_WAKE_CPU if asked for), and with 0 by
 * a signal, so that an interpreter can look at it. */
uint32_t kit_host_environment_wait(struct kit_host_environment *host, uint64_t deadline_ns,
                                   uint32_t wake);
/* Ends the wait that runs now, or the next one. */
void kit_host_environment_wake(struct kit_host_environment *host);

/* Lets wait() watch a descriptor that becomes readable, as KIT_WAKE_NETWORK. 0, KIT_ENOMEM: too
 * many, KIT_EEXIST. */
int kit_host_environment_watch(struct kit_host_environment *host, int fd);
/* 0, KIT_ENOENT. */
int kit_host_environment_unwatch(struct kit_host_environment *host, int fd);

/* Lets page_release and page_protect change memory that is not env.memory: private anonymous
 * mappings of the caller's. 0, KIT_EINVAL: not whole pages, KIT_ENOMEM: too many. */
int kit_host_environment_add_region(struct kit_host_environment *host, void *base, uint64_t size);
int kit_host_environment_remove_region(struct kit_host_environment *host, void *base);

/* Takes up to `size` bytes of kept output; how many. */
size_t kit_host_environment_output(struct kit_host_environment *host, char *buffer, size_t size);
/* Gives input; the number of bytes there was room for. */
size_t kit_host_environment_input(struct kit_host_environment *host, const char *data, size_t size);

/* KIT_HOST_*: whether env->exit or the panic handler was called, and with which code. */
int kit_host_environment_fate(const struct kit_host_environment *host, int32_t *code);
/* cdef: end */

#endif
