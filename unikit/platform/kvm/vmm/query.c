/* SPDX-License-Identifier: MIT */
/* What may be asked of a machine from outside, from any thread. */
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unikit/platform/kvm/vmm/internal.h>
#include <unistd.h>

size_t kit_kvm_input(struct kit_kvm *vm, const char *data, size_t size)
{
    struct vmm_console *console = &vm->console;
    struct vmm_fault fault = {""};
    size_t done = 0;
    pthread_mutex_lock(&console->lock);
    for (; done < size && console->input_written - console->input_read < VMM_INPUT; done++)
        console->input[console->input_written++ % VMM_INPUT] = data[done];
    const bool ended = console->closed;
    pthread_mutex_unlock(&console->lock);
    if (ended)
        return 0;
    if (vmm_console_feed(console, &fault) < 0) {
        vmm_break(vm, &fault);
    } else {
        const uint64_t one = 1;
        if (write(vm->cpu[0].wake_fd, &one, sizeof one) < 0)
            return done; /* it is awake already */
    }
    return done;
}

void kit_kvm_report(struct kit_kvm *vm, struct kit_kvm_report *report)
{
    pthread_mutex_lock(&vm->report_lock);
    *report = vm->report;
    pthread_mutex_unlock(&vm->report_lock);
    if (!__atomic_load_n(&vm->ended, __ATOMIC_ACQUIRE))
        memset(report, 0, sizeof *report);
}

void kit_kvm_layout(const struct kit_kvm *vm, struct kit_kvm_layout *layout)
{
    *layout = vm->memory.layout;
}

size_t kit_kvm_peek(struct kit_kvm *vm, uint64_t address, void *buffer, size_t size)
{
    const void *from = vmm_memory_any(&vm->memory, address, size);
    if (from == NULL)
        return 0;
    memcpy(buffer, from, size);
    return size;
}

size_t kit_kvm_dump(struct kit_kvm *vm, uint64_t address, void *buffer, size_t size)
{
    const char *from = vmm_memory_any(&vm->memory, address, size);
    size_t done = 0;
    if (from == NULL)
        return 0;
    const int self = open("/proc/self/mem", O_RDONLY | O_CLOEXEC); /* heeds no protection */
    while (self >= 0 && done < size) {
        ssize_t got =
            pread(self, (char *)buffer + done, size - done, (off_t)(uintptr_t)(from + done));
        if (got <= 0)
            break;
        done += (size_t)got;
    }
    if (self >= 0)
        close(self);
    return done;
}

static uint64_t resident(const struct kit_kvm *vm)
{
    unsigned char pages[4096];
    const uint64_t size = vm->memory.layout.memory_size, step = sizeof pages * VMM_PAGE;
    uint64_t count = 0;
    for (uint64_t at = 0; at < size; at += step) {
        uint64_t part = size - at < step ? size - at : step;
        if (mincore(vm->memory.host + at, part, pages) != 0)
            return 0;
        for (uint64_t i = 0; i < part / VMM_PAGE; i++)
            count += pages[i] & 1;
    }
    return count * VMM_PAGE;
}

static uint64_t thread_ns(pthread_t thread)
{
    clockid_t clock;
    struct timespec used;
    if (pthread_getcpuclockid(thread, &clock) != 0 || clock_gettime(clock, &used) != 0)
        return 0;
    return (uint64_t)used.tv_sec * KIT_NS_PER_S + (uint64_t)used.tv_nsec;
}

/* What one processor did, added to the numbers of all; start_lock is held. */
static void add_cpu(const struct vmm_cpu *cpu, struct kit_kvm_stats *stats)
{
    const bool ended = __atomic_load_n(&cpu->ended, __ATOMIC_ACQUIRE);
    stats->cpus++;
    stats->exits_idle += cpu->exits_idle;
    stats->exits_kick += cpu->exits_kick;
    stats->exits_pages += cpu->exits_pages;
    stats->exits_interrupted += cpu->exits_interrupted;
    stats->exits_slice += cpu->exits_slice;
    stats->upcalls += cpu->upcalls;
    stats->cpu_ns += ended ? cpu->final_ns : thread_ns(cpu->thread);
}

/* Counters of other threads are read as they stand: each is one word, written by one thread. */
void kit_kvm_stats(struct kit_kvm *vm, struct kit_kvm_stats *stats)
{
    const volatile struct kit_kvm_shared *shared = vm->shared;
    const uint64_t hz = vmm_clock_hz(), entry = shared->entry_tsc - vm->clock.tsc_offset;
    *stats = (struct kit_kvm_stats){
        .frames_sent = vm->net.sent,
        .frames_received = vm->net.received,
        .bytes_sent = vm->net.sent_bytes,
        .bytes_received = vm->net.received_bytes,
        .frames_dropped = vm->net.dropped,
        .console_bytes = vm->console.bytes,
        .console_dropped = vm->console.dropped,
        .served_turns = vm->served_turns,
        .engagements = vm->engagements,
        .device_cpu_ns = vm->device_started ? thread_ns(vm->device_thread) : 0,
        .resident = resident(vm),
        .boot_ns = vm->boot_ns,
        .first_output_ns = vm->console.first_ns,
        .entry_to_main_tsc = shared->main_tsc - shared->entry_tsc,
        .entry_to_output_tsc = vm->console.first_tsc != 0 ? vm->console.first_tsc - entry : 0,
        .tsc_hz = hz,
    };
    pthread_mutex_lock(&vm->start_lock);
    for (uint32_t i = 0; i < vm->cpu_count; i++)
        if (vm->cpu[i].started)
            add_cpu(&vm->cpu[i], stats);
    pthread_mutex_unlock(&vm->start_lock);
}
