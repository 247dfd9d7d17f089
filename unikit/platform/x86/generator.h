/* SPDX-License-Identifier: MIT */
/* Random bytes for an image whose platform gives it a seed: the ChaCha20 block function (RFC 8439,
 * section 2.3) as a generator with fast key erasure: of each block the first half becomes the next
 * key, so earlier output cannot be computed from the state. Where the processor has RDRAND its
 * words are mixed into every key: an addition, never the only source. 32 bytes of output a block.
 */
#ifndef KIT_PLATFORM_X86_GENERATOR_H
#define KIT_PLATFORM_X86_GENERATOR_H

#include <unikit/rt/types.h>

enum { KIT_GENERATOR_SEED = 32 };

struct kit_generator {
    uint8_t key[KIT_GENERATOR_SEED];
    uint8_t ready[64]; /* output not given out yet: the last `left` bytes */
    uint32_t left;
    bool hardware; /* RDRAND is mixed in */
};

/* Takes KIT_GENERATOR_SEED bytes and wipes them where they were. */
void kit_generator_open(struct kit_generator *generator, volatile uint8_t *seed, bool hardware);
void kit_generator_fill(struct kit_generator *generator, void *buffer, size_t size);

#endif
