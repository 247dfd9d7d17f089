/* SPDX-License-Identifier: MIT */
/* A layer that records what is asked of the allocator below: a trace (lab/trace.h) in memory.
 *
 * The buffer comes from the allocator below when the layer is opened, and is at all times what a
 * file of that format is: header, then slots. So it can be read by recorded(), or from outside, out
 * of the memory of a machine, by whoever looks for the header's first words. When it is full,
 * further events are counted and left out: a trace from the beginning can be replayed.
 *
 * No clock: a tick is an event, of whatever face. Each face writes into slots of its own, and takes
 * a new one from the buffer when its slot is full; the ticks put events of several faces in order.
 * Call sites are those that caller() says, or return addresses. Time: O(1) beside the allocator
 * below; space: the buffer, some 5 bytes an event, and a slot of it for each further face. */
#include <stdatomic.h>

#include <unikit/alloc/alloc.h>
#include <unikit/alloc/lab/trace.h>
#include <unikit/rt/x86_64/cpu.h>

enum { OPTION_SIZE, SLOT = 16384, SLOT_MIN = 2048, SPARES = 64 };
enum { TRACE_LOST, TRACE_TAKEN }; /* what the reserved words of the header say */

#define TRACE_NOINLINE __attribute__((noinline))
#define TRACE_SITE(t) trace_site(t, (uintptr_t)__builtin_return_address(0))

struct trace_shared;

struct trace {
    struct kit_alloc alloc;
    struct kit_alloc *inner;
    struct trace_shared *shared;
    struct kit_trace_chunk *chunk; /* NULL: no slot yet, or none is left */
    uint32_t number, sequence;
    uintptr_t caller;
    struct kit_trace_state state;
};

/* The layer's only block: what all faces share, the first face, and the buffer. */
struct trace_shared {
    struct kit_trace_header *header;
    uint32_t below; /* features of the allocator below */
    uint32_t slots;
    size_t own; /* what the block takes of the allocator below */
    _Atomic uint32_t taken, faces;
    _Atomic uint64_t ticks, lost;
    struct trace *_Atomic spares[SPARES]; /* faces that were given back */
    struct trace first;
};

static struct trace *trace_of(const struct kit_alloc *a)
{
    return KIT_CONTAINER_OF(a, struct trace, alloc);
}

/* The call site of an operation, said to the allocator below as well. */
static uintptr_t trace_site(struct trace *t, uintptr_t returns_to)
{
    uintptr_t site = t->caller != 0 ? t->caller : returns_to;
    t->caller = 0;
    if (t->shared->below & KIT_ALLOC_SITES)
        kit_alloc_caller(t->inner, site);
    return site;
}

/* ---- writing --------------------------------------------------------------------------------- */

static uint8_t *trace_payload(struct kit_trace_chunk *chunk)
{
    return (uint8_t *)(chunk + 1);
}

static void trace_encode(struct trace *t, const struct kit_trace_raw *event)
{
    uint8_t *at = trace_payload(t->chunk) + t->chunk->used;
    uint8_t *end = kit_trace_encode(&t->state, at, event);
    atomic_signal_fence(memory_order_release); /* who reads from outside sees whole events */
    t->chunk->used = (uint32_t)(end - trace_payload(t->chunk));
}

/* A slot that nobody has, reading as an empty one; NULL: there is none left. */
static void *trace_slot(struct trace_shared *s)
{
    if (atomic_load_explicit(&s->taken, memory_order_relaxed) >= s->slots)
        return NULL;
    uint32_t slot = atomic_fetch_add_explicit(&s->taken, 1, memory_order_relaxed);
    if (slot >= s->slots)
        return NULL;
    char *start = (char *)s->header + KIT_TRACE_PAGE + (size_t)slot * s->header->chunk;
    memset(start, 0, sizeof(struct kit_trace_chunk));
    s->header->reserved[TRACE_TAKEN] = slot + 1;
    return start;
}

