/* SPDX-License-Identifier: MIT */
/* Stacks of tasks.
 *
 *     base                                                  base + size
 *     | guard page | canary, painted ...  <- used by calls | tag, 64 bytes |
 *
 * The lowest page is taken away where the environment can do that: an overflow then faults at once,
 * and the platform finds the task's name by the tag. Where it cannot, the lowest word is a canary,
 * looked at, as the stack pointer is, whenever the task stops running: that finds most overflows,
 * late. Painting (option `measure`) writes the whole stack once, when it is made, and therefore
 * makes all of its pages real.
 *
 * Cost: a kept stack O(1); a new one an allocation, and one page_protect() if guarded. */
#include <unikit/rt/assert.h>
#include <unikit/rt/bits.h>
#include <unikit/sched/stack.h>

enum { STACK_SIZE_MIN = 1024, STACK_ALIGN = 64, STACK_PAINT = 0xa5, STACK_CANARY_BYTES = 8 };
#define STACK_SIZE_MAX ((size_t)1 << 40)
#define STACK_PAINTED UINT64_C(0xa5a5a5a5a5a5a5a5)
#define STACK_CANARY UINT64_C(0x9d1f0b5e63c7a842)

static size_t stack_align(const struct stack_pool *pool)
{
    return pool->guard ? KIT_STACK_PAGE : STACK_ALIGN;
}

/* Bytes of the block that gives `size` usable ones. */
static size_t stack_block_size(const struct stack_pool *pool, size_t size)
{
    size_t inner = size + sizeof(struct kit_stack_tag) + STACK_CANARY_BYTES;
    return kit_align_up(inner, stack_align(pool)) + (pool->guard ? KIT_STACK_PAGE : 0);
}

int stack_pool_open(struct stack_pool *pool, runtime_environment_t *env, struct kit_alloc *alloc,
                    size_t size, bool guard, size_t limit, bool measure)
{
    if (size < STACK_SIZE_MIN || size > STACK_SIZE_MAX)
        return KIT_EINVAL;
    *pool = (struct stack_pool){.env = env,
                                .alloc = alloc,
                                .size = size - sizeof(struct kit_stack_tag) - STACK_CANARY_BYTES,
                                .limit = limit,
                                .guard = guard && KIT_ENV_HAS(env, page_protect),
                                .measure = measure};
    return 0;
}

static uint64_t *stack_canary(const struct kit_stack_tag *stack)
{
    return (uint64_t *)stack_end(stack);
}

bool stack_intact(const struct kit_stack_tag *stack)
{
    return stack->guard != 0 || *stack_canary(stack) == STACK_CANARY;
}

_Noreturn void stack_overflowed(const struct kit_stack_tag *stack, char message[STACK_MESSAGE])
{
    static const char before[] = "stack overflow in task '";
    size_t length = strlen(stack->name);
    memcpy(message, before, sizeof(before) - 1);
    memcpy(message + sizeof(before) - 1, stack->name, length);
    memcpy(message + sizeof(before) - 1 + length, "'", 2);
    kit_panic(message);
}

static void stack_set_name(struct kit_stack_tag *stack, const char *name)
{
    size_t i = 0;
    if (name == NULL || name[0] == 0)
        name = "(unnamed)";
    for (; i < sizeof(stack->name) - 1 && name[i] != 0; i++)
        stack->name[i] = name[i];
    stack->name[i] = 0;
}

static struct kit_stack_tag *stack_make(struct stack_pool *pool, size_t block)
{
    uint8_t *base = kit_alloc_alloc(pool->alloc, block, stack_align(pool));
    if (base == NULL)
        return NULL;
    struct kit_stack_tag *stack = (struct kit_stack_tag *)(void *)(base + block) - 1;
    *stack = (struct kit_stack_tag){.magic = KIT_STACK_MAGIC, .size = block};
    if (pool->guard && kit_env_page_protect(pool->env, base, KIT_STACK_PAGE, KIT_PAGE_NONE) == 0)
        stack->guard = (uintptr_t)base;
    uint8_t *end = (uint8_t *)stack_end(stack);
    if (pool->measure)
        memset(end, STACK_PAINT, (size_t)((uint8_t *)stack - end));
    if (stack->guard == 0)
        *stack_canary(stack) = STACK_CANARY;
    return stack;
}

struct kit_stack_tag *stack_get(struct stack_pool *pool, size_t size, const char *name)
{
    struct kit_stack_tag *stack = pool->free;
    if (size > STACK_SIZE_MAX)
        return NULL;
    if (size == 0)
        size = pool->size;
    if (size <= pool->size && stack != NULL) {
        pool->free = stack->next;
        pool->cached--;
    } else {
        size_t least = STACK_SIZE_MIN;
        stack = stack_make(pool, stack_block_size(pool, size > least ? size : least));
        if (stack == NULL)
            return NULL;
    }
    stack_set_name(stack, name);
    return stack;
}

static void stack_destroy(struct stack_pool *pool, struct kit_stack_tag *stack)
{
    size_t size = stack->size;
    uint8_t *base = (uint8_t *)(stack + 1) - size;
    if (stack->guard != 0 &&
        kit_env_page_protect(pool->env, base, KIT_STACK_PAGE, KIT_PAGE_READ | KIT_PAGE_WRITE) != 0)
        kit_panic("sched: the platform does not give a guard page back");
    stack->magic = 0;
    kit_alloc_free(pool->alloc, base, size, stack_align(pool));
}

size_t stack_depth(const struct kit_stack_tag *stack)
{
    const uint64_t *top = (const uint64_t *)stack;
    const uint64_t *at = (const uint64_t *)stack_end(stack) + 1; /* above the canary */
    while (at < top && *at == STACK_PAINTED)
        at++;
    return (size_t)(top - at) * sizeof(*at);
}

void stack_put(struct stack_pool *pool, struct kit_stack_tag *stack)
{
    if (pool->measure) {
        size_t depth = stack_depth(stack);
        pool->peak = depth > pool->peak ? depth : pool->peak;
    }
    if (stack->size != stack_block_size(pool, pool->size) || pool->cached >= pool->limit) {
        stack_destroy(pool, stack);
        return;
    }
    stack->next = pool->free;
    pool->free = stack;
    pool->cached++;
}

void stack_pool_close(struct stack_pool *pool)
{
    while (pool->free != NULL) {
        struct kit_stack_tag *stack = pool->free;
        pool->free = stack->next;
        stack_destroy(pool, stack);
    }
    pool->cached = 0;
}
