/* SPDX-License-Identifier: MIT */
/* The recorder: a library in front of a program's allocator, which notes each call and passes it
 * on. One source, two libraries: one to preload, whose functions have the names of the malloc
 * family, and one to attach (-DKIT_RECORD_ATTACH), to whose functions others point the program. */
#ifndef KIT_ALLOC_LAB_HOST_RECORD_H
#define KIT_ALLOC_LAB_HOST_RECORD_H

#include <stddef.h>
#include <stdint.h>

#include <unikit/alloc/lab/trace.h>

#define RECORD_COLD __attribute__((noinline, cold))
#define RECORD_PUBLIC __attribute__((visibility("default")))

enum { RECORD_CHUNK = 65536 };

/* What is recorded, and what calls are passed on to. */
#define RECORD_FAMILY(X)                                                                           \
    X(malloc)                                                                                      \
    X(free)                                                                                        \
    X(calloc)                                                                                      \
    X(realloc)                                                                                     \
    X(reallocarray)                                                                                \
    X(aligned_alloc) X(memalign) X(posix_memalign) X(valloc) X(pvalloc) X(free_sized)              \
        X(free_aligned_sized) X(_Znwm) X(_Znam) X(_ZnwmRKSt9nothrow_t) X(_ZnamRKSt9nothrow_t)      \
            X(_ZnwmSt11align_val_t) X(_ZnamSt11align_val_t) X(_ZnwmSt11align_val_tRKSt9nothrow_t)  \
                X(_ZnamSt11align_val_tRKSt9nothrow_t) X(_ZdlPv) X(_ZdaPv) X(_ZdlPvm) X(_ZdaPvm)    \
                    X(_ZdlPvSt11align_val_t) X(_ZdaPvSt11align_val_t) X(_ZdlPvmSt11align_val_t)    \
                        X(_ZdaPvmSt11align_val_t) X(_ZdlPvRKSt9nothrow_t) X(_ZdaPvRKSt9nothrow_t)  \
                            X(_ZdlPvSt11align_val_tRKSt9nothrow_t)                                 \
                                X(_ZdaPvSt11align_val_tRKSt9nothrow_t)

enum record_index {
#define RECORD_INDEX(name) RECORD_AT_##name,
    RECORD_FAMILY(RECORD_INDEX)
#undef RECORD_INDEX
        RECORD_COUNT
};

/* A writer's place: one thread's at a time, and kept for the next thread when it ends. */
struct record_stream {
    struct kit_trace_state state;
    uint8_t *at, *end; /* in the chunk; end leaves room for one event */
    struct kit_trace_chunk *chunk;
    struct record_stream *next;  /* among those that no thread has */
    struct record_stream *other; /* of all */
    uint32_t number, sequence;
    uint32_t thread; /* whose events come now */
};

/* What a thread has of its own: small, for a library that is attached gets little room there. */
struct record_thread {
    struct record_stream *stream;
    uint32_t number; /* + 1; 0: not known yet */
    uint16_t depth;  /* of calls inside calls, of which the outermost counts */
    uint16_t turn;   /* of recordings in this process, in which the number was given */
};

extern _Thread_local struct record_thread record_thread __attribute__((tls_model("initial-exec")));
extern void *record_next[RECORD_COUNT];
/* 0: not looked up yet; 1: in the middle of that; 2: pass on only; 3: record. */
extern _Atomic int record_state;

/* Looks up what to pass calls on to, and begins to record if a file is asked for. */
void record_begin(void);
/* Room for one event in the calling thread's stream; NULL: nothing is recorded (any more). */
struct record_stream *record_room(uint64_t ticks);
/* A call site that the chunk does not know yet: makes sure that its module is in the trace. */
void record_site(uint64_t site);
/* Whether a call site lies in code that is in the trace. */
bool record_known(uint64_t site);
/* Puts what is mapped now into the trace: into chunks that `map` makes; NULL: there is no room. */
typedef struct kit_trace_chunk *record_mapper(void);
void record_modules(record_mapper *map);
void record_forget_modules(void);
/* Memory for calls before anything can be passed on: from dlsym. Zeroed. */
void *record_early(size_t size, size_t align);
int record_is_early(const void *block);
size_t record_early_size(const void *block);

#endif
