/* SPDX-License-Identifier: MIT */
/* Two hash tables with linear probing: O(1) while at most half full, which growing by doubling sees
 * to. 16 bytes for a live block, 20 for a call site, twice that for what is empty. */
#include <stdlib.h>

#include <unikit/alloc/lab/host_tables.h>
#include <unikit/rt/error.h>

static size_t spread(uint64_t key)
{
    key *= UINT64_C(0x9E3779B97F4A7C15);
    return (size_t)(key ^ (key >> 29));
}

KIT_HIDDEN int kit_trace_reserve(struct kit_trace_lives *lives)
{
    if (lives->table && (lives->filled + 1) * 2 <= lives->mask)
        return 0;
    size_t room = lives->table ? (lives->mask + 1) * 2 : 1024;
    struct kit_trace_live *fresh = calloc(room, sizeof *fresh);
    if (!fresh)
        return KIT_ENOMEM;
    for (size_t i = 0; lives->table && i <= lives->mask; i++)
        if (lives->table[i].identity) {
            size_t at = spread(lives->table[i].identity);
            while (fresh[at & (room - 1)].identity)
                at++;
            fresh[at & (room - 1)] = lives->table[i];
        }
    free(lives->table);
    lives->table = fresh;
    lives->mask = room - 1;
    return 0;
}

KIT_HIDDEN struct kit_trace_live *kit_trace_find(const struct kit_trace_lives *lives,
                                                 uint64_t identity)
{
    size_t at = spread(identity + 1);
    while (lives->table[at & lives->mask].identity &&
           lives->table[at & lives->mask].identity != identity + 1)
        at++;
    return &lives->table[at & lives->mask];
}

/* Those behind the entry move up, so that no gravestones are needed. */
KIT_HIDDEN void kit_trace_remove(struct kit_trace_lives *lives, struct kit_trace_live *live)
{
    size_t hole = (size_t)(live - lives->table), at = hole;
    lives->filled--;
    for (;;) {
        at = (at + 1) & lives->mask;
        if (!lives->table[at].identity)
            break;
        size_t home = spread(lives->table[at].identity) & lives->mask;
        if (((at - home) & lives->mask) >= ((at - hole) & lives->mask)) {
            lives->table[hole] = lives->table[at];
            hole = at;
        }
    }
    lives->table[hole].identity = 0;
}

static int grow_sites(struct kit_trace_sites *sites)
{
    size_t room = sites->table ? (sites->mask + 1) * 2 : 256;
    uint64_t *table = calloc(room, sizeof *table);
    uint32_t *numbers = calloc(room, sizeof *numbers);
    uint64_t *list = realloc(sites->list, room * sizeof *list);
    sites->list = list ? list : sites->list;
    if (!table || !numbers || !list) {
        free(table);
        free(numbers);
        return KIT_ENOMEM;
    }
    for (uint32_t i = 0; i < sites->count; i++) {
        size_t at = spread(list[i]);
        while (table[at & (room - 1)])
            at++;
        table[at & (room - 1)] = list[i];
        numbers[at & (room - 1)] = i + 1;
    }
    free(sites->table);
    free(sites->numbers);
    sites->table = table;
    sites->numbers = numbers;
    sites->mask = room - 1;
    return 0;
}

KIT_HIDDEN int kit_trace_number_site(struct kit_trace_sites *sites, uint64_t site, uint32_t *number)
{
    *number = 0;
    if (!site)
        return 0;
    if (!sites->table || (size_t)sites->count * 2 > sites->mask) {
        int code = grow_sites(sites);
        if (code < 0)
            return code;
    }
    size_t at = spread(site);
    while (sites->table[at & sites->mask] && sites->table[at & sites->mask] != site)
        at++;
    at &= sites->mask;
    if (!sites->table[at]) {
        sites->table[at] = site;
        sites->list[sites->count++] = site;
        sites->numbers[at] = sites->count;
    }
    *number = sites->numbers[at];
    return 0;
}
