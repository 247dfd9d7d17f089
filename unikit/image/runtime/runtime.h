/* SPDX-License-Identifier: MIT */
/* What the runtime's files share. The one writable object of an image's own beside the boot
 * options; layer 4 alone may have it. */
#ifndef KIT_IMAGE_RUNTIME_RUNTIME_H
#define KIT_IMAGE_RUNTIME_RUNTIME_H

#include <unikit/image/runtime/composition.h>

enum { KIT_EXIT_REFUSED = 2 /* the image cannot run with what the boot gave it */ };

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

/* layers.c: tells the layers what stands behind the memory, as an allocator's opener should. */
void kit_runtime_give_pages(runtime_environment_t *env);
/* Says what the application never freed, if a layer knows. */
void kit_runtime_report_leaks(void);

/* Parses every option that the boot gave into its place. 0, or KIT_EXIT_REFUSED after a message. */
int kit_runtime_read_options(runtime_environment_t *env);

#endif
