/* SPDX-License-Identifier: MIT */
/* The console of the sealed guest. Output needs no buffers: one descriptor points at the caller's
 * bytes, the kick carries them out, and the used length says how many were taken. */
#include <unikit/platform/kvm/guest/guest.h>

size_t kit_kvm_console_write(console_interface_t *console, const char *data, size_t length)
{
    struct kvm_guest *guest = KIT_CONTAINER_OF(console, struct kvm_guest, console);
    struct kvm_queue *tx = &guest->console_tx;
    uint32_t piece = length > UINT32_C(1) << 20 ? UINT32_C(1) << 20 : (uint32_t)length;
    if (piece == 0)
        return 0;
    kvm_queue_add(tx, data, piece, 0);
    kvm_bell(KIT_KVM_KICK, 0);
    if (kvm_queue_used(tx) == 0)
        kit_panic("kvm console: the monitor did not take a descriptor");
    uint32_t slot = tx->taken & (tx->size - 1);
    tx->taken++;
    return tx->used->ring[slot].length;
}

KVM_COLD size_t kit_kvm_console_read(console_interface_t *console, char *buffer, size_t max_length)
{
    struct kvm_guest *guest = KIT_CONTAINER_OF(console, struct kvm_guest, console);
    struct kvm_queue *rx = &guest->console_rx;
    size_t done = 0;
    bool returned = false;
    while (done < max_length && kvm_queue_used(rx) != 0) {
        uint32_t length = rx->used->ring[rx->taken & (rx->size - 1)].length;
        uint32_t here = length - guest->console_rx_offset;
        uint32_t part = max_length - done < here ? (uint32_t)(max_length - done) : here;
        memcpy(buffer + done, kvm_queue_buffer(rx, rx->taken) + guest->console_rx_offset, part);
        done += part;
        guest->console_rx_offset += part;
        if (part < here)
            break;
        guest->console_rx_offset = 0;
        kvm_queue_add(rx, kvm_queue_buffer(rx, rx->taken), rx->buffer_size, KIT_VQ_DESC_WRITE);
        rx->taken++;
        returned = true;
    }
    /* More input waits outside for the buffers that were just given back. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (returned && !(rx->used->flags & KIT_VQ_USED_NO_NOTIFY))
        kvm_bell(KIT_KVM_KICK, 0);
    return done;
}

KVM_COLD void kvm_console_open(struct kvm_guest *guest)
{
    kvm_queue_open(&guest->console_tx, &guest->boot->queue[KIT_KVM_CONSOLE_TX]);
    struct kvm_queue *rx = &guest->console_rx;
    kvm_queue_open(rx, &guest->boot->queue[KIT_KVM_CONSOLE_RX]);
    for (uint16_t i = 0; i < rx->size; i++)
        kvm_queue_add(rx, kvm_queue_buffer(rx, i), rx->buffer_size, KIT_VQ_DESC_WRITE);
    KIT_CONSOLE_SET(&guest->console, write, kit_kvm_console_write);
    KIT_CONSOLE_SET(&guest->console, read, kit_kvm_console_read);
}
