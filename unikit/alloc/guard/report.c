/* SPDX-License-Identifier: MIT */
/* alloc.guard: what it says. A component formats by hand: it may ask nobody for a formatter. */
#include <unikit/alloc/guard/guard.h>

static void put(struct guard *g, const char *text)
{
    size_t used = strlen(g->text), length = strlen(text);
    if (length > sizeof g->text - 1 - used)
        length = sizeof g->text - 1 - used;
    memcpy(g->text + used, text, length);
    g->text[used + length] = '\0';
}

static void put_number(struct guard *g, uint64_t number, unsigned base)
{
    char digits[24], *at = digits + sizeof digits;
    *--at = '\0';
    do
        *--at = "0123456789abcdef"[number % base];
    while ((number /= base) != 0);
    put(g, base == 16 ? "0x" : "");
    put(g, at);
}

static void put_site(struct guard *g, const char *what, uintptr_t site)
{
    if (site != 0) {
        put(g, what);
        put_number(g, site, 16);
    }
}

static void put_block(struct guard *g, const struct guard_head *head)
{
    put_number(g, (uintptr_t)head->block, 16);
    put(g, " of ");
    put_number(g, head->size, 10);
    put(g, " bytes");
}

static void begin(struct guard *g, const char *cause)
{
    g->text[0] = '\0';
    put(g, "alloc.guard: ");
    put(g, cause);
}

static _Noreturn void finish(struct guard *g, const struct guard_head *head, uintptr_t now)
{
    if (head != NULL) {
        put_site(g, ", allocated by ", head->site);
        put_site(g, ", freed by ", head->freed);
    }
    put_site(g, ", now by ", now);
    kit_panic(g->text);
}

_Noreturn void guard_panic(struct guard *g, const char *cause, const struct guard_head *head,
                           const ptrdiff_t *offset, uintptr_t now)
{
    begin(g, cause);
    put(g, ": block ");
    put_block(g, head);
    if (offset != NULL) {
        put(g, *offset < 0 ? ", at offset -" : ", at offset ");
        put_number(g, (uint64_t)(*offset < 0 ? -*offset : *offset), 10);
    }
    finish(g, head, now);
}

_Noreturn void guard_panic_given(struct guard *g, const char *what, size_t given, size_t asked,
                                 const struct guard_head *head, uintptr_t now)
{
    begin(g, "given back with ");
    put(g, what);
    put_number(g, given, 10);
    put(g, " instead of ");
    put_number(g, asked, 10);
    put(g, ": block ");
    put_block(g, head);
    finish(g, head, now);
}

_Noreturn void guard_panic_head(struct guard *g, const struct guard_head *head, uintptr_t now)
{
    begin(g, "the head before a block was overwritten: block ");
    put_number(g, (uintptr_t)(head + 1) + g->front, 16);
    finish(g, NULL, now);
}

/* The block of a list that an address lies in. A head that was overwritten ends the search, and is
 * itself the answer if the address is that of its block. */
static const struct guard_head *containing(struct guard *g, const struct kit_list *list,
                                           const char *address, uintptr_t now)
{
    size_t left = g->stats.blocks + g->waiting_blocks;
    for (const struct kit_list *at = list->next; at != list && left-- != 0; at = at->next) {
        const struct guard_head *head = guard_head_at(at);
        if (!guard_plausible(g, at))
            return NULL;
        if (!guard_sealed(g, head)) {
            if ((const char *)(head + 1) + g->front == address)
                guard_panic_head(g, head, now);
            return NULL;
        }
        if (address >= head->block && address < head->block + head->size)
            return head;
    }
    return NULL;
}

_Noreturn void guard_panic_foreign(struct guard *g, const void *address, uintptr_t now)
{
    const struct guard_head *head = containing(g, &g->live, address, now);
    if (head == NULL)
        head = containing(g, &g->waiting, address, now);
    begin(g, "no block: ");
    put_number(g, (uintptr_t)address, 16);
    if (head != NULL) {
        put(g, ", ");
        put_number(g, (uint64_t)((const char *)address - head->block), 10);
        put(g, " bytes into the block ");
        put_block(g, head);
    }
    finish(g, head, now);
}
