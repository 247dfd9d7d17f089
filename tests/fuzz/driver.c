/* SPDX-License-Identifier: MIT */
/* See driver.h. */
#include <dirent.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "driver.h"

enum { EDGES = 1 << 16, CORPUS = 1 << 14, LENGTH = 1 << 16 };

struct input {
    uint8_t *data;
    size_t size;
};

void __sanitizer_cov_trace_pc(void);

static uint8_t hits[EDGES], seen[EDGES]; /* times in this run; buckets of all runs */
static uintptr_t before;
static struct input corpus[CORPUS];
static size_t kept;
static uint8_t current[LENGTH];
static size_t current_size;
static uint64_t state;

void __sanitizer_cov_trace_pc(void)
{
    uintptr_t pc = (uintptr_t)__builtin_return_address(0);
    uint8_t *hit = &hits[(pc ^ before) % EDGES];
    *hit = (uint8_t)(*hit + (*hit < 255));
    before = pc >> 1;
}

static uint64_t draw(uint64_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state * UINT64_C(0x2545F4914F6CDD1D) % below;
}

/* Once, twice, a few times, often: numbers of hits that count as different. */
static uint8_t bucket(uint8_t count)
{
    return count == 0    ? 0
           : count == 1  ? 1
           : count == 2  ? 2
           : count < 8   ? 4
           : count < 32  ? 8
           : count < 255 ? 16
                         : 32;
}

static void keep(void)
{
    struct input *input = &corpus[kept < CORPUS ? kept++ : draw(CORPUS)];
    free(input->data);
    input->data = malloc(current_size ? current_size : 1);
    input->size = current_size;
    if (input->data != NULL)
        memcpy(input->data, current, current_size);
}

/* Runs the current input; keeps it if it reached something new. */
static void run(void)
{
    bool fresh = false;
    memset(hits, 0, sizeof hits);
    before = 0;
    fuzz_one(current, current_size);
    for (size_t i = 0; i < EDGES; i++) {
        uint8_t bit = bucket(hits[i]);
        fresh |= (seen[i] & bit) != bit;
        seen[i] |= bit;
    }
    if (fresh)
        keep();
}

static void insert_or_remove(size_t limit)
{
    size_t at = draw(current_size + 1), count = 1 + draw(16);
    if (draw(2) && current_size + count <= limit) {
        memmove(current + at + count, current + at, current_size - at);
        for (size_t i = 0; i < count; i++)
            current[at + i] = (uint8_t)draw(256);
        current_size += count;
    } else if (at + count <= current_size) {
        memmove(current + at, current + at + count, current_size - at - count);
        current_size -= count;
    }
}

/* Replaces what follows a place by what follows a place of another input. */
static void splice(size_t limit)
{
    const struct input *other = &corpus[draw(kept)];
    size_t at = draw(current_size + 1), from = draw(other->size + 1), count = other->size - from;
    if (count > limit - at)
        count = limit - at;
    memcpy(current + at, other->data + from, count);
    current_size = at + count;
}

static void mutate(size_t limit)
{
    static const uint8_t edges[] = {0, 1, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 254, 255};
    const struct input *parent = &corpus[draw(kept)];
    current_size = parent->size < limit ? parent->size : limit;
    memcpy(current, parent->data, current_size);
    for (size_t times = 1 + draw(8); times; times--) {
        size_t at = current_size ? draw(current_size) : 0;
        switch (current_size ? draw(6) : 4) {
        case 0:
            current[at] ^= (uint8_t)(1 << draw(8));
            break;
        case 1:
            current[at] = (uint8_t)draw(256);
            break;
        case 2:
            current[at] = edges[draw(sizeof edges)];
            break;
        case 3:
            current[at] = (uint8_t)(current[at] + draw(17) - 8);
            break;
        case 4:
            insert_or_remove(limit);
            break;
        default:
            splice(limit);
        }
    }
}

static void dump(void)
{
    static const char digits[] = "0123456789abcdef";
    static char text[2 * LENGTH + 16];
    size_t at = 0;
    for (const char *c = "input: "; *c; c++)
        text[at++] = *c;
    for (size_t i = 0; i < current_size; i++) {
        text[at++] = digits[current[i] >> 4];
        text[at++] = digits[current[i] & 15];
    }
    text[at++] = '\n';
    if (write(2, text, at) < 0)
        _exit(98);
}

static void on_signal(int number)
{
    dump();
    signal(number, SIG_DFL);
    raise(number);
}

static bool load(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return false;
    current_size = fread(current, 1, LENGTH, file);
    fclose(file);
    return true;
}

static void load_folder(const char *folder)
{
    DIR *dir = opendir(folder);
    struct dirent *entry;
    char path[4096];
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        struct stat about;
        if (snprintf(path, sizeof path, "%s/%s", folder, entry->d_name) < (int)sizeof path &&
            stat(path, &about) == 0 && S_ISREG(about.st_mode) && load(path))
            run();
    }
    if (dir != NULL)
        closedir(dir);
}

#if defined(__SANITIZE_ADDRESS__)
void __sanitizer_set_death_callback(void (*callback)(void));
#endif

int main(int argc, char **argv)
{
    signal(SIGABRT, on_signal);
    signal(SIGSEGV, on_signal);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_set_death_callback(dump);
#endif
    if (argc == 2) {
        if (!load(argv[1])) {
            fprintf(stderr, "%s: cannot be read\n", argv[1]);
            return 2;
        }
        run();
        return 0;
    }
    size_t limit = argc >= 4 ? strtoull(argv[3], NULL, 0) : 0;
    if (limit == 0 || limit > LENGTH) {
        fprintf(stderr, "usage: %s RUNS SEED LENGTH [FOLDER], or %s FILE\n", argv[0], argv[0]);
        return 2;
    }
    uint64_t runs = strtoull(argv[1], NULL, 0);
    state = strtoull(argv[2], NULL, 0) * 2 + 1;
    run(); /* the empty input */
    keep();
    if (argc > 4)
        load_folder(argv[4]);
    for (uint64_t i = 0; i < runs; i++) {
        mutate(limit);
        run();
    }
    size_t edges = 0;
    for (size_t i = 0; i < EDGES; i++)
        edges += seen[i] != 0;
    printf("%llu runs, %zu inputs kept, %zu edges\n", (unsigned long long)runs, kept, edges);
    fuzz_summary();
    return 0;
}