/* A slot as a chunk of this face; NULL: there is none left. */
static struct kit_trace_chunk *trace_next(struct trace *t, uint64_t ticks)
{
    struct kit_trace_chunk *chunk = trace_slot(t->shared);
    if (chunk == NULL)
        return NULL;
    *chunk = (struct kit_trace_chunk){
        .kind = KIT_TRACE_EVENTS, .stream = t->number, .sequence = t->sequence++, .ticks = ticks};
    chunk->magic = KIT_TRACE_CHUNK_MAGIC;
    kit_trace_begin(&t->state, ticks);
    return chunk;
}

static void trace_note(struct trace *t, struct kit_trace_raw event)
{
    struct trace_shared *s = t->shared;
    event.ticks = atomic_fetch_add_explicit(&s->ticks, 1, memory_order_relaxed) + 1;
    size_t room = s->header->chunk - sizeof *t->chunk;
    if (t->chunk == NULL || room - t->chunk->used < KIT_TRACE_EVENT_MAX + 8) {
        t->chunk = trace_next(t, event.ticks);
        if (t->chunk != NULL)
            trace_encode(t, &(struct kit_trace_raw){
                                .op = KIT_TRACE_THREAD, .ticks = event.ticks, .size = t->number});
    }
    if (t->chunk == NULL) {
        atomic_fetch_add_explicit(&s->lost, 1, memory_order_relaxed);
        s->header->reserved[TRACE_LOST] = atomic_load_explicit(&s->lost, memory_order_relaxed);
        return;
    }
    trace_encode(t, &event);
    s->header->last_ticks = s->header->last_ns = event.ticks;
}

static uint64_t trace_identity(const void *block)
{
    return (uintptr_t)block >> KIT_TRACE_SHIFT;
}

/* The logarithm of an alignment that asks for more than every block has. */
static uint8_t trace_align(size_t align)
{
    return align > KIT_ALLOC_ALIGN_MIN ? (uint8_t)kit_ctz64(align) : 0;
}

static void *trace_given(struct trace *t, uint8_t op, void *block, size_t size, size_t align,
                         uintptr_t site)
{
    trace_note(t, (struct kit_trace_raw){.op = block != NULL ? op : (uint8_t)KIT_TRACE_FAILED,
                                         .identity = trace_identity(block),
                                         .size = size,
                                         .align = trace_align(align),
                                         .site = site});
    return block;
}

/* ---- blocks ---------------------------------------------------------------------------------- */

static TRACE_NOINLINE void *trace_alloc(struct kit_alloc *a, size_t size, size_t align)
{
    struct trace *t = trace_of(a);
    uintptr_t site = TRACE_SITE(t);
    return trace_given(t, KIT_TRACE_ALLOC, kit_alloc_alloc(t->inner, size, align), size, align,
                       site);
}

static TRACE_NOINLINE void *trace_zeroed(struct kit_alloc *a, size_t size, size_t align)
{
    struct trace *t = trace_of(a);
    uintptr_t site = TRACE_SITE(t);
    void *block = t->shared->below & KIT_ALLOC_ZEROED ? kit_alloc_zeroed(t->inner, size, align)
                                                      : kit_alloc_alloc(t->inner, size, align);
    if (block != NULL && !(t->shared->below & KIT_ALLOC_ZEROED))
        memset(block, 0, size);
    return trace_given(t, KIT_TRACE_ZEROED, block, size, align, site);
}

static TRACE_NOINLINE void trace_free(struct kit_alloc *a, void *block, size_t size, size_t align)
{
    struct trace *t = trace_of(a);
    uintptr_t site = TRACE_SITE(t);
    if (block != NULL) {
        bool sized = size != KIT_ALLOC_UNKNOWN;
        trace_note(t, (struct kit_trace_raw){.op = sized ? KIT_TRACE_SIZED_FREE : KIT_TRACE_FREE,
                                             .identity = trace_identity(block),
                                             .site = site});
    }
    kit_alloc_free(t->inner, block, size, align);
}

