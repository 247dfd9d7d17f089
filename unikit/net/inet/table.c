/* SPDX-License-Identifier: MIT */
/* Linear hashing (Litwin, 1980): the table grows by splitting one chain per insertion, so no
 * insertion pays for all; only the array of chains is copied when it doubles. Without memory for
 * that the chains get longer and everything still works. An empty table holds no memory. */
#include <unikit/net/inet/table.h>
#include <unikit/rt/bits.h>

void inet_table_open(struct inet_table *table)
{
    *table = (struct inet_table){.used = INET_TABLE_INNER, .capacity = INET_TABLE_INNER};
    table->buckets = table->inner;
}

void inet_table_close(struct inet_memory *memory, struct inet_table *table)
{
    if (table->buckets != table->inner)
        inet_give(memory, table->buckets, sizeof(*table->buckets) * table->capacity);
    inet_table_open(table);
}

static uint32_t table_index(uint32_t used, uint32_t hash)
{
    uint32_t mask = used == 1 ? 0 : (UINT32_C(2) << kit_fls64(used - 1)) - 1;
    uint32_t index = hash & mask;
    return index < used ? index : index & mask >> 1;
}

struct inet_entry **inet_table_chain(const struct inet_table *table, uint32_t hash)
{
    return &table->buckets[table_index(table->used, hash)];
}

static bool table_double(struct inet_memory *memory, struct inet_table *table)
{
    size_t old = sizeof(*table->buckets) * table->capacity;
    struct inet_entry **buckets = table->capacity >> 30 != 0 ? NULL : inet_take(memory, old * 2);
    if (buckets == NULL)
        return false;
    memcpy(buckets, table->buckets, old);
    if (table->buckets != table->inner)
        inet_give(memory, table->buckets, old);
    table->buckets = buckets;
    table->capacity *= 2;
    return true;
}

/* One bucket more: what belongs there comes from one other. */
static void table_grow(struct inet_memory *memory, struct inet_table *table)
{
    if (table->used == table->capacity && !table_double(memory, table))
        return;
    uint32_t fresh = table->used, from = fresh - (UINT32_C(1) << kit_fls64(fresh));
    struct inet_entry **at = &table->buckets[from];
    table->buckets[fresh] = NULL;
    table->used++;
    while (*at != NULL) {
        struct inet_entry *entry = *at;
        if (table_index(table->used, entry->hash) != fresh) {
            at = &entry->next;
            continue;
        }
        *at = entry->next;
        entry->next = table->buckets[fresh];
        table->buckets[fresh] = entry;
    }
}

void inet_table_insert(struct inet_memory *memory, struct inet_table *table,
                       struct inet_entry *entry)
{
    if (table->count >= table->used)
        table_grow(memory, table);
    struct inet_entry **chain = inet_table_chain(table, entry->hash);
    entry->next = *chain;
    *chain = entry;
    table->count++;
}

void inet_table_remove(struct inet_memory *memory, struct inet_table *table,
                       struct inet_entry *entry)
{
    struct inet_entry **at = inet_table_chain(table, entry->hash);
    while (*at != entry)
        at = &(*at)->next;
    *at = entry->next;
    if (--table->count == 0)
        inet_table_close(memory, table);
}

size_t inet_table_memory(const struct inet_table *table)
{
    return table->buckets == table->inner ? 0 : sizeof(*table->buckets) * table->capacity;
}

bool inet_table_sound(const struct inet_table *table)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < table->used; i++) {
        for (const struct inet_entry *at = table->buckets[i]; at != NULL; at = at->next) {
            if (table_index(table->used, at->hash) != i)
                return false;
            count++;
        }
    }
    return count == table->count;
}

static uint64_t rotate(uint64_t word, unsigned by)
{
    return word << by | word >> (64 - by);
}

static void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = rotate(v[1], 13) ^ v[0];
    v[3] = rotate(v[3], 16) ^ v[2];
    v[0] = rotate(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = rotate(v[1], 17) ^ v[2];
    v[3] = rotate(v[3], 21) ^ v[0];
    v[2] = rotate(v[2], 32);
}

static uint64_t sip(const struct inet_key *key, const uint64_t *words, unsigned count,
                    unsigned each, unsigned last)
{
    const uint64_t *k = key->word;
    uint64_t v[4] = {k[0] ^ UINT64_C(0x736f6d6570736575), k[1] ^ UINT64_C(0x646f72616e646f6d),
                     k[0] ^ UINT64_C(0x6c7967656e657261), k[1] ^ UINT64_C(0x7465646279746573)};
    for (unsigned i = 0; i <= count; i++) {
        uint64_t word = i < count ? words[i] : (uint64_t)count << 59; /* the length in bytes */
        v[3] ^= word;
        for (unsigned j = 0; j < each; j++)
            sip_round(v);
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    for (unsigned i = 0; i < last; i++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

uint64_t inet_hash(const struct inet_key *key, const uint64_t *words, unsigned count)
{
    return sip(key, words, count, 1, 3);
}

uint64_t inet_hash_strong(const struct inet_key *key, const uint64_t *words, unsigned count)
{
    return sip(key, words, count, 2, 4);
}

uint32_t inet_hash_tuple(const struct inet_key *key, const struct inet_tuple *t)
{
    uint64_t ports = (uint64_t)t->remote_port << 16 | t->local_port;
    if (inet_is_v4(&t->remote)) {
        uint64_t words[2] = {t->remote.low << 32 | inet_as_v4(&t->local), ports};
        return (uint32_t)inet_hash(key, words, 2);
    }
    uint64_t words[5] = {t->remote.high, t->remote.low, t->local.high, t->local.low, ports};
    return (uint32_t)inet_hash(key, words, 5);
}

uint32_t inet_hash_ip(const struct inet_key *key, const struct inet_ip *ip)
{
    uint64_t words[2] = {ip->high, ip->low};
    return (uint32_t)inet_hash(key, words, 2);
}
