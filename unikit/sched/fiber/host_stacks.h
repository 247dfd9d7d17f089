/* SPDX-License-Identifier: MIT */
/* Stacks for fibers: mapped as they are used, with a page without access below, kept for reuse. */
#ifndef KIT_SCHED_FIBER_HOST_STACKS_H
#define KIT_SCHED_FIBER_HOST_STACKS_H

#include <unikit/sched/fiber/host_state.h>

#if !FIBER_UNSUPPORTED

#include <stdbool.h>
#include <sys/mman.h>

enum { FIBER_PAGE = 4096, FIBER_STACKS_KEPT = 64 };

/* Lies at the top of its own stack. */
struct fiber_stack {
    struct fiber_stack *next;
    char *base; /* of the mapping: the guard page */
    size_t size;
    _PyStackChunk *chunk; /* the first one of the last user, for the next */
};

struct fiber_stacks {
    struct fiber_stack *spare;
    size_t kept;
};

/* NULL with MemoryError. `size`: a multiple of the page size. */
static inline struct fiber_stack *fiber_stack_get(struct fiber_stacks *stacks, size_t size)
{
    struct fiber_stack *stack = stacks->spare;
    if (stack != NULL && stack->size == size) {
        stacks->spare = stack->next;
        stacks->kept--;
        return stack;
    }
    char *base = mmap(NULL, size + FIBER_PAGE, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (base == MAP_FAILED || mprotect(base, FIBER_PAGE, PROT_NONE) != 0) {
        if (base != MAP_FAILED)
            munmap(base, size + FIBER_PAGE);
        PyErr_Format(PyExc_MemoryError,
                     "no stack of %zu bytes for a fiber; vm.max_map_count limits their number",
                     size);
        return NULL;
    }
    stack = (struct fiber_stack *)(void *)(base + FIBER_PAGE + size - sizeof(*stack));
    *stack = (struct fiber_stack){.base = base, .size = size};
    return stack;
}

static inline void fiber_stack_free(struct fiber_stack *stack)
{
    fiber_state_free_chunks(stack->chunk);
    munmap(stack->base, stack->size + FIBER_PAGE);
}

/* `chunk`: where the frames of its user lay. */
static inline void fiber_stack_put(struct fiber_stacks *stacks, struct fiber_stack *stack,
                                   _PyStackChunk *chunk)
{
    while (chunk != NULL && chunk->previous != NULL) {
        _PyStackChunk *previous = chunk->previous;
        chunk->previous = NULL;
        fiber_state_free_chunks(chunk);
        chunk = previous;
    }
    stack->chunk = chunk;
    if (stacks->kept == FIBER_STACKS_KEPT) {
        fiber_stack_free(stack);
        return;
    }
    stack->next = stacks->spare;
    stacks->spare = stack;
    stacks->kept++;
}

static inline void fiber_stacks_close(struct fiber_stacks *stacks)
{
    while (stacks->spare != NULL) {
        struct fiber_stack *stack = stacks->spare;
        stacks->spare = stack->next;
        fiber_stack_free(stack);
    }
    stacks->kept = 0;
}

#endif
#endif
