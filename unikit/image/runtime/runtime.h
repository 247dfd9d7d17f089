/* SPDX-License-Identifier: MIT */
/* What the runtime's files share. The one writable object of an image's own beside the boot
 * options; layer 4 alone may have it. */
#ifndef KIT_IMAGE_RUNTIME_RUNTIME_H
#define KIT_IMAGE_RUNTIME_RUNTIME_H

#include <unikit/image/runtime/composition.h>

enum { KIT_EXIT_REFUSED = 2 /* the image cannot run with what the boot gave it */ };

/* Whether each processor has a face of the allocator of its own, from the composer. */
#ifndef KIT_WITH_FACES
#define KIT_WITH_FACES 0
#endif

struct kit_runtime {
    unikernel_state_t state;
    struct kit_alloc *alloc;
    struct kit_sched *sched;
    struct kit_net *net;          /* NULL: the composition has none */
    network_interface_t *network; /* what it stands on */
    console_interface_t *console;
    size_t console_lost;      /* bytes that the console did not take since it last took something */
    bool net_polled;          /* a poll of the stack is running */
    bool console_wanted;      /* the application reads: input is an event to wait for */
    bool console_rang;        /* a wait ended for input, and nobody has read since */
    bool console_mute;        /* input that nobody can read (no such console, its end): no event */
    uint64_t system_requests; /* of memory, before the application began */
#if KIT_WITH_FACES
    struct kit_alloc *faces[KIT_CPUS_MAX]; /* of the allocator, for each processor */
#endif
};

extern struct kit_runtime kit_runtime;

/* Whether the allocator has layers, from the composer: then layers.c is there. */
#ifndef KIT_WITH_LAYERS
#define KIT_WITH_LAYERS 0
#endif

/* Whether a layer of the allocator can do this; false, at compile time, where there is none. */
KIT_INLINE bool kit_runtime_layer_can(uint32_t feature)
{
    return KIT_WITH_LAYERS && kit_composition.alloc_count > 1 &&
           (kit_composition.alloc[0].component->features & feature) != 0;
}

/* The allocator as this processor uses it. */
KIT_INLINE struct kit_alloc *kit_runtime_memory(void)
{
#if KIT_WITH_FACES
    return kit_runtime.faces[kit_env_cpu_self(kit_runtime.state.runtime)->number];
#else
    return kit_runtime.alloc;
#endif
}

/* Devices and what stands on them are the first processor's. */
#define KIT_RUNTIME_FIRST_ONLY(what)                                                               \
    do {                                                                                           \
        if (KIT_WITH_CPUS && kit_env_cpu_self(kit_runtime.state.runtime)->number != 0)             \
            kit_panic(what " called on a processor other than 0; do it in a task that was "        \
                           "spawned there without KIT_TASK_ANYWHERE");                             \
    } while (0)

/* main.c: nothing can ever happen again. */
_Noreturn void kit_runtime_finish(void);

/* cpus.c, in images that may get several processors: a face for each; their start; their sleep, the
 * last of which may be the end; the console, which one at a time may use. */
int kit_runtime_make_faces(runtime_environment_t *env);
int kit_runtime_start_processors(runtime_environment_t *env);
uint32_t kit_runtime_sleep(runtime_environment_t *env, uint64_t deadline_ns, uint32_t wake);
void kit_runtime_lock_console(void);
void kit_runtime_unlock_console(void);

/* tls.c: the blocks of all main loops, and this one's from now on. 0, KIT_ENOMEM, or KIT_ENOTSUP:
 * neither the processor nor a kernel sets the thread pointer. */
int kit_runtime_open_tls(runtime_environment_t *env);
/* On another processor, before anything of the application runs there. */
void kit_runtime_begin_tls(uint32_t cpu);

/* layers.c: tells the layers what stands behind the memory, as an allocator's opener should. */
void kit_runtime_give_pages(runtime_environment_t *env);
/* Says what the application never freed, if a layer knows. */
void kit_runtime_report_leaks(void);

/* preempt.c, on each processor: what is not a task's own code is inside from the start ... */
void kit_runtime_begin_inside(void);
/* ... and once init_application has returned, the platform may redirect tasks. */
void kit_runtime_allow_upcalls(runtime_environment_t *env);
/* A turn begins that may run tasks: the devices shall be looked at again within a tick. */
void kit_runtime_watch(void);
/* No task is ready: a wait need not end for that. */
void kit_runtime_unwatch(void);

/* Parses every option that the boot gave into its place. 0, or KIT_EXIT_REFUSED after a message. */
int kit_runtime_read_options(runtime_environment_t *env);

#endif