static TRACE_NOINLINE void *trace_realloc(struct kit_alloc *a, void *block, size_t old_size,
                                          size_t new_size, size_t align)
{
    struct trace *t = trace_of(a);
    uintptr_t site = TRACE_SITE(t);
    void *moved = kit_alloc_realloc(t->inner, block, old_size, new_size, align);
    if (block == NULL || moved == NULL)
        return trace_given(t, KIT_TRACE_ALLOC, moved, new_size, align, site);
    trace_note(t, (struct kit_trace_raw){.op = KIT_TRACE_REALLOC,
                                         .identity = trace_identity(moved),
                                         .old = trace_identity(block),
                                         .size = new_size,
                                         .site = site});
    return moved;
}

static TRACE_NOINLINE bool trace_resize(struct kit_alloc *a, void *block, size_t old_size,
                                        size_t new_size, size_t align)
{
    struct trace *t = trace_of(a);
    uintptr_t site = TRACE_SITE(t);
    if (!(t->shared->below & KIT_ALLOC_RESIZE) ||
        !kit_alloc_resize(t->inner, block, old_size, new_size, align))
        return false;
    trace_note(t, (struct kit_trace_raw){.op = KIT_TRACE_REALLOC,
                                         .identity = trace_identity(block),
                                         .old = trace_identity(block),
                                         .size = new_size,
                                         .site = site});
    return true;
}

/* ---- what goes through ------------------------------------------------------------------------
 */

static bool trace_below(const struct kit_alloc *a, uint32_t feature)
{
    return trace_of(a)->shared->below & feature;
}

static size_t trace_usable_size(const struct kit_alloc *a, const void *block, size_t size)
{
    return kit_alloc_usable_size(trace_of(a)->inner, block, size);
}

/* The layer's own block is not part of the heap that its user sees. */
static void trace_stats(const struct kit_alloc *a, struct kit_alloc_stats *out)
{
    size_t own = trace_of(a)->shared->own;
    kit_alloc_stats(trace_of(a)->inner, out);
    out->capacity -= own;
    out->used -= own;
    out->peak -= own;
    out->blocks--;
    out->allocations--;
}

static int trace_check(const struct kit_alloc *a)
{
    return kit_alloc_check(trace_of(a)->inner);
}

static bool trace_owns(const struct kit_alloc *a, const void *block)
{
    return trace_below(a, KIT_ALLOC_OWNS) && kit_alloc_owns(trace_of(a)->inner, block);
}

struct trace_tour {
    const struct trace_shared *own;
    int (*visit)(void *argument, void *block, size_t size, bool used);
    int (*visit_live)(void *argument, const struct kit_alloc_live *block);
    void *argument;
};

static int trace_on_block(void *argument, void *block, size_t size, bool used)
{
    struct trace_tour *tour = argument;
    return block == tour->own ? 0 : tour->visit(tour->argument, block, size, used);
}

static int trace_walk(const struct kit_alloc *a,
                      int (*visit)(void *argument, void *block, size_t size, bool used),
                      void *argument)
{
    struct trace_tour tour = {trace_of(a)->shared, visit, NULL, argument};
    return trace_below(a, KIT_ALLOC_WALK)
               ? kit_alloc_walk(trace_of(a)->inner, trace_on_block, &tour)
               : KIT_ENOTSUP;
}

static int trace_add_region(struct kit_alloc *a, void *memory, size_t size)
{
    return trace_below(a, KIT_ALLOC_ADD_REGION)
               ? kit_alloc_add_region(trace_of(a)->inner, memory, size)
               : KIT_ENOTSUP;
}

static int trace_source(struct kit_alloc *a, const struct kit_alloc_pages *pages)
{
    return trace_below(a, KIT_ALLOC_PAGES) ? kit_alloc_source(trace_of(a)->inner, pages)
                                           : KIT_ENOTSUP;
}

