/* SPDX-License-Identifier: MIT */
/* Stacks of tasks.
 *
 *     base                                                                base + size
 *     | guard page | canary, painted ...  <- used by calls | owner's | colour | tag, 64 bytes |
 *
 * The lowest page is taken away where the environment can do that: an overflow then faults at once,
 * and the platform finds the task's name by the tag. Where it cannot, the lowest word is a canary,
 * looked at, as the stack pointer is, whenever the task stops running: that finds most overflows,
 * late. Painting (option `measure`) writes the whole stack once, when it is made, and therefore
 * makes all of its pages real.
 *
 * All stacks of a page's alignment would have their busiest lines in the same few sets of the
 * cache, and 16 tasks would push each other out of it. So in stacks that have room for it what lies
 * below the tag is moved down by 0 to 7 pairs of lines, in turn (the «colour»).
 *
 * Cost: an allocation, and one page_protect() if guarded. */
#include <unikit/rt/assert.h>
#include <unikit/rt/bits.h>
#include <unikit/sched/stack.h>

enum { STACK_SIZE_MIN = 1024, STACK_USABLE_MIN = 512, STACK_ALIGN = 64 };
enum { STACK_PAINT = 0xa5, STACK_CANARY_BYTES = 8 };
enum { STACK_COLOURS = 8, STACK_COLOUR_BYTES = 128, STACK_COLOURED_MIN = 8192 };
#define STACK_SIZE_MAX ((size_t)1 << 40)
/* What an upcall takes of the stack it interrupts, on top of what was asked for. */
enum { STACK_UPCALL = KIT_WITH_PREEMPTION ? KIT_UPCALL_STACK : 0 };
#define STACK_PAINTED UINT64_C(0xa5a5a5a5a5a5a5a5)

static size_t stack_align(const struct stack_pool *pool)
{
    return pool->guard ? KIT_STACK_PAGE : STACK_ALIGN;
}

/* Bytes that the tag, the owner, the colour and the canary take from a stack of `size` bytes. */
static size_t stack_overhead(size_t size, size_t room)
{
    size_t colours =
        room != 0 && size >= STACK_COLOURED_MIN ? STACK_COLOUR_BYTES * (STACK_COLOURS - 1) : 0;
    return sizeof(struct kit_stack_tag) + STACK_CANARY_BYTES + room + colours;
}

/* Bytes of the block for a stack of `size` bytes, overhead included; room for an upcall is extra.
 */
static size_t stack_block(const struct stack_pool *pool, size_t size)
{
    return kit_align_up(size + STACK_UPCALL, stack_align(pool)) +
           (pool->guard ? KIT_STACK_PAGE : 0);
}

size_t stack_usable(const struct stack_pool *pool, size_t room)
{
    size_t overhead = stack_overhead(pool->size, room);
    return pool->size > overhead + STACK_USABLE_MIN ? pool->size - overhead : STACK_USABLE_MIN;
}

