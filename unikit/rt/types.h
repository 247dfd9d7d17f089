/* SPDX-License-Identifier: MIT */
/* The vocabulary every C file of unikit stands on: compiler types, the five memory functions and
 * the one way to stop. Freestanding; no policy. */
#ifndef KIT_RT_TYPES_H
#define KIT_RT_TYPES_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The only symbols a component may leave undefined. kit_panic never returns: in an image it ends
 * the guest through the environment, in a Python process it unwinds to the caller of the
 * dispatcher, which sees KIT_EPANIC (or NULL) and raises. */
_Noreturn void kit_panic(const char *message);
void *memcpy(void *restrict to, const void *restrict from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *to, int byte, size_t size);
int memcmp(const void *a, const void *b, size_t size);
size_t strlen(const char *text);

/* Small constant sizes become a few moves: -ffreestanding by itself would call for every one. */
#if !__STDC_HOSTED__ && !defined memcpy
#define memcpy(to, from, size) __builtin_memcpy(to, from, size)
#define memmove(to, from, size) __builtin_memmove(to, from, size)
#define memset(to, byte, size) __builtin_memset(to, byte, size)
#define memcmp(a, b, size) __builtin_memcmp(a, b, size)
#define strlen(text) __builtin_strlen(text)
#endif

/* Marks the dispatchers in headers; ffi/cdef.py turns a KIT_INLINE function into a prototype. */
#define KIT_INLINE static inline

#define KIT_ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define KIT_CONTAINER_OF(pointer, type, member) \
    ((type *)(void *)((char *)(pointer) - offsetof(type, member)))
#define KIT_LIKELY(x) __builtin_expect(!!(x), 1)
#define KIT_UNLIKELY(x) __builtin_expect(!!(x), 0)

#define KIT_NS_PER_US UINT64_C(1000)
#define KIT_NS_PER_MS UINT64_C(1000000)
#define KIT_NS_PER_S UINT64_C(1000000000)
/* «No deadline»: later than any clock of ours runs (584 years). */
#define KIT_NEVER UINT64_MAX

#endif
