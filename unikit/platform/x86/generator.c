/* SPDX-License-Identifier: MIT */
#include <unikit/platform/x86/generator.h>

/* Small rather than fast: asked rarely. */
#define GENERATOR_COLD __attribute__((cold))

static uint32_t rotate(uint32_t x, unsigned n)
{
    return x << n | x >> (32 - n);
}

static GENERATOR_COLD void quarter(uint32_t *s, unsigned a, unsigned b, unsigned c, unsigned d)
{
    s[a] += s[b], s[d] = rotate(s[d] ^ s[a], 16);
    s[c] += s[d], s[b] = rotate(s[b] ^ s[c], 12);
    s[a] += s[b], s[d] = rotate(s[d] ^ s[a], 8);
    s[c] += s[d], s[b] = rotate(s[b] ^ s[c], 7);
}

/* One block for key and a nonce and counter of zero: no key is used twice. */
static GENERATOR_COLD void chacha20(const uint8_t key[32], uint8_t out[64])
{
    uint32_t start[16] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574};
    memcpy(&start[4], key, 32);
    uint32_t s[16];
    memcpy(s, start, sizeof s);
    for (unsigned round = 0; round < 10; round++) {
        for (unsigned i = 0; i < 4; i++)
            quarter(s, i, 4 + i, 8 + i, 12 + i);
        for (unsigned i = 0; i < 4; i++)
            quarter(s, i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4);
    }
    for (unsigned i = 0; i < 16; i++)
        s[i] += start[i];
    memcpy(out, s, 64);
}

/* A failing RDRAND leaves the key as it is: it is an addition, never the only source. */
static GENERATOR_COLD void mix_hardware(uint8_t key[32])
{
    for (unsigned i = 0; i < 32; i += 8) {
        uint64_t word, old;
        uint8_t ok;
        __asm__ volatile("rdrand %0; setc %1" : "=r"(word), "=qm"(ok)::"cc");
        if (ok) {
            memcpy(&old, key + i, 8);
            old ^= word;
            memcpy(key + i, &old, 8);
        }
    }
}

static GENERATOR_COLD void refill(struct kit_generator *g)
{
    if (g->hardware)
        mix_hardware(g->key);
    chacha20(g->key, g->ready);
    memcpy(g->key, g->ready, 32);
    memset(g->ready, 0, 32);
    g->left = 32;
}

GENERATOR_COLD void kit_generator_open(struct kit_generator *g, volatile uint8_t *seed,
                                       bool hardware)
{
    *g = (struct kit_generator){.hardware = hardware};
    for (unsigned i = 0; i < KIT_GENERATOR_SEED; i++) {
        g->key[i] = seed[i];
        seed[i] = 0;
    }
}

GENERATOR_COLD void kit_generator_fill(struct kit_generator *g, void *buffer, size_t size)
{
    uint8_t *out = buffer;
    while (size > 0) {
        if (g->left == 0)
            refill(g);
        size_t part = size < g->left ? size : g->left;
        uint8_t *from = g->ready + 64 - g->left;
        memcpy(out, from, part);
        memset(from, 0, part);
        g->left -= (uint32_t)part;
        out += part;
        size -= part;
    }
}
