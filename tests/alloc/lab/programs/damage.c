/* Reads files that were damaged at random, under sanitizers: damage FILE ROUNDS. Whatever the bytes
 * are, they are refused or give events whose numbers lie where they must. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <unikit/alloc/lab/host_stats.h>

static uint64_t seed = 88172645463325252u;

static uint64_t next(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

/* Changes a few bytes, bits or stretches, or the end; returns the new size. */
static size_t damage(uint8_t *data, size_t size)
{
    size_t left = size;
    for (unsigned count = 1 + next() % 6; count-- > 0;) {
        size_t at = next() % 4 ? 4096 + next() % (size - 4096) : next() % 128;
        size_t length = next() % 64;
        switch (next() % 4) {
        case 0:
            data[at] ^= (uint8_t)(1u << (next() & 7));
            break;
        case 1:
            data[at] = (uint8_t)next();
            break;
        case 2:
            memset(data + at, (int)next(), at + length < size ? length : 0);
            break;
        default:
            left = 4096 + next() % (size - 4096);
        }
    }
    return left;
}

/* Takes the check sums out, so that the damage is not found by these. */
static void blind(uint8_t *data, size_t size)
{
    uint32_t slot;
    memset(data + 72, 0, 4);
    memcpy(&slot, data + 12, sizeof slot);
    for (size_t at = 4096; at + 32 <= size; at += slot > 32 ? slot : 4096)
        memset(data + at + 20, 0, 4);
}

static void inspect(const struct kit_trace_reader *reader)
{
    struct kit_trace_totals totals;
    struct kit_stats_survey survey;
    kit_trace_totals(reader, &totals);
    size_t n = totals.events + 1;
    uint64_t *time = malloc(8 * n), *size = malloc(8 * n), *sites = malloc(8 * (totals.sites + 1));
    uint32_t *block = malloc(4 * n), *site = malloc(4 * n);
    uint16_t *thread = malloc(2 * n);
    uint8_t *op = malloc(n), *align = malloc(n);
    kit_trace_columns(reader, time, size, block, site, thread, op, align);
    kit_trace_addresses(reader, sites);
    struct kit_stats_columns columns = {totals.events, totals.blocks, time,   size,
                                        block,         site,          thread, op};
    if (kit_stats_survey(&columns, &survey) < 0)
        abort();
    for (size_t i = 0; i < totals.events; i++)
        if (thread[i] >= totals.threads || site[i] > totals.sites || align[i] > 62)
            abort();
    void *all[] = {time, size, sites, block, site, thread, op, align};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

int main(int count, char **words)
{
    FILE *file = count == 3 ? fopen(words[1], "rb") : NULL;
    static uint8_t whole[1 << 20];
    size_t size = file ? fread(whole, 1, sizeof whole, file) : 0;
    int read = 0, refused = 0;
    for (int round = size > 5000 ? atoi(words[2]) : 0; round > 0; round--) {
        uint8_t *copy = malloc(size);
        memcpy(copy, whole, size);
        size_t left = damage(copy, size);
        if (next() % 2)
            blind(copy, left);
        uint8_t *exact = malloc(left); /* so that reading behind the end is seen */
        memcpy(exact, copy, left);
        struct kit_trace_reader *reader = NULL;
        char why[128];
        if (kit_trace_open(exact, left, &reader, why) == 0) {
            inspect(reader);
            read++;
        } else {
            refused++;
        }
        kit_trace_close(reader);
        free(exact);
        free(copy);
    }
    printf("%d read, %d refused\n", read, refused);
    return size > 5000 ? 0 : 2;
}
