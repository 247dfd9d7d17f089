/* SPDX-License-Identifier: MIT */
/* glibc's allocator as a library to preload: for programs that are linked to another one, whose
 * calls would not reach glibc otherwise. Each call goes on to glibc's own entry under a name that
 * no other library defines; malloc_usable_size() and its kin have no such name and are looked up in
 * the C library itself. The C++ operators are here because allocators bring them too. */
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#define SHOWN __attribute__((visibility("default")))

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *block, size_t size);
extern void *__libc_memalign(size_t align, size_t size);
extern void *__libc_valloc(size_t size);
extern void *__libc_pvalloc(size_t size);
extern void __libc_free(void *block);

SHOWN void *malloc(size_t size)
{
    return __libc_malloc(size);
}
SHOWN void *calloc(size_t count, size_t size)
{
    return __libc_calloc(count, size);
}
SHOWN void *realloc(void *block, size_t size)
{
    return __libc_realloc(block, size);
}
SHOWN void *memalign(size_t align, size_t size)
{
    return __libc_memalign(align, size);
}
SHOWN void *aligned_alloc(size_t align, size_t size)
{
    return __libc_memalign(align, size);
}
SHOWN void *valloc(size_t size)
{
    return __libc_valloc(size);
}
SHOWN void *pvalloc(size_t size)
{
    return __libc_pvalloc(size);
}
SHOWN void free(void *block)
{
    __libc_free(block);
}
SHOWN void *reallocarray(void *block, size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    return __libc_realloc(block, bytes);
}

SHOWN int posix_memalign(void **out, size_t align, size_t size)
{
    if (align % sizeof(void *) != 0 || align == 0 || (align & (align - 1)) != 0) {
        return EINVAL;
    }
    int kept = errno;
    void *block = __libc_memalign(align, size);
    errno = kept;
    if (block == NULL) {
        return ENOMEM;
    }
    *out = block;
    return 0;
}

/* A function of the C library itself, whoever else defines one of that name. */
static void *inner(const char *name)
{
    static void *library;
    if (library == NULL) {
        library = dlopen("libc.so.6", RTLD_NOLOAD | RTLD_LAZY);
    }
    return library == NULL ? NULL : dlsym(library, name);
}

SHOWN size_t malloc_usable_size(void *block)
{
    static size_t (*usable)(void *);
    if (usable == NULL) {
        *(void **)&usable = inner("malloc_usable_size");
    }
    return usable == NULL ? 0 : usable(block);
}

SHOWN int malloc_trim(size_t pad)
{
    int (*trim)(size_t);
    *(void **)&trim = inner("malloc_trim");
    return trim == NULL ? 0 : trim(pad);
}

SHOWN int mallopt(int parameter, int value)
{
    int (*set)(int, int);
    *(void **)&set = inner("mallopt");
    return set == NULL ? 0 : set(parameter, value);
}

/* The C++ operators, by their names in the x86-64 and AArch64 C++ ABI. */
extern void _ZSt17__throw_bad_allocv(void) __attribute__((weak, noreturn));

static void *need(void *block)
{
    if (block == NULL) {
        if (_ZSt17__throw_bad_allocv != NULL) {
            _ZSt17__throw_bad_allocv();
        }
        abort();
    }
    return block;
}

#define NEW(name, arguments, call)                                                                 \
    SHOWN void *name arguments;                                                                    \
    SHOWN void *name arguments                                                                     \
    {                                                                                              \
        return call;                                                                               \
    }
#define DELETE(name, arguments)                                                                    \
    SHOWN void name arguments;                                                                     \
    SHOWN void name arguments                                                                      \
    {                                                                                              \
        __libc_free(block);                                                                        \
    }

NEW(_Znwm, (size_t size), need(__libc_malloc(size)))
NEW(_Znam, (size_t size), need(__libc_malloc(size)))
NEW(_ZnwmRKSt9nothrow_t, (size_t size, const void *tag), ((void)tag, __libc_malloc(size)))
NEW(_ZnamRKSt9nothrow_t, (size_t size, const void *tag), ((void)tag, __libc_malloc(size)))
NEW(_ZnwmSt11align_val_t, (size_t size, size_t align), need(__libc_memalign(align, size)))
NEW(_ZnamSt11align_val_t, (size_t size, size_t align), need(__libc_memalign(align, size)))
NEW(_ZnwmSt11align_val_tRKSt9nothrow_t, (size_t size, size_t align, const void *tag),
    ((void)tag, __libc_memalign(align, size)))
NEW(_ZnamSt11align_val_tRKSt9nothrow_t, (size_t size, size_t align, const void *tag),
    ((void)tag, __libc_memalign(align, size)))
DELETE(_ZdlPv, (void *block))
DELETE(_ZdaPv, (void *block))
DELETE(_ZdlPvm, (void *block, size_t size __attribute__((unused))))
DELETE(_ZdaPvm, (void *block, size_t size __attribute__((unused))))
DELETE(_ZdlPvRKSt9nothrow_t, (void *block, const void *tag __attribute__((unused))))
DELETE(_ZdaPvRKSt9nothrow_t, (void *block, const void *tag __attribute__((unused))))
DELETE(_ZdlPvSt11align_val_t, (void *block, size_t align __attribute__((unused))))
DELETE(_ZdaPvSt11align_val_t, (void *block, size_t align __attribute__((unused))))
DELETE(_ZdlPvmSt11align_val_t,
       (void *block, size_t size __attribute__((unused)), size_t align __attribute__((unused))))
DELETE(_ZdaPvmSt11align_val_t,
       (void *block, size_t size __attribute__((unused)), size_t align __attribute__((unused))))
DELETE(_ZdlPvSt11align_val_tRKSt9nothrow_t,
       (void *block, size_t align __attribute__((unused)), const void *tag __attribute__((unused))))
DELETE(_ZdaPvSt11align_val_tRKSt9nothrow_t,
       (void *block, size_t align __attribute__((unused)), const void *tag __attribute__((unused))))
