/* SPDX-License-Identifier: MIT */
/* Time by the vDSO's clock_gettime: user code that the kernel maps into the process, ten times
 * cheaper than a system call and still the kernel's own clock. It is found as vdso(7) says, by the
 * dynamic symbol table of the ELF image at AT_SYSINFO_EHDR; without one the system call serves. */
#include <unikit/platform/linux/guest/linux.h>

struct elf_header {
    uint8_t ident[16];
    uint16_t type, machine;
    uint32_t version;
    uint64_t entry, program_offset, section_offset;
    uint32_t flags;
    uint16_t size, program_size, program_count, section_size, section_count, section_names;
};

struct elf_section {
    uint32_t name, type;
    uint64_t flags, address, offset, size;
    uint32_t link, info;
    uint64_t align, entry_size;
};

struct elf_program {
    uint32_t type, flags;
    uint64_t offset, address, physical, file_size, memory_size, align;
};

struct elf_dynamic {
    uint64_t tag, value;
};

struct elf_symbol {
    uint32_t name;
    uint8_t info, other;
    uint16_t section;
    uint64_t value, size;
};

enum { PT_LOAD = 1, PT_DYNAMIC = 2 };
enum { DT_NULL = 0, DT_HASH = 4, DT_STRTAB = 5, DT_SYMTAB = 6, DT_GNU_HASH = 0x6ffffef5 };

/* The dynamic symbols are as many as lie before the string table: in every vDSO the linker puts
 * .dynstr right behind .dynsym (checked: else it is not used). */
static LINUX_COLD uintptr_t find_symbol(uintptr_t base, const char *name)
{
    const struct elf_header *header = (const struct elf_header *)base;
    const struct elf_program *programs =
        (const struct elf_program *)(base + header->program_offset);
    uintptr_t load = base;
    const struct elf_dynamic *dynamic = NULL;
    for (unsigned i = 0; i < header->program_count; i++) {
        if (programs[i].type == PT_LOAD)
            load = base + programs[i].offset - programs[i].address;
        if (programs[i].type == PT_DYNAMIC)
            dynamic = (const struct elf_dynamic *)(base + programs[i].offset);
    }
    if (dynamic == NULL)
        return 0;
    uintptr_t strings = 0, symbols = 0;
    for (; dynamic->tag != DT_NULL; dynamic++) {
        if (dynamic->tag == DT_STRTAB)
            strings = load + dynamic->value;
        if (dynamic->tag == DT_SYMTAB)
            symbols = load + dynamic->value;
    }
    const struct elf_symbol *symbol = (const struct elf_symbol *)symbols;
    if (symbols == 0 || strings <= symbols || strings - symbols > LINUX_PAGE)
        return 0;
    size_t size = strlen(name) + 1;
    for (; (uintptr_t)(symbol + 1) <= strings; symbol++)
        if (symbol->section != 0 && memcmp((const char *)strings + symbol->name, name, size) == 0)
            return load + symbol->value;
    return 0;
}

static int by_call(int clock, struct linux_timespec *time)
{
    return (int)kit_syscall3(SYS_CLOCK_GETTIME, (uintptr_t)clock, (uintptr_t)time, 0);
}

static int first(int clock, struct linux_timespec *time);
static int (*get_time)(int clock, struct linux_timespec *time) = first;

/* The first reading finds out how: an image that never asks for the time has no code for it. */
static LINUX_COLD int first(int clock, struct linux_timespec *time)
{
    uintptr_t vdso = kit_linux.vdso;
    uintptr_t symbol = vdso != 0 ? find_symbol(vdso, "__vdso_clock_gettime") : 0;
    get_time = symbol != 0 ? (int (*)(int, struct linux_timespec *))symbol : by_call;
    return get_time(clock, time);
}

static uint64_t read_clock(int clock)
{
    struct linux_timespec time = {0, 0};
    get_time(clock, &time);
    return kit_linux_ns(time);
}

uint64_t kit_linux_now_ns(runtime_environment_t *env)
{
    (void)env;
    return read_clock(CLOCK_MONOTONIC);
}

uint64_t kit_linux_wall_ns(runtime_environment_t *env)
{
    (void)env;
    return read_clock(CLOCK_REALTIME);
}
