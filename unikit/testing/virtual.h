/* SPDX-License-Identifier: MIT */
/* A runtime environment in which nothing happens by itself: the clock stands until it is set,
 * wait() jumps to its deadline, randomness follows from a seed, the console is memory. Whatever
 * runs on it can be repeated exactly. */
#ifndef KIT_TESTING_VIRTUAL_H
#define KIT_TESTING_VIRTUAL_H

#include <unikit/platform/env.h>

/* cdef: begin */
enum { KIT_VIRTUAL_OUTPUT = 8192 };

struct kit_virtual {
    runtime_environment_t env;
    struct kit_cpu cpu;
    console_interface_t console;
    uint64_t clock_ns; /* what now_ns returns; set it at will, but never back */
    uint64_t epoch_ns; /* wall clock at clock_ns 0; 0: the platform has no wall clock */
    uint64_t random;   /* state of the entropy source: the seed */
    uint64_t waits;    /* calls of wait() so far */
    uint32_t wake;     /* what the next wait() finds ready (KIT_WAKE_*); then the clock stands */
    bool exited;       /* exit() was called, with exit_code; it ends in a panic */
    int32_t exit_code;
    const char *input; /* what the console reads, input_length bytes, consumed as it is read */
    size_t input_length;
    char output[KIT_VIRTUAL_OUTPUT]; /* what it wrote, the first bytes of it */
    size_t output_length;            /* of these; what did not fit was not taken */
};

/* Sets everything up; memory is optional (NULL, 0). Optional members of the environment are NULL
 * and may be set afterwards. */
void kit_virtual_open(struct kit_virtual *virtual, void *memory, size_t size, uint64_t seed);
/* The environment, for callers that cannot take a member's address. */
runtime_environment_t *kit_virtual_environment(struct kit_virtual *virtual);
/* Lets time pass. */
void kit_virtual_advance(struct kit_virtual *virtual, uint64_t ns);
/* cdef: end */

#endif
