/* SPDX-License-Identifier: MIT */
/* The malloc family of the recorder: each function notes what it was asked for and by whom, and
 * passes the call on. Of calls inside calls (operator new calls malloc) the outermost counts.
 *
 * A time is taken after a call that gives a block and before one that takes one, see trace.h: by
 * RDTSCP, which waits for the loads before it, and by RDTSC, which the stores behind it wait for.
 * Events are noted with `depth` raised, so that a signal handler that allocates does not get in
 * between; it is then not recorded, but served. */
#include <errno.h>
#include <string.h>

#include <unikit/alloc/lab/host_record.h>
#include <unikit/alloc/preload/host.h>

#ifdef KIT_RECORD_ATTACH
#define NAMED(name) kit_record_##name
#else
#define NAMED(name) name
#endif
#define SITE ((uint64_t)(uintptr_t)__builtin_return_address(0))
#define NEXT(name, type) ((type)record_next[RECORD_AT_##name])

typedef void *give_fn(size_t);
typedef void take_fn(void *);
typedef void *pair_fn(size_t, size_t);
typedef void *move_fn(void *, size_t);
typedef void *array_fn(void *, size_t, size_t);
typedef int posix_fn(void **, size_t, size_t);
typedef void *quiet_fn(size_t, const void *);
typedef void *quiet_aligned_fn(size_t, size_t, const void *);

/* ---- noting --------------------------------------------------------------------------------- */

static uint64_t before(void)
{
    return __builtin_ia32_rdtsc();
}

static uint64_t after(void)
{
    unsigned cpu;
    return __builtin_ia32_rdtscp(&cpu);
}

static inline void note(struct kit_trace_raw *event)
{
    struct record_stream *stream = record_thread.stream;
    if (KIT_UNLIKELY(!stream || stream->at >= stream->end) && !(stream = record_room(event->ticks)))
        return;
    if (event->site && KIT_UNLIKELY(event->site != stream->state.site) &&
        KIT_UNLIKELY(stream->state.sites[kit_trace_site_slot(event->site)] != event->site))
        record_site(event->site);
    stream->at = kit_trace_encode(&stream->state, stream->at, event);
    atomic_signal_fence(memory_order_seq_cst);
    stream->chunk->used = (uint32_t)(stream->at - (uint8_t *)(stream->chunk + 1));
}

static inline uint64_t identity(const void *block)
{
    return (uint64_t)(uintptr_t)block >> KIT_TRACE_SHIFT;
}

static inline void note_give(uint8_t op, const void *block, size_t size, size_t align,
                             uint64_t site)
{
    note(&(struct kit_trace_raw){
        .ticks = after(),
        .identity = identity(block),
        .size = size,
        .site = block ? site : 0,
        .op = block ? op : KIT_TRACE_FAILED,
        .align = block && kit_is_power_of_two(align) ? (uint8_t)kit_ctz64(align) : 0,
    });
}

static inline void note_take(uint8_t op, const void *block)
{
    note(&(struct kit_trace_raw){.ticks = before(), .identity = identity(block), .op = op});
}

/* Whether the call is the outermost and to be noted; then `depth` is raised until leave(). */
static inline bool enter(void)
{
    if (KIT_UNLIKELY(atomic_load_explicit(&record_state, memory_order_relaxed) != 3) ||
        record_thread.depth)
        return false;
    record_thread.depth = 1;
    atomic_signal_fence(memory_order_seq_cst);
    return true;
}

static inline void leave(void)
{
    atomic_signal_fence(memory_order_seq_cst);
    record_thread.depth = 0;
}

/* Whether calls can be passed on. */
static inline bool ready(void)
{
    if (KIT_UNLIKELY(!atomic_load_explicit(&record_state, memory_order_relaxed)))
        record_begin();
    return KIT_LIKELY(record_next[RECORD_AT_malloc] != NULL);
}

