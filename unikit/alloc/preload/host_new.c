/* SPDX-License-Identifier: MIT */
/* C++: operator new and delete in all their forms, under the names that the Itanium C++ ABI gives
 * them. Included by composition.c behind host_malloc.c.
 *
 * A form that throws asks host_raise.c for the exception; its frames are unwound like any other.
 * Sizes given to delete are not used, see free_sized(). */
#include <unikit/alloc/preload/host.h>

static PRELOAD_COLD void *preload_slow_new(size_t size, size_t align)
{
    for (;;) {
        void *block = preload_slow_take(size, align, PRELOAD_PLAIN);
        if (block)
            return block;
        kit_preload_no_memory();
    }
}

static PRELOAD_COLD void *preload_slow_new_quiet(size_t size, size_t align, const void *nothrow)
{
    void *block = preload_slow_take(size, align, PRELOAD_PLAIN);
    return block ? block : kit_preload_new_quiet(size, align, nothrow);
}

KIT_INLINE void *preload_new(size_t size)
{
    if (preload_ready()) {
        void *block = preload_take(preload_face(), size, PRELOAD_ALIGN);
        if (KIT_LIKELY(block))
            return block;
    }
    return preload_slow_new(size, PRELOAD_ALIGN);
}

/* The compiler sees to it that alignments are powers of two. */
static void *preload_new_aligned(size_t size, size_t align)
{
    void *block = preload_aligned(align, size);
    return block ? block : preload_slow_new(size, align);
}

/* `operator new`: (size), [](size), and both with std::nothrow. */
void *_Znwm(size_t size);
void *_Znam(size_t size);
void *_ZnwmRKSt9nothrow_t(size_t size, const void *nothrow);
void *_ZnamRKSt9nothrow_t(size_t size, const void *nothrow);

PRELOAD_PUBLIC void *_Znwm(size_t size)
{
    PRELOAD_NOTE(NULL);
    return preload_new(size);
}

PRELOAD_PUBLIC void *_ZnwmRKSt9nothrow_t(size_t size, const void *nothrow)
{
    PRELOAD_NOTE(NULL);
    if (preload_ready()) {
        void *block = preload_take(preload_face(), size, PRELOAD_ALIGN);
        if (KIT_LIKELY(block))
            return block;
    }
    return preload_slow_new_quiet(size, PRELOAD_ALIGN, nothrow);
}

void *_Znam(size_t size) PRELOAD_ALIAS(_Znwm);
void *_ZnamRKSt9nothrow_t(size_t size, const void *nothrow) PRELOAD_ALIAS(_ZnwmRKSt9nothrow_t);

/* The same with std::align_val_t. */
void *_ZnwmSt11align_val_t(size_t size, size_t align);
void *_ZnamSt11align_val_t(size_t size, size_t align);
void *_ZnwmSt11align_val_tRKSt9nothrow_t(size_t size, size_t align, const void *nothrow);
void *_ZnamSt11align_val_tRKSt9nothrow_t(size_t size, size_t align, const void *nothrow);

PRELOAD_PUBLIC void *_ZnwmSt11align_val_t(size_t size, size_t align)
{
    PRELOAD_NOTE(NULL);
    return preload_new_aligned(size, align);
}

PRELOAD_PUBLIC void *_ZnwmSt11align_val_tRKSt9nothrow_t(size_t size, size_t align,
                                                        const void *nothrow)
{
    PRELOAD_NOTE(NULL);
    void *block = preload_aligned(align, size);
    return block ? block : preload_slow_new_quiet(size, align, nothrow);
}

void *_ZnamSt11align_val_t(size_t size, size_t align) PRELOAD_ALIAS(_ZnwmSt11align_val_t);
void *_ZnamSt11align_val_tRKSt9nothrow_t(size_t size, size_t align, const void *nothrow)
    PRELOAD_ALIAS(_ZnwmSt11align_val_tRKSt9nothrow_t);

/* `operator delete`: plain, sized, aligned, both, and the forms that nothrow new falls back on. */
void _ZdlPv(void *block) PRELOAD_ALIAS(free);
void _ZdaPv(void *block) PRELOAD_ALIAS(free);
void _ZdlPvm(void *block, size_t size) PRELOAD_ALIAS(free_sized);
void _ZdaPvm(void *block, size_t size) PRELOAD_ALIAS(free_sized);
void _ZdlPvSt11align_val_t(void *block, size_t align) PRELOAD_ALIAS(free_sized);
void _ZdaPvSt11align_val_t(void *block, size_t align) PRELOAD_ALIAS(free_sized);
void _ZdlPvmSt11align_val_t(void *block, size_t size, size_t align)
    PRELOAD_ALIAS(free_aligned_sized);
void _ZdaPvmSt11align_val_t(void *block, size_t size, size_t align)
    PRELOAD_ALIAS(free_aligned_sized);
void _ZdlPvRKSt9nothrow_t(void *block, const void *nothrow);
void _ZdaPvRKSt9nothrow_t(void *block, const void *nothrow);
void _ZdlPvSt11align_val_tRKSt9nothrow_t(void *block, size_t align, const void *nothrow);
void _ZdaPvSt11align_val_tRKSt9nothrow_t(void *block, size_t align, const void *nothrow);

PRELOAD_PUBLIC void _ZdlPvRKSt9nothrow_t(void *block, const void *nothrow)
{
    (void)nothrow;
    PRELOAD_NOTE(block);
    preload_free(block);
}

PRELOAD_PUBLIC void _ZdlPvSt11align_val_tRKSt9nothrow_t(void *block, size_t align,
                                                        const void *nothrow)
{
    (void)align, (void)nothrow;
    PRELOAD_NOTE(block);
    preload_free(block);
}

void _ZdaPvRKSt9nothrow_t(void *block, const void *nothrow) PRELOAD_ALIAS(_ZdlPvRKSt9nothrow_t);
void _ZdaPvSt11align_val_tRKSt9nothrow_t(void *block, size_t align, const void *nothrow)
    PRELOAD_ALIAS(_ZdlPvSt11align_val_tRKSt9nothrow_t);
