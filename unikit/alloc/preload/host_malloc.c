/* SPDX-License-Identifier: MIT */
/* The malloc family over one allocator. Included by composition.c behind the component's source;
 * freestanding, so that the component is compiled as anywhere else.
 *
 * Every call has a short way, which is the component's operation itself, and a slow one for the
 * first call of a thread, a tick, several threads on one face, and a request that was refused.
 *
 * A component that must be told the size of a block gets it from a header before the block:
 *
 *     base                       block - 16    block
 *     | unused, if align > 16    | size | align | payload ...
 *
 * Semantics are those of glibc 2.36, and of C23 where glibc leaves it open. */
#include <unikit/alloc/preload/host.h>
#include <unikit/rt/bits.h>

#define PRELOAD_PUBLIC __attribute__((visibility("default")))
#define PRELOAD_COLD __attribute__((noinline, cold))
#define PRELOAD_ALIGN ((size_t)KIT_ALLOC_ALIGN_MIN)

enum { PRELOAD_ENOMEM = 12, PRELOAD_EINVAL = 22, PRELOAD_PAGE = 4096 };
enum { PRELOAD_SMALL = 1024 }; /* where shard's own quick way ends: one comparison serves both */

_Thread_local struct kit_preload_thread kit_preload_thread;
int32_t kit_preload_budget;

/* libc: 1 as long as there is one thread. */
extern char __libc_single_threaded;

#if KIT_PRELOAD_NOTES
#define PRELOAD_NOTE(about)                                                                        \
    (kit_preload_thread.block = (about), kit_preload_thread.site = __builtin_return_address(0))
#else
#define PRELOAD_NOTE(about) ((void)0)
#endif

/* Says to a layer that keeps call sites whose request it is, and not ours. */
#if KIT_PRELOAD_SITES && KIT_PRELOAD_NOTES
#define PRELOAD_CALLER(a) kit_alloc_caller(a, (uintptr_t)kit_preload_thread.site)
#else
#define PRELOAD_CALLER(a) ((void)(a))
#endif

/* Whether the short way is open; then preload_face() is the face to use. */
KIT_INLINE bool preload_ready(void)
{
#if KIT_PRELOAD_THREADS && KIT_PRELOAD_PAGES
    return KIT_LIKELY(--kit_preload_thread.budget >= 0);
#elif KIT_PRELOAD_THREADS
    return KIT_LIKELY(kit_preload_thread.face != NULL);
#elif KIT_PRELOAD_PAGES
    return KIT_LIKELY(__libc_single_threaded) && KIT_LIKELY(--kit_preload_budget >= 0);
#else
    return KIT_LIKELY(__libc_single_threaded) && KIT_LIKELY(kit_preload_heap != NULL);
#endif
}

/* The same where there is a block: then there is a heap, and its only face needs no other look. */
KIT_INLINE bool preload_ready_with_block(void)
{
    return KIT_PRELOAD_THREADS ? preload_ready() : KIT_LIKELY(__libc_single_threaded);
}

KIT_INLINE struct kit_alloc *preload_face(void)
{
    return KIT_PRELOAD_THREADS ? kit_preload_thread.face : kit_preload_heap;
}

#if KIT_PRELOAD_UNSIZED

KIT_INLINE void *preload_take(struct kit_alloc *a, size_t size, size_t align)
{
    PRELOAD_CALLER(a);
    return kit_alloc_alloc(a, size, align);
}

KIT_INLINE void preload_give(struct kit_alloc *a, void *block)
{
    PRELOAD_CALLER(a);
    kit_alloc_free(a, block, KIT_ALLOC_UNKNOWN, PRELOAD_ALIGN);
}

KIT_INLINE void *preload_move(struct kit_alloc *a, void *block, size_t size)
{
    PRELOAD_CALLER(a);
    return kit_alloc_realloc(a, block, KIT_ALLOC_UNKNOWN, size, PRELOAD_ALIGN);
}

KIT_INLINE size_t preload_usable(struct kit_alloc *a, const void *block)
{
    return kit_alloc_usable_size(a, block, KIT_ALLOC_UNKNOWN);
}

#else

struct preload_header {
    size_t size, align; /* as asked for */
};