/* Prototypes as libc's headers have them; for the library to attach under other names. */
void *NAMED(malloc)(size_t size);
void NAMED(free)(void *block);
void *NAMED(calloc)(size_t count, size_t size);
void *NAMED(realloc)(void *block, size_t size);
void *NAMED(reallocarray)(void *block, size_t count, size_t size);
void *NAMED(aligned_alloc)(size_t align, size_t size);
void *NAMED(memalign)(size_t align, size_t size);
int NAMED(posix_memalign)(void **out, size_t align, size_t size);
void *NAMED(valloc)(size_t size);
void *NAMED(pvalloc)(size_t size);
void NAMED(free_sized)(void *block, size_t size);
void NAMED(free_aligned_sized)(void *block, size_t align, size_t size);

/* ---- the C functions ------------------------------------------------------------------------ */

RECORD_PUBLIC void *NAMED(malloc)(size_t size)
{
    if (!ready())
        return record_early(size, 0);
    bool noted = enter();
    void *block = NEXT(malloc, give_fn *)(size);
    if (noted) {
        note_give(KIT_TRACE_ALLOC, block, size, 0, SITE);
        leave();
    }
    return block;
}

static inline void take(uint8_t op, void *block, take_fn *next)
{
    if (!block || record_is_early(block) || !ready())
        return;
    bool noted = enter();
    if (noted)
        note_take(op, block);
    next(block);
    if (noted)
        leave();
}

RECORD_PUBLIC void NAMED(free)(void *block)
{
    take(KIT_TRACE_FREE, block, NEXT(free, take_fn *));
}

RECORD_PUBLIC void *NAMED(calloc)(size_t count, size_t size)
{
    size_t total;
    if (!ready())
        return kit_mul_overflow(count, size, &total) ? NULL : record_early(total, 0);
    bool noted = enter();
    void *block = NEXT(calloc, pair_fn *)(count, size);
    if (noted) {
        if (kit_mul_overflow(count, size, &total))
            total = SIZE_MAX;
        note_give(KIT_TRACE_ZEROED, block, total, 0, SITE);
        leave();
    }
    return block;
}

static void *move_early(void *block, size_t size, uint64_t site)
{
    void *moved = ready() ? NEXT(malloc, give_fn *)(size) : record_early(size, 0);
    size_t had = record_early_size(block);
    if (moved)
        memcpy(moved, block, had < size ? had : size);
    (void)site;
    return moved;
}

static void *move(void *block, size_t size, uint64_t site)
{
    if (KIT_UNLIKELY(block && record_is_early(block)))
        return move_early(block, size, site);
    if (!ready())
        return record_early(size, 0);
    if (!enter())
        return NEXT(realloc, move_fn *)(block, size);
    if (block && !size)
        note_take(KIT_TRACE_FREE, block);
    uint64_t began = before();
    void *moved = NEXT(realloc, move_fn *)(block, size);
    uint64_t ended = after();
    if (!block || (!moved && size))
        note_give(KIT_TRACE_ALLOC, moved, size, 0, site);
    else if (moved && !size)
        note_give(KIT_TRACE_ALLOC, moved, 0, 0, site); /* an allocator that keeps a block */
    else if (moved)
        note(&(struct kit_trace_raw){.ticks = ended,
                                     .identity = identity(moved),
                                     .old = identity(block),
                                     .took = ended - began,
                                     .size = size,
                                     .site = site,
                                     .op = KIT_TRACE_REALLOC});
    leave();
    return moved;
}

RECORD_PUBLIC void *NAMED(realloc)(void *block, size_t size)
{
    return move(block, size, SITE);
}

RECORD_PUBLIC void *NAMED(reallocarray)(void *block, size_t count, size_t size)
{
    size_t total;
    if (kit_mul_overflow(count, size, &total)) {
        errno = ENOMEM;
        return NULL;
    }
    return move(block, total, SITE);
}

static inline void *give_aligned(pair_fn *next, size_t align, size_t size, uint64_t site)
{
    bool noted = enter();
    void *block = next(align, size);
    if (noted) {
        note_give(KIT_TRACE_ALLOC, block, size, align, site);
        leave();
    }
    return block;
}

RECORD_PUBLIC void *NAMED(aligned_alloc)(size_t align, size_t size)
{
    return ready() ? give_aligned(NEXT(aligned_alloc, pair_fn *), align, size, SITE)
                   : record_early(size, align);
}

