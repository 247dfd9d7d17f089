/* SPDX-License-Identifier: MIT */
/* The console device: output goes from guest memory into a ring that a reader empties, input from
 * a small ring into the guest's buffers. A reader that stalls does not stop the guest for good: it
 * waits a bounded time for room, then the guest learns that less was taken. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unikit/platform/kvm/vmm/internal.h>
#include <unikit/rt/x86_64/cpu.h>

#define PATIENCE_NS (UINT64_C(100) * KIT_NS_PER_MS)

int vmm_console_open(struct vmm_console *console)
{
    pthread_condattr_t attributes;
    console->output = mmap(NULL, VMM_OUTPUT, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (console->output == MAP_FAILED)
        return -errno;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&console->lock, NULL);
    pthread_mutex_init(&console->queue, NULL);
    pthread_cond_init(&console->readable, &attributes);
    pthread_cond_init(&console->writable, &attributes);
    pthread_condattr_destroy(&attributes);
    return 0;
}

void vmm_console_close(struct vmm_console *console)
{
    munmap(console->output, VMM_OUTPUT);
    pthread_mutex_destroy(&console->lock);
    pthread_mutex_destroy(&console->queue);
    pthread_cond_destroy(&console->readable);
    pthread_cond_destroy(&console->writable);
}

static struct timespec at_ns(uint64_t ns)
{
    return (struct timespec){(time_t)(ns / KIT_NS_PER_S), (long)(ns % KIT_NS_PER_S)};
}

/* Copies into the ring what has room, waiting until `deadline` for more; the lock is held. */
static uint32_t put(struct vmm_console *console, const uint8_t *data, uint32_t length,
                    uint64_t deadline)
{
    const struct timespec until = at_ns(deadline);
    uint32_t done = 0;
    while (done < length) {
        uint64_t room = VMM_OUTPUT - (console->written - console->read);
        if (room == 0) {
            if (console->hurry ||
                pthread_cond_timedwait(&console->writable, &console->lock, &until) == ETIMEDOUT)
                break;
            continue;
        }
        uint64_t at = console->written % VMM_OUTPUT, part = length - done;
        part = part < room ? part : room;
        part = part < VMM_OUTPUT - at ? part : VMM_OUTPUT - at;
        memcpy(console->output + at, data + done, part);
        console->written += part;
        done += (uint32_t)part;
        pthread_cond_signal(&console->readable);
    }
    return done;
}

/* The queue is locked. */
static int drain(struct vmm_console *console, struct vmm_fault *fault)
{
    if (!vmm_queue_pending(&console->tx))
        return 0;
    const uint64_t start = vmm_now_ns();
    struct vmm_buffer buffer;
    int rc;
    while ((rc = vmm_queue_take(&console->tx, &buffer, 1, fault)) > 0) {
        pthread_mutex_lock(&console->lock);
        if (console->first_ns == 0) {
            console->first_ns = start;
            console->first_tsc = kit_cpu_tsc();
        }
        uint32_t taken = put(console, buffer.data, buffer.length, start + PATIENCE_NS);
        console->bytes += taken;
        console->dropped += buffer.length - taken;
        pthread_mutex_unlock(&console->lock);
        vmm_queue_return(&console->tx, buffer.id, taken);
    }
    return rc;
}

/* Locked before it is looked at: what another processor's thread has just taken is not finished
 * yet, and the guest was promised that it would be. */
int vmm_console_drain(struct vmm_console *console, struct vmm_fault *fault)
{
    pthread_mutex_lock(&console->queue);
    int rc = drain(console, fault);
    pthread_mutex_unlock(&console->queue);
    return rc;
}

/* The lock is held. */
static int feed(struct vmm_console *console, struct vmm_fault *fault)
{
    struct vmm_buffer buffer;
    while (console->input_read != console->input_written) {
        int rc = vmm_queue_take(&console->rx, &buffer, 1, fault);
        if (rc <= 0)
            return rc;
        uint32_t done = 0;
        for (; done < buffer.length && console->input_read != console->input_written; done++)
            buffer.data[done] = (uint8_t)console->input[console->input_read++ % VMM_INPUT];
        vmm_queue_return(&console->rx, buffer.id, done);
    }
    return 0;
}

int vmm_console_feed(struct vmm_console *console, struct vmm_fault *fault)
{
    pthread_mutex_lock(&console->lock);
    int rc = feed(console, fault);
    if (console->input_read != console->input_written && rc == 0) {
        /* Have the guest say when it gives buffers back, and look again: it may just have. */
        vmm_queue_set_notify(&console->rx, true);
        rc = feed(console, fault);
    }
    if (console->input_read == console->input_written)
        vmm_queue_set_notify(&console->rx, false);
    pthread_mutex_unlock(&console->lock);
    return rc;
}

void vmm_console_hurry(struct vmm_console *console)
{
    pthread_mutex_lock(&console->lock);
    console->hurry = true;
    pthread_cond_broadcast(&console->writable);
    pthread_mutex_unlock(&console->lock);
}

void vmm_console_end(struct vmm_console *console)
{
    pthread_mutex_lock(&console->lock);
    console->closed = true;
    pthread_cond_broadcast(&console->readable);
    pthread_mutex_unlock(&console->lock);
}

int kit_kvm_read(struct kit_kvm *vm, char *buffer, size_t size, int timeout_ms)
{
    struct vmm_console *console = &vm->console;
    const uint64_t wait_ns = timeout_ms < 0 ? 0 : (uint64_t)timeout_ms * KIT_NS_PER_MS;
    const struct timespec until = at_ns(vmm_now_ns() + wait_ns);
    int rc = 0;
    pthread_mutex_lock(&console->lock);
    while (console->read == console->written && !console->closed && rc == 0)
        rc = timeout_ms < 0 ? pthread_cond_wait(&console->readable, &console->lock)
                            : pthread_cond_timedwait(&console->readable, &console->lock, &until);
    size_t done = 0;
    while (done < size && done < INT32_MAX && console->read != console->written) {
        uint64_t at = console->read % VMM_OUTPUT, part = console->written - console->read;
        part = part < size - done ? part : size - done;
        part = part < VMM_OUTPUT - at ? part : VMM_OUTPUT - at;
        memcpy(buffer + done, console->output + at, part);
        console->read += part;
        done += part;
    }
    const bool ended = console->closed && done == 0;
    pthread_cond_signal(&console->writable);
    pthread_mutex_unlock(&console->lock);
    return ended ? KIT_ECLOSED : (int)done;
}
