/* SPDX-License-Identifier: MIT */
/* Stacks for tasks: taken from the allocator, guarded, measured. Inner interface of unikit/sched; a
 * component lists stack.c among its sources.
 *
 * A stack is known by its tag (rt/stack.h), which lies at its top; below it is room for what its
 * owner wants to keep beside it, and there the stack proper begins. */
#ifndef KIT_SCHED_STACK_H
#define KIT_SCHED_STACK_H

#include <unikit/rt/stack.h>
#include <unikit/sched/sched.h>

#define STACK_CANARY UINT64_C(0x9d1f0b5e63c7a842)

struct stack_pool {
    runtime_environment_t *env;
    struct kit_alloc *alloc;
    size_t size;   /* of a stack of default size, with its tag and the owner's room, bytes */
    size_t limit;  /* free stacks that are kept at most */
    size_t cached; /* free stacks that are kept now */
    size_t peak;   /* deepest use seen, bytes; with `measure` only */
    struct kit_stack_tag *free;
    uint32_t made; /* so far: successive ones begin at different places within a page */
    bool guard;
    bool measure;
};

/* Options outside what is allowed: KIT_EINVAL. */
int stack_pool_open(struct stack_pool *pool, runtime_environment_t *env, struct kit_alloc *alloc,
                    size_t size, bool guard, size_t limit, bool measure);

/* ---- for who keeps an object at the top of each stack ---------------------------------------- */

/* A stack of at least `size` usable bytes (0: as large as the default) and, above them, `room`
 * bytes at *owner, a multiple of 64; zeroed. NULL: out of memory. */
struct kit_stack_tag *stack_make(struct stack_pool *pool, size_t size, size_t room, void **owner);
void stack_destroy(struct stack_pool *pool, struct kit_stack_tag *stack);
/* Usable bytes of a stack of default size. */
size_t stack_usable(const struct stack_pool *pool, size_t room);
/* Copies the task's name, cut, into the tag. */
void stack_set_name(struct kit_stack_tag *stack, const char *name);
/* As stack_depth, for calls below `top`. */
size_t stack_depth_below(const struct kit_stack_tag *stack, const void *top);
/* Looks how deep a stack was used, for the peak; with `measure` only. */
void stack_measure(struct stack_pool *pool, const struct kit_stack_tag *stack, const void *top);

/* ---- for who does not: calls begin below the tag, and the pool keeps what is free ------------ */

void stack_pool_close(struct stack_pool *pool);
/* A stack of at least `size` usable bytes (0: the default), or NULL: out of memory. O(1) when one
 * is kept. */
struct kit_stack_tag *stack_get(struct stack_pool *pool, size_t size, const char *name);
/* Measures a stack that is no longer in use, and keeps it or frees it. */
void stack_put(struct stack_pool *pool, struct kit_stack_tag *stack);
/* Bytes used so far by the deepest call, by looking at what is still painted; O(unused bytes). */
KIT_INLINE size_t stack_depth(const struct kit_stack_tag *stack)
{
    return stack_depth_below(stack, stack);
}

/* ---- for both -------------------------------------------------------------------------------- */

/* Whether the word at the end of a stack without a guard page is as it was made. O(1). */
bool stack_intact(const struct kit_stack_tag *stack);
enum { STACK_MESSAGE = 64 };
/* Panics because the task on this stack ran over it, by its name. The text goes to `message`, in
 * the scheduler's object: the stack at hand is the one that ran over. */
_Noreturn void stack_overflowed(const struct kit_stack_tag *stack, char message[STACK_MESSAGE]);

/* Lowest usable address. */
KIT_INLINE uintptr_t stack_end(const struct kit_stack_tag *stack)
{
    uintptr_t base = (uintptr_t)(stack + 1) - stack->size;
    return stack->guard != 0 ? base + KIT_STACK_PAGE : base;
}

#endif
