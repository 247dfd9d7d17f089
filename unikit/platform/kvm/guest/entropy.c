/* SPDX-License-Identifier: MIT */
/* Randomness of the sealed guest: the ChaCha20 block function (RFC 8439, section 2.3) as a
 * generator with fast key erasure: of each block the first half becomes the next key, so earlier
 * output cannot be computed from the state. The first key is the monitor's seed; where the
 * processor has RDRAND its words are mixed into every key. 32 bytes of output per block. */
#include <unikit/platform/kvm/guest/guest.h>
#include <unikit/rt/x86_64/cpu.h>

static uint32_t rotate(uint32_t x, unsigned n)
{
    return x << n | x >> (32 - n);
}

static KVM_COLD void quarter(uint32_t *s, unsigned a, unsigned b, unsigned c, unsigned d)
{
    s[a] += s[b], s[d] = rotate(s[d] ^ s[a], 16);
    s[c] += s[d], s[b] = rotate(s[b] ^ s[c], 12);
    s[a] += s[b], s[d] = rotate(s[d] ^ s[a], 8);
    s[c] += s[d], s[b] = rotate(s[b] ^ s[c], 7);
}

/* One block for key and a nonce and counter of zero: no key is used twice. */
static KVM_COLD void chacha20(const uint8_t key[32], uint8_t out[64])
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
static KVM_COLD void mix_hardware(uint8_t key[32])
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

static KVM_COLD void refill(struct kvm_entropy *e)
{
    if (e->hardware)
        mix_hardware(e->key);
    chacha20(e->key, e->ready);
    memcpy(e->key, e->ready, 32);
    memset(e->ready, 0, 32);
    e->left = 32;
}

KVM_COLD void kvm_entropy_open(struct kvm_guest *guest)
{
    struct kvm_entropy *e = &guest->entropy;
    for (unsigned i = 0; i < 32; i++) {
        e->key[i] = guest->shared->seed[i];
        guest->shared->seed[i] = 0;
    }
    e->hardware = (guest->boot->cpu_features & KIT_CPU_RDRAND) != 0;
}

static KVM_COLD void take(struct kvm_entropy *e, uint8_t *out, size_t size)
{
    while (size > 0) {
        if (e->left == 0)
            refill(e);
        size_t part = size < e->left ? size : e->left;
        uint8_t *from = e->ready + 64 - e->left;
        memcpy(out, from, part);
        memset(from, 0, part);
        e->left -= (uint32_t)part;
        out += part;
        size -= part;
    }
}

KVM_COLD int kit_kvm_entropy(runtime_environment_t *env, void *buffer, size_t size)
{
    struct kvm_guest *guest = KIT_CONTAINER_OF(env, struct kvm_guest, env);
#if KIT_WITH_CPUS
    kit_spin_lock(&guest->entropy_lock);
#endif
    take(&guest->entropy, buffer, size);
#if KIT_WITH_CPUS
    kit_spin_unlock(&guest->entropy_lock);
#endif
    return 0;
}
