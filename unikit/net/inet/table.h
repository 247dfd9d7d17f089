/* SPDX-License-Identifier: MIT */
/* Hash tables that grow one bucket at a time, addresses of both families, and the keyed hash that
 * keeps strangers from aiming at a chain. */
#ifndef KIT_NET_INET_TABLE_H
#define KIT_NET_INET_TABLE_H

#include <unikit/net/inet/memory.h>

/* An address of either family as two numbers; IPv4 ones are mapped, ::ffff:a.b.c.d. */
struct inet_ip {
    uint64_t high;
    uint64_t low;
};

/* What names a flow. */
struct inet_tuple {
    struct inet_ip local;
    struct inet_ip remote;
    uint16_t local_port;
    uint16_t remote_port;
};

struct inet_key {
    uint64_t word[2];
};

struct inet_entry {
    struct inet_entry *next;
    uint32_t hash;
    uint32_t kind; /* for tables that hold several */
};

enum { INET_TABLE_INNER = 32 };

struct inet_table {
    struct inet_entry **buckets;
    uint32_t used;     /* buckets in use */
    uint32_t capacity; /* a power of two */
    uint32_t count;    /* entries */
    struct inet_entry *inner[INET_TABLE_INNER];
};

void inet_table_open(struct inet_table *table);
/* Frees the buckets; entries are the caller's. */
void inet_table_close(struct inet_memory *memory, struct inet_table *table);
struct inet_entry **inet_table_chain(const struct inet_table *table, uint32_t hash);
void inet_table_insert(struct inet_memory *memory, struct inet_table *table,
                       struct inet_entry *entry);
void inet_table_remove(struct inet_memory *memory, struct inet_table *table,
                       struct inet_entry *entry);
size_t inet_table_memory(const struct inet_table *table);
bool inet_table_sound(const struct inet_table *table);

/* SipHash-1-3 for looking up, SipHash-2-4 for what leaves the machine (Aumasson, Bernstein 2012).
 */
uint64_t inet_hash(const struct inet_key *key, const uint64_t *words, unsigned count);
uint64_t inet_hash_strong(const struct inet_key *key, const uint64_t *words, unsigned count);
uint32_t inet_hash_tuple(const struct inet_key *key, const struct inet_tuple *tuple);
uint32_t inet_hash_ip(const struct inet_key *key, const struct inet_ip *ip);

KIT_INLINE struct inet_ip inet_v4(uint32_t address)
{
    return (struct inet_ip){0, UINT64_C(0xffff00000000) | address};
}

KIT_INLINE bool inet_is_v4(const struct inet_ip *ip)
{
    return ip->high == 0 && ip->low >> 32 == 0xffff;
}

KIT_INLINE uint32_t inet_as_v4(const struct inet_ip *ip)
{
    return (uint32_t)ip->low;
}

KIT_INLINE bool inet_ip_equal(const struct inet_ip *a, const struct inet_ip *b)
{
    return a->low == b->low && a->high == b->high;
}

KIT_INLINE bool inet_tuple_equal(const struct inet_tuple *a, const struct inet_tuple *b)
{
    return a->remote_port == b->remote_port && a->local_port == b->local_port &&
           inet_ip_equal(&a->remote, &b->remote) && inet_ip_equal(&a->local, &b->local);
}

/* Whether two addresses agree in their first `bits` of 128. */
KIT_INLINE bool inet_ip_same(const struct inet_ip *a, const struct inet_ip *b, unsigned bits)
{
    uint64_t high = a->high ^ b->high, low = a->low ^ b->low;
    if (bits <= 64)
        return bits == 0 || high >> (64 - bits) == 0;
    return high == 0 && (bits >= 128 ? low == 0 : low >> (128 - bits) == 0);
}

#endif
