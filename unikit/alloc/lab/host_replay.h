/* SPDX-License-Identifier: MIT */
/* Replays in this process, over any component: through its table of operations, or bound to one
 * component at compile time (-DKIT_SOLE_ALLOC). Hosted. */
#ifndef KIT_ALLOC_LAB_HOST_REPLAY_H
#define KIT_ALLOC_LAB_HOST_REPLAY_H

#include <unikit/alloc/alloc.h>
#include <unikit/alloc/lab/replay.h>
#include <unikit/ffi/hooks/guard.h>

/* cdef: begin */
struct kit_replay_setup {
    const struct kit_alloc_choice *choices; /* from the outside in */
    size_t choice_count;
    const struct kit_replay_op *ops;
    size_t op_count;
    const uint64_t *starts; /* NULL: one order. Else real threads: number t has the operations
                             * from starts[t] to starts[t + 1] */
    uint32_t slots;
    uint32_t threads;
    size_t memory;           /* bytes of the region, zeroed and not yet touched */
    uint32_t features;       /* those of the outermost */
    uint32_t touch;          /* KIT_REPLAY_TOUCH_... */
    uint32_t huge;           /* whether to ask for transparent huge pages */
    uint32_t rounds;         /* timed replays on fresh memory, and as many on memory used before */
    uint32_t latency_rounds; /* replays of which the least cycles of each operation are kept */
    uint32_t samples;        /* how many moments to look at, in a replay of its own */
};

/* The heap at one moment. */
struct kit_replay_sample {
    uint64_t index;     /* operations done */
    uint64_t requested; /* bytes asked for and not freed */
    uint64_t used;      /* bytes of it as the allocator says: with rounding and padding */
    uint64_t touched;   /* bytes of the region that the kernel had to back */
};

struct kit_replay_outcome {
    struct kit_replay_counts counts; /* of one replay */
    uint64_t cold_ns;                /* least of the rounds on fresh memory ... */
    uint64_t warm_ns;                /* ... and on used memory */
    uint64_t warm_ticks;
    struct kit_replay_latency give, take;
    uint32_t empty;   /* cycles of measuring nothing: part of every latency */
    uint32_t sampled; /* samples taken */
    uint64_t peak_requested;
    uint64_t peak_used;
    uint64_t peak_touched;
    uint32_t refused; /* after an error in opening: which of the choices */
    uint32_t faces;   /* how many threads had a face of their own */
};

/* Replays; 0, KIT_ENOMEM, KIT_EPANIC, or what opening the component returned. `samples` is room
 * for setup->samples. */
int kit_replay_run(const struct kit_replay_setup *setup, struct kit_replay_sample *samples,
                   struct kit_replay_outcome *out);
/* cdef: end */

#endif