KIT_INLINE struct preload_header *preload_header(const void *block)
{
    return (struct preload_header *)(uintptr_t)block - 1;
}

/* Bytes from what the component gave to the block. */
KIT_INLINE size_t preload_offset(size_t align)
{
    return align > sizeof(struct preload_header) ? align : sizeof(struct preload_header);
}

KIT_INLINE void *preload_head(void *base, size_t size, size_t align)
{
    if (KIT_UNLIKELY(!base))
        return NULL;
    void *block = (char *)base + preload_offset(align);
    *preload_header(block) = (struct preload_header){size, align};
    return block;
}

KIT_INLINE void *preload_take(struct kit_alloc *a, size_t size, size_t align)
{
    if (KIT_UNLIKELY(size > PTRDIFF_MAX))
        return NULL;
    PRELOAD_CALLER(a);
    return preload_head(kit_alloc_alloc(a, size + preload_offset(align), align), size, align);
}

KIT_INLINE void preload_give(struct kit_alloc *a, void *block)
{
    if (!block)
        return;
    struct preload_header had = *preload_header(block);
    size_t offset = preload_offset(had.align);
    PRELOAD_CALLER(a);
    kit_alloc_free(a, (char *)block - offset, had.size + offset, had.align);
}

KIT_INLINE void *preload_move(struct kit_alloc *a, void *block, size_t size)
{
    struct preload_header had = *preload_header(block);
    size_t offset = preload_offset(had.align);
    if (KIT_UNLIKELY(size > PTRDIFF_MAX))
        return NULL;
    PRELOAD_CALLER(a);
    void *base =
        kit_alloc_realloc(a, (char *)block - offset, had.size + offset, size + offset, had.align);
    return preload_head(base, size, had.align);
}

KIT_INLINE size_t preload_usable(struct kit_alloc *a, const void *block)
{
    (void)a;
    return preload_header(block)->size; /* realloc keeps no more than that */
}

#endif

/* As preload_take, and the block reads as zero. */
KIT_INLINE void *preload_take_zeroed(struct kit_alloc *a, size_t size)
{
#if KIT_PRELOAD_ZEROED
    PRELOAD_CALLER(a);
#endif
#if KIT_PRELOAD_ZEROED && KIT_PRELOAD_UNSIZED
    return kit_alloc_zeroed(a, size, PRELOAD_ALIGN);
#elif KIT_PRELOAD_ZEROED
    if (KIT_UNLIKELY(size > PTRDIFF_MAX))
        return NULL;
    return preload_head(kit_alloc_zeroed(a, size + preload_offset(PRELOAD_ALIGN), PRELOAD_ALIGN),
                        size, PRELOAD_ALIGN);
#else
    void *block = preload_take(a, size, PRELOAD_ALIGN);
    if (KIT_LIKELY(block))
        kit_preload_clear(block, size);
    return block;
#endif
}

static PRELOAD_COLD void *preload_refuse(void)
{
    kit_preload_set_errno(PRELOAD_ENOMEM);
    return NULL;
}

enum preload_kind { PRELOAD_PLAIN, PRELOAD_CLEAR };

/* The slow way to a block; NULL: there is no memory for it. Does not set errno. */
static PRELOAD_COLD void *preload_slow_take(size_t size, size_t align, enum preload_kind kind)
{
    if (size > PTRDIFF_MAX - align)
        return NULL;
    bool locked;
    struct kit_alloc *a = kit_preload_enter(&locked);
    for (bool again = true;; again = false) {
        void *block =
            kind == PRELOAD_CLEAR ? preload_take_zeroed(a, size) : preload_take(a, size, align);
        if (block || !again || !kit_preload_grow(size, align, locked)) {
            kit_preload_leave(locked);
            return block;
        }
    }
}

static PRELOAD_COLD void preload_slow_free(void *block)
{
    bool locked;
    struct kit_alloc *a = kit_preload_enter(&locked);
    preload_give(a, block);
    kit_preload_leave(locked);
}

static PRELOAD_COLD void *preload_slow_move(void *block, size_t size)
{
    if (size > PTRDIFF_MAX - PRELOAD_ALIGN)
        return preload_refuse();
    bool locked;
    struct kit_alloc *a = kit_preload_enter(&locked);
    void *moved = preload_move(a, block, size);
    if (!moved && kit_preload_grow(size, PRELOAD_ALIGN, locked))
        moved = preload_move(a, block, size);
    kit_preload_leave(locked);
    return moved ? moved : preload_refuse();
}