RECORD_PUBLIC void *NAMED(memalign)(size_t align, size_t size)
{
    return ready() ? give_aligned(NEXT(memalign, pair_fn *), align, size, SITE)
                   : record_early(size, align);
}

RECORD_PUBLIC int NAMED(posix_memalign)(void **out, size_t align, size_t size)
{
    if (!ready())
        return (*out = record_early(size, align)) ? 0 : ENOMEM;
    bool noted = enter();
    int code = NEXT(posix_memalign, posix_fn *)(out, align, size);
    if (noted) {
        note_give(KIT_TRACE_ALLOC, code ? NULL : *out, size, align, SITE);
        leave();
    }
    return code;
}

static inline void *give_pages(give_fn *next, size_t size, size_t rounded, uint64_t site)
{
    if (!ready())
        return record_early(rounded, 4096);
    bool noted = enter();
    void *block = next(size);
    if (noted) {
        note_give(KIT_TRACE_ALLOC, block, rounded, 4096, site);
        leave();
    }
    return block;
}

RECORD_PUBLIC void *NAMED(valloc)(size_t size)
{
    return give_pages(NEXT(valloc, give_fn *), size, size, SITE);
}

RECORD_PUBLIC void *NAMED(pvalloc)(size_t size)
{
    return give_pages(NEXT(pvalloc, give_fn *), size, (size + 4095) & ~(size_t)4095, SITE);
}

/* Whoever does not have the C23 functions gets a plain free. */
RECORD_PUBLIC void NAMED(free_sized)(void *block, size_t size)
{
    (void)size;
    take(KIT_TRACE_SIZED_FREE, block, NEXT(free, take_fn *));
}

RECORD_PUBLIC void NAMED(free_aligned_sized)(void *block, size_t align, size_t size)
{
    (void)align, (void)size;
    take(KIT_TRACE_SIZED_FREE, block, NEXT(free, take_fn *));
}

/* ---- C++ ------------------------------------------------------------------------------------ */

/* operator new may throw through us: then, too, the call is over. */
static void leave_if(bool *noted)
{
    if (*noted)
        leave();
}

#define WHILE_NOTED bool noted __attribute__((cleanup(leave_if))) = enter()

static void *plain_new(size_t size, size_t align)
{
    for (;;) {
        void *block = align ? NEXT(aligned_alloc, pair_fn *)(align, (size + align - 1) & -align)
                            : NEXT(malloc, give_fn *)(size ? size : 1);
        if (block)
            return block;
        kit_preload_no_memory();
    }
}

static inline void *give_new(give_fn *next, size_t size, uint64_t site)
{
    if (!ready())
        return record_early(size, 0);
    WHILE_NOTED;
    void *block = next ? next(size) : plain_new(size, 0);
    if (noted)
        note_give(KIT_TRACE_ALLOC, block, size, 0, site);
    return block;
}

static inline void *give_new_aligned(pair_fn *next, size_t size, size_t align, uint64_t site)
{
    if (!ready())
        return record_early(size, align);
    WHILE_NOTED;
    void *block = next ? next(size, align) : plain_new(size, align);
    if (noted)
        note_give(KIT_TRACE_ALLOC, block, size, align, site);
    return block;
}

static inline void *give_quiet(quiet_fn *next, size_t size, const void *tag, uint64_t site)
{
    if (!ready())
        return record_early(size, 0);
    WHILE_NOTED;
    void *block = next ? next(size, tag) : NEXT(malloc, give_fn *)(size ? size : 1);
    if (!block && !next)
        block = kit_preload_new_quiet(size, KIT_ALLOC_ALIGN_MIN, tag);
    if (noted)
        note_give(KIT_TRACE_ALLOC, block, size, 0, site);
    return block;
}

static inline void *give_quiet_aligned(quiet_aligned_fn *next, size_t size, size_t align,
                                       const void *tag, uint64_t site)
{
    if (!ready())
        return record_early(size, align);
    WHILE_NOTED;
    void *block = next ? next(size, align, tag)
                       : NEXT(aligned_alloc, pair_fn *)(align, (size + align - 1) & -align);
    if (!block && !next)
        block = kit_preload_new_quiet(size, align, tag);
    if (noted)
        note_give(KIT_TRACE_ALLOC, block, size, align, site);
    return block;
}