static size_t trace_tick(struct kit_alloc *a)
{
    return trace_below(a, KIT_ALLOC_PAGES) ? kit_alloc_tick(trace_of(a)->inner) : 0;
}

static size_t trace_trim(struct kit_alloc *a, size_t keep)
{
    return trace_below(a, KIT_ALLOC_PAGES) ? kit_alloc_trim(trace_of(a)->inner, keep) : 0;
}

static void trace_caller(struct kit_alloc *a, uintptr_t site)
{
    trace_of(a)->caller = site;
}

static int trace_on_live(void *argument, const struct kit_alloc_live *block)
{
    struct trace_tour *tour = argument;
    return block->block == tour->own ? 0 : tour->visit_live(tour->argument, block);
}

static int trace_live(const struct kit_alloc *a,
                      int (*visit)(void *argument, const struct kit_alloc_live *block),
                      void *argument)
{
    struct trace_tour tour = {trace_of(a)->shared, NULL, visit, argument};
    return trace_below(a, KIT_ALLOC_LEAKS)
               ? kit_alloc_live(trace_of(a)->inner, trace_on_live, &tour)
               : KIT_ENOTSUP;
}

static uint64_t trace_fail_at(struct kit_alloc *a, uint64_t n)
{
    return trace_below(a, KIT_ALLOC_FAILS) ? kit_alloc_fail_at(trace_of(a)->inner, n) : 0;
}

static size_t trace_recorded(struct kit_alloc *a, const void **start)
{
    struct trace_shared *s = trace_of(a)->shared;
    uint32_t taken = atomic_load_explicit(&s->taken, memory_order_acquire);
    *start = s->header;
    return KIT_TRACE_PAGE + (size_t)(taken < s->slots ? taken : s->slots) * s->header->chunk;
}

/* ---- faces ----------------------------------------------------------------------------------- */

static const struct kit_alloc_ops trace_ops;

/* Makes a face over `inner` in memory of the layer's own. */
static struct kit_alloc *trace_face(struct trace *t, struct trace_shared *shared,
                                    struct kit_alloc *inner)
{
    *t = (struct trace){.inner = inner, .shared = shared};
    t->number = atomic_fetch_add_explicit(&shared->faces, 1, memory_order_relaxed);
    KIT_ALLOC_BIND(&t->alloc, &trace_ops);
    return &t->alloc;
}

/* Room for a face: one that was given back, or a slot, which a reader takes for an empty one. */
static struct trace *trace_spare(struct trace_shared *s)
{
    for (size_t i = 0; i < SPARES; i++) {
        struct trace *spare = atomic_exchange(&s->spares[i], NULL);
        if (spare != NULL)
            return spare;
    }
    struct kit_trace_chunk *slot = trace_slot(s);
    return slot != NULL ? (struct trace *)(void *)(slot + 1) : NULL;
}

static int trace_attach(struct kit_alloc *a, struct kit_alloc **out)
{
    struct trace_shared *s = trace_of(a)->shared;
    struct kit_alloc *inner;
    if (!trace_below(a, KIT_ALLOC_THREADS))
        return KIT_ENOTSUP;
    struct trace *room = trace_spare(s);
    int rc = room != NULL ? kit_alloc_attach(trace_of(a)->inner, &inner) : KIT_ENOMEM;
    if (rc == 0)
        *out = trace_face(room, s, inner);
    return rc;
}

static void trace_detach(struct kit_alloc *face)
{
    struct trace *t = trace_of(face), *none;
    struct trace_shared *s = t->shared;
    kit_alloc_detach(t->inner);
    for (size_t i = 0; i < SPARES; i++) {
        none = NULL;
        if (atomic_compare_exchange_strong(&s->spares[i], &none, t))
            return;
    }
}