static PRELOAD_COLD void *preload_slow_malloc(size_t size)
{
    void *block = preload_slow_take(size, PRELOAD_ALIGN, PRELOAD_PLAIN);
    return block ? block : preload_refuse();
}

/* A block at an alignment, which is a power of two; NULL: no memory. Does not set errno. */
KIT_INLINE void *preload_aligned(size_t align, size_t size)
{
    if (align < PRELOAD_ALIGN)
        align = PRELOAD_ALIGN;
    if (KIT_LIKELY(align <= PTRDIFF_MAX && size <= PTRDIFF_MAX - align) && preload_ready()) {
        void *block = preload_take(preload_face(), size, align);
        if (KIT_LIKELY(block))
            return block;
    }
    return align <= PTRDIFF_MAX ? preload_slow_take(size, align, PRELOAD_PLAIN) : NULL;
}

/* Prototypes as libc's headers have them, which this freestanding file cannot include. */
void *malloc(size_t size);
void free(void *block);
void *calloc(size_t count, size_t size);
void *realloc(void *block, size_t size);
void *reallocarray(void *block, size_t count, size_t size);
void *aligned_alloc(size_t align, size_t size);
void *memalign(size_t align, size_t size);
int posix_memalign(void **out, size_t align, size_t size);
void *valloc(size_t size);
void *pvalloc(size_t size);
size_t malloc_usable_size(void *block);
void free_sized(void *block, size_t size);
void free_aligned_sized(void *block, size_t align, size_t size);

#if KIT_PRELOAD_PAGES && defined KIT_SOLE_ALLOC

/* Such a component asks its page source before it refuses a small block, and the page source sets
 * errno. So the answer needs no look, and the short way ends in a jump: no register is saved. */
static __attribute__((noinline)) void *preload_large(size_t size)
{
    if (preload_ready()) {
        void *block = preload_take(preload_face(), size, PRELOAD_ALIGN);
        if (KIT_LIKELY(block))
            return block;
    }
    return preload_slow_malloc(size);
}

KIT_INLINE void *preload_malloc(size_t size)
{
    if (KIT_UNLIKELY(size > PRELOAD_SMALL))
        return preload_large(size);
    if (KIT_UNLIKELY(!preload_ready()))
        return preload_slow_malloc(size);
    return preload_take(preload_face(), size, PRELOAD_ALIGN);
}

#else

KIT_INLINE void *preload_malloc(size_t size)
{
    if (preload_ready()) {
        void *block = preload_take(preload_face(), size, PRELOAD_ALIGN);
        if (KIT_LIKELY(block))
            return block;
    }
    return preload_slow_malloc(size);
}

#endif

KIT_INLINE void preload_free(void *block)
{
    if (!KIT_PRELOAD_THREADS && !block)
        return;
    if (preload_ready_with_block())
        preload_give(preload_face(), block);
    else if (block)
        preload_slow_free(block);
}

PRELOAD_PUBLIC void *malloc(size_t size)
{
    PRELOAD_NOTE(NULL);
    return preload_malloc(size);
}

PRELOAD_PUBLIC void free(void *block)
{
    PRELOAD_NOTE(block);
    preload_free(block);
}

PRELOAD_PUBLIC void *calloc(size_t count, size_t size)
{
    size_t total;
    PRELOAD_NOTE(NULL);
    if (KIT_UNLIKELY(kit_mul_overflow(count, size, &total)))
        return preload_refuse();
    if (preload_ready()) {
        void *block = preload_take_zeroed(preload_face(), total);
        if (KIT_LIKELY(block))
            return block;
    }
    void *block = preload_slow_take(total, PRELOAD_ALIGN, PRELOAD_CLEAR);
    return block ? block : preload_refuse();
}

/* A size of 0 frees the block and returns NULL, as in glibc. */
static void *preload_realloc(void *block, size_t size)
{
    if (!block)
        return preload_malloc(size);
    if (!size) {
        preload_free(block);
        return NULL;
    }
    if (preload_ready()) {
        void *moved = preload_move(preload_face(), block, size);
        if (KIT_LIKELY(moved))
            return moved;
    }
    return preload_slow_move(block, size);
}

