/* SPDX-License-Identifier: MIT */
/* What the programs of these tests stand on: the C library's heap with room below each block (so
 * that a stack may run over without hurting anybody), guard pages by mprotect. */
#ifndef KIT_TESTS_SCHED_HOSTED_H
#define KIT_TESTS_SCHED_HOSTED_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <unikit/sched/sched.h>
#include <unikit/testing/virtual.h>

#ifndef HOSTED_ROOM_OF
#define HOSTED_ROOM_OF HOSTED_ROOM
#endif
enum { HOSTED_ROOM = 65536 };

static size_t hosted_bytes, hosted_blocks;

static size_t hosted_room(size_t align)
{
    return align >= 64 ? HOSTED_ROOM_OF : 0; /* a stack, not an object */
}

static void *hosted_alloc(struct kit_alloc *a, size_t size, size_t align)
{
    size_t step = align < 16 ? 16 : align, room = hosted_room(align);
    (void)a;
    char *block = aligned_alloc(step, (room + size + step - 1) / step * step);
    if (block == NULL)
        return NULL;
    hosted_blocks++;
    hosted_bytes += size;
    return block + room;
}

static void hosted_free(struct kit_alloc *a, void *block, size_t size, size_t align)
{
    (void)a;
    if (block == NULL)
        return;
    hosted_blocks--;
    hosted_bytes -= size;
    free((char *)block - hosted_room(align));
}

static void *hosted_realloc(struct kit_alloc *a, void *block, size_t old_size, size_t new_size,
                            size_t align)
{
    void *moved = hosted_alloc(a, new_size, align);
    if (moved == NULL || block == NULL)
        return moved;
    memcpy(moved, block, old_size < new_size ? old_size : new_size);
    hosted_free(a, block, old_size, align);
    return moved;
}

static const struct kit_alloc_ops hosted_ops = {
    .alloc = hosted_alloc, .free = hosted_free, .realloc = hosted_realloc};
static struct kit_alloc hosted_heap = {&hosted_ops};

__attribute__((unused)) static int hosted_protect(runtime_environment_t *env, void *base,
                                                  size_t size, uint32_t access)
{
    (void)env;
    return mprotect(base, size, access ? PROT_READ | PROT_WRITE : PROT_NONE) == 0 ? 0 : KIT_ENOTSUP;
}

#endif