static void trace_hold(struct kit_alloc *a, bool on)
{
    struct trace *t = trace_of(a);
    if (KIT_ALLOC_OPS(t->inner)->hold != NULL)
        kit_alloc_hold(t->inner, on);
}

static const struct kit_alloc_ops trace_ops = {
    .alloc = trace_alloc,
    .free = trace_free,
    .realloc = trace_realloc,
    .usable_size = trace_usable_size,
    .stats = trace_stats,
    .check = trace_check,
    .owns = trace_owns,
    .walk = trace_walk,
    .add_region = trace_add_region,
    .zeroed = trace_zeroed,
    .resize = trace_resize,
    .attach = trace_attach,
    .detach = trace_detach,
    .source = trace_source,
    .tick = trace_tick,
    .trim = trace_trim,
    .hold = trace_hold,
    .caller = trace_caller,
    .live = trace_live,
    .fail_at = trace_fail_at,
    .recorded = trace_recorded,
};

/* Complemented, so that whoever looks for the magic finds no header in the code. */
static const uint64_t not_magic = ~UINT64_C(0x454341525454494b);

static void trace_header(struct kit_trace_header *header, const char *id, uint32_t chunk)
{
    static const char text[] = "clock=events\nallocator=";
    memset(header, 0, sizeof *header);
    header->version = KIT_TRACE_VERSION;
    header->chunk = chunk;
    header->cpus = 1;
    header->page = KIT_TRACE_PAGE;
    size_t length = strlen(id) < 256 ? strlen(id) : 256;
    memcpy(header->text, text, sizeof text - 1);
    memcpy(header->text + sizeof text - 1, id, length);
    header->text[sizeof text - 1 + length] = '\n';
    header->text_size = (uint32_t)(sizeof text + length);
    uint64_t magic = ~(uint64_t)kit_cpu_opaque(not_magic);
    memcpy(header->magic, &magic, sizeof magic);
}

static int trace_wrap(const uint64_t *options, const struct kit_alloc_component *below,
                      struct kit_alloc *inner, struct kit_alloc **out)
{
    struct kit_alloc_stats before, after;
    uint64_t size = options[OPTION_SIZE];
    if (size < KIT_TRACE_PAGE + SLOT_MIN || size > SIZE_MAX / 2)
        return KIT_EINVAL;
    kit_alloc_stats(inner, &before);
    struct trace_shared *s =
        kit_alloc_alloc(inner, sizeof *s + (size_t)size, alignof(struct trace_shared));
    if (s == NULL)
        return KIT_ENOMEM;
    kit_alloc_stats(inner, &after);
    memset(s, 0, sizeof *s);
    s->header = (struct kit_trace_header *)(void *)(s + 1);
    s->below = below->features;
    s->own = after.used - before.used;
    uint32_t chunk = size - KIT_TRACE_PAGE < 8 * SLOT ? SLOT_MIN : SLOT;
    s->slots = (uint32_t)((size - KIT_TRACE_PAGE) / chunk);
    trace_header(s->header, below->id, chunk);
    *out = trace_face(&s->first, s, inner);
    return 0;
}

const struct kit_alloc_component kit_alloc_trace = {
    .id = "alloc.trace",
    .abi = KIT_ALLOC_ABI,
    .features = KIT_ALLOC_LAYER | KIT_ALLOC_REUSES | KIT_ALLOC_BOUNDED | KIT_ALLOC_OWNS |
                KIT_ALLOC_WALK | KIT_ALLOC_ADD_REGION | KIT_ALLOC_UNSIZED | KIT_ALLOC_THREADS |
                KIT_ALLOC_PAGES | KIT_ALLOC_RESIZE | KIT_ALLOC_ZEROED | KIT_ALLOC_SITES |
                KIT_ALLOC_FAILS | KIT_ALLOC_RECORDS | KIT_ALLOC_LEAKS,
    .ops = &trace_ops,
    .wrap = trace_wrap,
};