PRELOAD_PUBLIC void *realloc(void *block, size_t size)
{
    PRELOAD_NOTE(block);
    return preload_realloc(block, size);
}

PRELOAD_PUBLIC void *reallocarray(void *block, size_t count, size_t size)
{
    size_t total;
    PRELOAD_NOTE(block);
    if (kit_mul_overflow(count, size, &total))
        return preload_refuse();
    return preload_realloc(block, total);
}

/* An alignment that is none becomes the next one that is, as in glibc. */
static void *preload_memalign(size_t align, size_t size)
{
    if (align > (SIZE_MAX >> 1) + 1) {
        kit_preload_set_errno(PRELOAD_EINVAL);
        return NULL;
    }
    if (!kit_is_power_of_two(align))
        align = align ? (size_t)1 << (kit_fls64(align) + 1) : PRELOAD_ALIGN;
    void *block = preload_aligned(align, size);
    return block ? block : preload_refuse();
}

PRELOAD_PUBLIC void *memalign(size_t align, size_t size)
{
    PRELOAD_NOTE(NULL);
    return preload_memalign(align, size);
}

/* C23: an alignment that is not supported is an error. */
PRELOAD_PUBLIC void *aligned_alloc(size_t align, size_t size)
{
    PRELOAD_NOTE(NULL);
    if (!kit_is_power_of_two(align)) {
        kit_preload_set_errno(PRELOAD_EINVAL);
        return NULL;
    }
    void *block = preload_aligned(align, size);
    return block ? block : preload_refuse();
}

PRELOAD_PUBLIC int posix_memalign(void **out, size_t align, size_t size)
{
    PRELOAD_NOTE(NULL);
    if (!kit_is_power_of_two(align) || align % sizeof(void *))
        return PRELOAD_EINVAL;
    void *block = preload_aligned(align, size);
    if (!block)
        return PRELOAD_ENOMEM;
    *out = block;
    return 0;
}

PRELOAD_PUBLIC void *valloc(size_t size)
{
    PRELOAD_NOTE(NULL);
    return preload_memalign(PRELOAD_PAGE, size);
}

PRELOAD_PUBLIC void *pvalloc(size_t size)
{
    PRELOAD_NOTE(NULL);
    if (size > PTRDIFF_MAX)
        return preload_refuse();
    return preload_memalign(PRELOAD_PAGE, kit_align_up(size, PRELOAD_PAGE));
}

PRELOAD_PUBLIC size_t malloc_usable_size(void *block)
{
    if (!block)
        return 0;
    PRELOAD_NOTE(block);
    if (preload_ready())
        return preload_usable(preload_face(), block);
    bool locked;
    struct kit_alloc *a = kit_preload_enter(&locked);
    size_t size = preload_usable(a, block);
    kit_preload_leave(locked);
    return size;
}

PRELOAD_PUBLIC void free_sized(void *block, size_t size)
{
    (void)size; /* programs that get it wrong run with other allocators, and shall run here */
    PRELOAD_NOTE(block);
    preload_free(block);
}

PRELOAD_PUBLIC void free_aligned_sized(void *block, size_t align, size_t size)
{
    (void)align, (void)size;
    PRELOAD_NOTE(block);
    preload_free(block);
}

/* The same under the names that glibc has beside the standard ones. */
#define PRELOAD_ALIAS(target) __attribute__((alias(#target), visibility("default")))
void cfree(void *block) PRELOAD_ALIAS(free);
void __libc_free(void *block) PRELOAD_ALIAS(free);
void *__libc_malloc(size_t size) PRELOAD_ALIAS(malloc);
void *__libc_calloc(size_t count, size_t size) PRELOAD_ALIAS(calloc);
void *__libc_realloc(void *block, size_t size) PRELOAD_ALIAS(realloc);
void *__libc_memalign(size_t align, size_t size) PRELOAD_ALIAS(memalign);
void *__libc_valloc(size_t size) PRELOAD_ALIAS(valloc);
void *__libc_pvalloc(size_t size) PRELOAD_ALIAS(pvalloc);
int __posix_memalign(void **out, size_t align, size_t size) PRELOAD_ALIAS(posix_memalign);