int stack_pool_open(struct stack_pool *pool, runtime_environment_t *env, struct kit_alloc *alloc,
                    size_t size, bool guard, size_t limit, bool measure)
{
    if (size < STACK_SIZE_MIN || size > STACK_SIZE_MAX)
        return KIT_EINVAL;
    *pool = (struct stack_pool){.env = env,
                                .alloc = alloc,
                                .size = size,
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

__attribute__((cold)) _Noreturn void stack_overflowed(const struct kit_stack_tag *stack,
                                                      char message[STACK_MESSAGE])
{
    static const char before[] = "stack overflow in task '";
    size_t length = strlen(stack->name);
    memcpy(message, before, sizeof(before) - 1);
    memcpy(message + sizeof(before) - 1, stack->name, length);
    memcpy(message + sizeof(before) - 1 + length, "'", 2);
    kit_panic(message);
}

/* Eight bytes at a time, as long as they lie in one page with the first of them: what is read
 * behind the end of the name then exists, and is cut off. */
void stack_set_name(struct kit_stack_tag *stack, const char *name)
{
    enum { WORD = 8, LAST = sizeof(stack->name) - 1 };
    size_t i = 0;
    if (name == NULL || name[0] == 0)
        name = "(unnamed)";
#ifndef __SANITIZE_ADDRESS__ /* which would call that an overrun */
    for (; i <= LAST && ((uintptr_t)(name + i) & (KIT_STACK_PAGE - 1)) <= KIT_STACK_PAGE - WORD;
         i += WORD) {
        uint64_t word;
        memcpy(&word, name + i, WORD);
        uint64_t ends =
            (word - UINT64_C(0x0101010101010101)) & ~word & UINT64_C(0x8080808080808080);
        if (ends != 0)
            word &= (ends & (0 - ends)) - 1; /* the lowest mark is right, and is above all text */
        memcpy(stack->name + i, &word, WORD);
        if (ends != 0)
            return;
    }
#endif
    for (; i < LAST && name[i] != 0; i++)
        stack->name[i] = name[i];
    stack->name[i < LAST ? i : LAST] = 0;
}

struct kit_stack_tag *stack_make(struct stack_pool *pool, size_t size, size_t room, void **owner)
{
    if (size > STACK_SIZE_MAX)
        return NULL;
    if (size == 0)
        size = stack_usable(pool, room);
    else if (size < STACK_SIZE_MIN)
        size = STACK_SIZE_MIN;
    size += stack_overhead(size, room);
    size_t block = stack_block(pool, size);
    uint8_t *base = kit_alloc_alloc(pool->alloc, block, stack_align(pool));
    if (base == NULL)
        return NULL;
    struct kit_stack_tag *stack = (struct kit_stack_tag *)(void *)(base + block) - 1;
    *stack = (struct kit_stack_tag){.magic = KIT_STACK_MAGIC, .size = block};
    if (pool->guard && kit_env_page_protect(pool->env, base, KIT_STACK_PAGE, KIT_PAGE_NONE) == 0)
        stack->guard = (uintptr_t)base;
    size_t colour = room != 0 && size >= STACK_COLOURED_MIN ? pool->made++ % STACK_COLOURS : 0;
    uint8_t *top = (uint8_t *)stack - colour * STACK_COLOUR_BYTES - room;
    uint8_t *end = (uint8_t *)stack_end(stack);
    if (pool->measure)
        memset(end, STACK_PAINT, (size_t)(top - end));
    if (stack->guard == 0)
        *stack_canary(stack) = STACK_CANARY;
    memset(top, 0, room);
    *owner = top;
    return stack;
}

void stack_destroy(struct stack_pool *pool, struct kit_stack_tag *stack)
{
    size_t size = stack->size;
    uint8_t *base = (uint8_t *)(stack + 1) - size;
    if (stack->guard != 0 &&
        kit_env_page_protect(pool->env, base, KIT_STACK_PAGE, KIT_PAGE_READ | KIT_PAGE_WRITE) != 0)
        kit_panic("sched: the platform does not give a guard page back");
    stack->magic = 0;
    kit_alloc_free(pool->alloc, base, size, stack_align(pool));
}

size_t stack_depth_below(const struct kit_stack_tag *stack, const void *top)
{
    const uint64_t *at = (const uint64_t *)stack_end(stack) + 1; /* above the canary */
    while (at < (const uint64_t *)top && *at == STACK_PAINTED)
        at++;
    return (size_t)((const uint64_t *)top - at) * sizeof(*at);
}

void stack_measure(struct stack_pool *pool, const struct kit_stack_tag *stack, const void *top)
{
    if (!pool->measure)
        return;
    size_t depth = stack_depth_below(stack, top);
    pool->peak = depth > pool->peak ? depth : pool->peak;
}

/* ---- kept for reuse ------------------------------------------------------------------------- */

struct kit_stack_tag *stack_get(struct stack_pool *pool, size_t size, const char *name)
{
    struct kit_stack_tag *stack = pool->free;
    void *top;
    if (size <= stack_usable(pool, 0) && stack != NULL) {
        pool->free = stack->next;
        pool->cached--;
    } else {
        stack = stack_make(pool, size, 0, &top);
        if (stack == NULL)
            return NULL;
    }
    stack_set_name(stack, name);
    return stack;
}

void stack_put(struct stack_pool *pool, struct kit_stack_tag *stack)
{
    stack_measure(pool, stack, stack);
    if (stack->size != stack_block(pool, pool->size) || pool->cached >= pool->limit) {
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
