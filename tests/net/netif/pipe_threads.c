/* SPDX-License-Identifier: MIT */
/* Two threads on the two ends of a small pipe: numbered frames both ways at once, in batches of
 * changing size. Argument: frames per direction. */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <unikit/net/netif.h>

extern const struct kit_netif_component kit_netif_pipe;

enum { BATCH = 7, SIZE = 96 };

static uint64_t total;

static void fill(uint8_t *frame, uint64_t number)
{
    for (unsigned i = 0; i < SIZE; i += 8)
        memcpy(frame + i, &(uint64_t){number * 0x9e3779b97f4a7c15 + i}, 8);
}

static void *run(void *argument)
{
    network_interface_t *end = argument;
    uint8_t out[BATCH][SIZE], in[BATCH][SIZE], wanted[SIZE];
    uint64_t sent = 0, received = 0;
    while (sent < total || received < total) {
        struct kit_frame frames[BATCH];
        size_t count = sent % BATCH + 1;
        if (count > total - sent)
            count = total - sent;
        for (size_t i = 0; i < count; i++) {
            fill(out[i], sent + i);
            frames[i] = (struct kit_frame){.data = out[i], .length = SIZE};
        }
        int taken = count != 0 ? kit_netif_send_batch(end, frames, count) : 0;
        sent += taken > 0 ? (uint64_t)taken : 0;
        for (size_t i = 0; i < BATCH; i++)
            frames[i] = (struct kit_frame){.data = in[i], .capacity = SIZE};
        int got = kit_netif_receive_batch(end, frames, BATCH);
        for (int i = 0; i < got; i++, received++) {
            fill(wanted, received);
            if (frames[i].length != SIZE || memcmp(in[i], wanted, SIZE) != 0) {
                fprintf(stderr, "frame %llu is wrong\n", (unsigned long long)received);
                exit(1);
            }
        }
        if (taken <= 0 && got <= 0)
            sched_yield();
    }
    return NULL;
}

int main(int argc, char **argv)
{
    uint64_t options[] = {16, 128};
    size_t size = kit_netif_pipe.memory_size(options);
    void *memory = aligned_alloc(64, (size + 63) & ~(size_t)63);
    network_interface_t *ends[2];
    total = argc > 1 ? strtoull(argv[1], NULL, 0) : 100000;
    if (kit_netif_pipe.open(options, memory, size, ends) != 0)
        return 2;
    pthread_t other;
    if (pthread_create(&other, NULL, run, ends[1]) != 0)
        return 2;
    run(ends[0]);
    pthread_join(other, NULL);
    free(memory);
    return 0;
}