#define NEW(name)                                                                                  \
    RECORD_PUBLIC void *NAMED(name)(size_t size);                                                  \
    RECORD_PUBLIC void *NAMED(name)(size_t size)                                                   \
    {                                                                                              \
        return give_new(NEXT(name, give_fn *), size, SITE);                                        \
    }
#define NEW_ALIGNED(name)                                                                          \
    RECORD_PUBLIC void *NAMED(name)(size_t size, size_t align);                                    \
    RECORD_PUBLIC void *NAMED(name)(size_t size, size_t align)                                     \
    {                                                                                              \
        return give_new_aligned(NEXT(name, pair_fn *), size, align, SITE);                         \
    }
#define NEW_QUIET(name)                                                                            \
    RECORD_PUBLIC void *NAMED(name)(size_t size, const void *tag);                                 \
    RECORD_PUBLIC void *NAMED(name)(size_t size, const void *tag)                                  \
    {                                                                                              \
        return give_quiet(NEXT(name, quiet_fn *), size, tag, SITE);                                \
    }
#define NEW_QUIET_ALIGNED(name)                                                                    \
    RECORD_PUBLIC void *NAMED(name)(size_t size, size_t align, const void *tag);                   \
    RECORD_PUBLIC void *NAMED(name)(size_t size, size_t align, const void *tag)                    \
    {                                                                                              \
        return give_quiet_aligned(NEXT(name, quiet_aligned_fn *), size, align, tag, SITE);         \
    }
/* All forms of delete take the block first; what else they are told, nobody needs. */
#define DELETE(name, op)                                                                           \
    RECORD_PUBLIC void NAMED(name)(void *block, uint64_t, uint64_t);                               \
    RECORD_PUBLIC void NAMED(name)(void *block, uint64_t one, uint64_t two)                        \
    {                                                                                              \
        typedef void full(void *, uint64_t, uint64_t);                                             \
        if (!block || record_is_early(block) || !ready())                                          \
            return;                                                                                \
        bool noted = enter();                                                                      \
        if (noted)                                                                                 \
            note_take(op, block);                                                                  \
        if (NEXT(name, full *))                                                                    \
            NEXT(name, full *)(block, one, two);                                                   \
        else                                                                                       \
            NEXT(free, take_fn *)(block);                                                          \
        if (noted)                                                                                 \
            leave();                                                                               \
    }

NEW(_Znwm)
NEW(_Znam)
NEW_ALIGNED(_ZnwmSt11align_val_t)
NEW_ALIGNED(_ZnamSt11align_val_t)
NEW_QUIET(_ZnwmRKSt9nothrow_t)
NEW_QUIET(_ZnamRKSt9nothrow_t)
NEW_QUIET_ALIGNED(_ZnwmSt11align_val_tRKSt9nothrow_t)
NEW_QUIET_ALIGNED(_ZnamSt11align_val_tRKSt9nothrow_t)
DELETE(_ZdlPv, KIT_TRACE_FREE)
DELETE(_ZdaPv, KIT_TRACE_FREE)
DELETE(_ZdlPvm, KIT_TRACE_SIZED_FREE)
DELETE(_ZdaPvm, KIT_TRACE_SIZED_FREE)
DELETE(_ZdlPvSt11align_val_t, KIT_TRACE_FREE)
DELETE(_ZdaPvSt11align_val_t, KIT_TRACE_FREE)
DELETE(_ZdlPvmSt11align_val_t, KIT_TRACE_SIZED_FREE)
DELETE(_ZdaPvmSt11align_val_t, KIT_TRACE_SIZED_FREE)
DELETE(_ZdlPvRKSt9nothrow_t, KIT_TRACE_FREE)
DELETE(_ZdaPvRKSt9nothrow_t, KIT_TRACE_FREE)
DELETE(_ZdlPvSt11align_val_tRKSt9nothrow_t, KIT_TRACE_FREE)
DELETE(_ZdaPvSt11align_val_tRKSt9nothrow_t, KIT_TRACE_FREE)
