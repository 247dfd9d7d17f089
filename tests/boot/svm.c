/* SPDX-License-Identifier: MIT */
/* The monitor as a plain static program, for hosts without Python: boots an ELF image once per
 * argument string and prints how it ended, one line each:
 *
 *     svm IMAGE [ARGUMENT...]
 *     >ARGUMENT | end E code C vector V cr2 X rip Y | from A to B | text | console output
 *
 * A and B: CLOCK_MONOTONIC before and after, ns.
 */
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unikit/platform/kvm/vmm/vmm.h>

enum { SEGMENTS_MOST = 16 };

struct image {
    uint8_t *data;
    size_t size;
    uint64_t entry;
    struct kit_kvm_segment segments[SEGMENTS_MOST];
    size_t segment_count;
};

void kit_panic(const char *message)
{
    fprintf(stderr, "panic: %s\n", message);
    abort();
}

static void read_all(const char *path, struct image *image)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        kit_panic("cannot open the image");
    image->data = malloc(16 << 20);
    image->size = fread(image->data, 1, 16 << 20, file);
    fclose(file);
}

/* The address in our note of type 1. */
static uint64_t find_entry(const struct image *image, const Elf64_Ehdr *elf)
{
    const Elf64_Shdr *sections = (const void *)(image->data + elf->e_shoff);
    for (unsigned i = 0; i < elf->e_shnum; i++) {
        const uint8_t *at = image->data + sections[i].sh_offset, *end = at + sections[i].sh_size;
        while (sections[i].sh_type == SHT_NOTE && at + sizeof(Elf64_Nhdr) < end) {
            const Elf64_Nhdr *note = (const void *)at;
            const uint8_t *body = at + sizeof *note + ((note->n_namesz + 3) & ~3u);
            uint64_t entry;
            memcpy(&entry, body, 8);
            if (note->n_type == 1 && memcmp(at + sizeof *note, "unikit", 7) == 0)
                return entry;
            at = body + ((note->n_descsz + 3) & ~3u);
        }
    }
    return 0;
}

static void load(const char *path, struct image *image)
{
    read_all(path, image);
    const Elf64_Ehdr *elf = (const void *)image->data;
    const Elf64_Phdr *headers = (const void *)(image->data + elf->e_phoff);
    for (unsigned i = 0; i < elf->e_phnum && image->segment_count < SEGMENTS_MOST; i++)
        if (headers[i].p_type == PT_LOAD)
            image->segments[image->segment_count++] = (struct kit_kvm_segment){
                .address = headers[i].p_vaddr,
                .data = image->data + headers[i].p_offset,
                .stored = headers[i].p_filesz,
                .size = headers[i].p_memsz,
                .access = (headers[i].p_flags & PF_W ? KIT_KVM_WRITABLE : 0) |
                          (headers[i].p_flags & PF_X ? KIT_KVM_EXECUTABLE : 0),
            };
    image->entry = find_entry(image, elf);
}

static unsigned long long now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (unsigned long long)now.tv_sec * 1000000000u + (unsigned long long)now.tv_nsec;
}

static void run(const struct image *image, const char *argument)
{
    char options[256] = "", output[4096];
    size_t length = strlen(argument) + 1, have = 0;
    memcpy(options + 1, argument, length);
    const struct kit_kvm_config config = {.segments = image->segments,
                                          .segment_count = image->segment_count,
                                          .entry = image->entry,
                                          .memory = 12 << 20,
                                          .options = options,
                                          .options_bytes = length + 1};
    struct kit_kvm_refused refused;
    const unsigned long long from = now_ns();
    struct kit_kvm *vm = kit_kvm_new();
    if (vm == NULL || kit_kvm_boot(vm, &config, &refused) != 0) {
        printf(">%s | refused: %s: %s\n", argument, refused.text, strerror(refused.number));
        return;
    }
    kit_kvm_input(vm, "..", 2); /* for those that wait for a key */
    int count;
    /* these two never end by themselves; the rest may be slow on an emulated processor */
    const bool endless = strcmp(argument, "spin") == 0 || strcmp(argument, "idle") == 0;
    while (have < sizeof output - 1 &&
           (count = kit_kvm_read(vm, output + have, sizeof output - 1 - have,
                                 endless && have > 0 ? 300 : 20000)) > 0)
        have += (size_t)count;
    kit_kvm_stop(vm);
    while (kit_kvm_read(vm, options, sizeof options, 1000) >= 0)
        ;
    struct kit_kvm_report report;
    kit_kvm_report(vm, &report);
    output[have] = '\0';
    for (char *c = output; *c; c++)
        *c = *c == '\n' ? '/' : *c;
    printf(">%s | end %u code %d vector %u cr2 %#llx rip %#llx | from %llu to %llu | %s | %s\n",
           argument, report.end, report.code, report.vector, (unsigned long long)report.cr2,
           (unsigned long long)report.registers[16], from, now_ns(), report.text, output);
    fflush(stdout);
    kit_kvm_close(vm);
}

int main(int argc, char **argv)
{
    struct kit_kvm_refused refused = {0};
    struct image image = {0};
    if (argc < 2)
        return 2;
    if (kit_kvm_probe(&refused) != 0) {
        printf(">probe | refused: %s: %s\n", refused.text, strerror(refused.number));
        return 1;
    }
    printf("\n>probe | ok\n");
    load(argv[1], &image);
    for (int i = 2; i < argc; i++)
        run(&image, argv[i]);
    free(image.data);
    return 0;
}
